"""Topology files that must be refused or warned about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moesim.errors import BadInput
from moesim.hardware import load_cluster
from moesim.hardware.validate import validate
from tests.hardware.topologies import DEVICE, NODE, sealed


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("400 Gb/s", "0 Gb/s", r"small\.yaml:10 node\.nic\.value: .*greater than 0"),
        ("450 GB/s", "450", r"small\.yaml:10 node\.nvlink\.value: bandwidth 450 has no unit"),
        ("450 GB/s", "450 GBps", "not a unit of bandwidth"),
        ("450 GB/s", ".nan", "not a unit"),
        ("gpus: 4", "gpus: 0", "greater than or equal to 1"),
        ("gpus: 4", "gpus: four", "integer"),
        ("nvlink:", "nvlnk:", "did you mean 'nvlink'"),
        ("nvlink: {value: 450 GB/s, source: a test}, ", "", "exactly one of nvlink, hccs"),
        ("nvlink:", "pcie: {value: 1 GB/s, source: two tiers}, nvlink:", "exactly one of nvlink, hccs"),
        (", source: a test}}", "}}", r"node\.nic\.source: missing, and has no default"),
        ("}}\n", "}, nics: 3}\n", "nics has to divide gpus"),
        ("}}\n", "}}\nfabric: {nodes: 2, oversubscription: 0.5}\n", "greater than or equal to 1"),
        ("}}\n", "}}\nfabric: {nodes: 2, spines: 4}\n", "matter to 'routing: ecmp' and spray only"),
        ("}}\n", "}}\nfabric: {nodes: 20000}\n", "80000 GPUs, at most 65536. Try: nodes: 16384"),
        ("}}\n", "}}\nfabric: {nodes: 1000000000000000000}\n", "valid integer"),
        ("}}\n", "}}\nswitches: [a]\n", "switches, nodes and spray belong to links"),
        ("moesim_topology: 1", "moesim_topology: 2", r"small\.yaml:1 moesim_topology"),
        ("80 GB,", "0 GB,", r"device\.memory\.value"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(old: str, new: str, said: str) -> None:
    assert old in NODE
    with pytest.raises(BadInput, match=said) as error:
        sealed(NODE.replace(old, new))
    assert error.value.exit_code == 2 and "small.yaml" in str(error.value)


def test_several_nodes_need_a_way_out() -> None:
    with pytest.raises(BadInput, match=r"2 nodes and no node\.nic"):
        sealed(DEVICE + "node: {gpus: 2, nvlink: {value: 1 GB/s, source: a test}}\nfabric: {nodes: 2}\n")


def test_neither_or_both_shapes() -> None:
    with pytest.raises(BadInput, match="either node"):
        sealed(DEVICE)


@pytest.mark.parametrize(
    "changes", [{"nodes": 0}, {"nodes": -1}, {"oversubscription": 0.0}, {"oversubscription": float("nan")}]
)
def test_replaced_figures_are_checked_as_the_files_are(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="fabric"):
        load_cluster("dgx-h100", **changes)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"did you mean 'dgx-h100'.*hgx-h800"):
        load_cluster("dgx-h10")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load_cluster(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("400 Gb/s", "400 GB/s", "Gb/s or GB/s?"),
        ("450 GB/s", "400 TB/s", "400 TB/s is implausible"),
        ("450 GB/s", "450 kB/s", "450 kB/s is implausible"),
        ("3 TB/s", "3 PB/s", "3000 TB/s of memory is implausible"),
        ("1000 TFLOP/s", "1000 PFLOP/s", ""),
    ],
)
def test_implausible_but_legal_figures_warn_once(old: str, new: str, said: str) -> None:
    warnings = sealed(NODE.replace(old, new) + "fabric: {nodes: 2}\n").warnings
    assert all(said in warning for warning in warnings)
    assert len({warning.split(":")[0] for warning in warnings}) == len(warnings) <= 2
    assert bool(warnings) == bool(said)


def test_validate_says_what_it_checked(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(NODE.replace("400 Gb/s", "400 GB/s") + "fabric: {nodes: 2}\n")
    result = validate(path)
    assert "8 GPUs in 2 nodes" in result.checks[0]
    assert "warning" in result.text and "Gb/s or GB/s?" in result.warnings[0]
    assert "one flow between nodes reaches 400 GB/s" in result.text


def test_a_link_on_no_route_is_said(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    ways = [f"  - {{from: gpu{g}, to: {sw}, bandwidth: {r} GB/s}}" for sw, r in (("a", 1), ("b", 2)) for g in (0, 1)]
    path.write_text(DEVICE + "switches: [a, b]\nlinks:\n" + "\n".join(ways))
    assert validate(path).warnings == ("4 of 8 links lie on no route, a->gpu0 for one",)
