"""Files that describe one machine: NCCL's XML and the matrix of nvidia-smi; and GraphML out."""

from __future__ import annotations

import io
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.hardware import load_cluster
from moesim.hardware.formats import Imported, export_topology, import_topology
from moesim.hardware.validate import check_integrity

SWITCH = '<nvlink target="0000:d{s}:00.0" count="{n}" tclass="0x068000"/>'


def xml(gpus: list[str], nets: str = "", sm: int = 90) -> str:
    slots = [
        f'<pci busid="0000:{10 + g}:00.0" class="0x030200" link_speed="32.0 GT/s PCIe" link_width="16">\n'
        f'<gpu dev="{g}" sm="{sm}" rank="{g}" gdr="1">{links}</gpu></pci>\n'
        for g, links in enumerate(gpus)
    ]
    return f'<system version="1"><cpu numaid="0" arch="x86_64">\n{"".join(slots)}<nic>{nets}</nic></cpu></system>\n'


def net(number: int, speed: int = 400000) -> str:
    return f'<net name="mlx5_{number}" dev="{number}" speed="{speed}" port="1"/>'


def imported(tmp_path: Path, text: str, like: str = "dgx-h100", name: str = "topo.xml") -> Imported:
    path = tmp_path / name
    path.write_text(text)
    return import_topology(path, like=like)


HOPPER = xml([SWITCH.format(s=0, n=9) + SWITCH.format(s=1, n=9)] * 8, "".join(map(net, range(8))))


def test_a_hopper_machine_is_the_shipped_one(tmp_path: Path) -> None:
    made = imported(tmp_path, HOPPER)
    path = tmp_path / "made.yaml"
    path.write_text(made.text)
    cluster, shipped = load_cluster(path, nodes=4), load_cluster("dgx-h100", nodes=4)
    assert np.array_equal(cluster.path, shipped.path)
    assert np.array_equal(cluster.link_capacity, shipped.link_capacity)
    assert made.notes == ()


def test_gpus_in_a_ring_of_nvlinks_keep_pcie_for_the_rest(tmp_path: Path) -> None:
    near = '<nvlink target="0000:{t}:00.0" count="{n}" tclass="0x030200"/>'
    ring = [near.format(t=10 + (g + 1) % 4, n=4) + near.format(t=10 + (g - 1) % 4, n=4) for g in range(4)]
    cluster = imported(tmp_path, xml(ring, sm=80), like="dgx-a100").cluster
    check_integrity(cluster)
    assert [cluster.link_name[link] for link in cluster.path[0, 1] if link >= 0] == ["gpu0->gpu1"]
    assert cluster.link_capacity[cluster.path[0, 1, 0]] == 4 * 25e9
    assert [cluster.link_name[link] for link in cluster.path[0, 2] if link >= 0] == ["gpu0->pcie", "pcie->gpu2"]


def test_without_nvlink_it_is_pcie_and_gpus_share_ports(tmp_path: Path) -> None:
    made = imported(tmp_path, xml([""] * 8, net(0) + net(1) + net(2, 25000)))
    kinds = dict(zip(made.cluster.link_kind, made.cluster.link_capacity, strict=True))
    assert kinds == {"pcie_up": 64e9, "pcie_down": 64e9}  # one node: no port is in use
    assert "nics: 2" in made.text and "value: 50 GB/s" in made.text
    assert made.notes == ("1 ports that are slower or away from GPUs are left out",)


def test_two_ports_a_gpu_act_as_one_and_another_generation_is_said(tmp_path: Path) -> None:
    made = imported(tmp_path, xml([SWITCH.format(s=0, n=12)] * 2, "".join(map(net, range(4))), sm=80))
    assert "value: 100 GB/s" in made.text and "value: 300 GB/s" in made.text
    assert len(made.notes) == 2 and "another generation than H100-SXM5-80GB" in made.notes[1]


def test_ports_away_from_gpus_and_repeated_ones_do_not_count(tmp_path: Path) -> None:
    near = (
        HOPPER.replace("<cpu ", '<cpu host_hash="1" ').replace("<nic>", "<pci><pci>").replace("</nic>", "</pci></pci>")
    )
    assert imported(tmp_path, near).notes == ()  # in no tree with a GPU, as all are: every port counts
    away = "".join(f"<pci>{slot}</pci>" for slot in (net(8), net(9), net(9)))
    inside = HOPPER.replace("</gpu></pci>", "</gpu>{}</pci>").format(*map(net, range(8)))
    text = inside.split("<nic>")[0] + away + "</cpu></system>"
    made = imported(tmp_path, text)
    assert made.notes == ("2 ports that are slower or away from GPUs are left out",)
    assert "nics" not in made.text


BOMB = '<!DOCTYPE s [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><system>&b;</system>'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, r"topo\.xml:1: a document type is not allowed"),
        ('<!DOCTYPE s SYSTEM "file:///etc/passwd"><system/>', "document type"),
        ("<system>", r"topo\.xml:1: not XML"),
        ("<system>\n<a></b></system>", r"topo\.xml:2: not XML: mismatched tag"),
        ("<system>" + "<a>" * 40, "nested deeper than 32"),
        ("<system/>", "no <system> with <gpu>"),
        (xml([""], sm=12), "sm 12 is not known. Try: one of 80, 90, 100"),
        (xml([""]).replace('dev="0"', 'dev="-1"'), r"topo\.xml:3 gpu: dev='-1' is no count"),
        (xml([""]).replace('dev="0"', ""), "dev=None is no count"),
        (xml([SWITCH.format(s=0, n=18), ""]), "differ in their NVLinks"),
        (xml(['<nvlink target="0000:11:00.0" count="2" tclass="0x030200"/>', ""]), "GPUs 0 and 1 count"),
        (xml(['<nvlink target="0000:77:00.0" count="2" tclass="0x030200"/>']), "is no GPU of the file"),
        (xml([""] * 8, net(0) + net(1) + net(2)), "cannot share 3 ports evenly"),
        (xml([""], net(0, 0)), "speed=0"),
        (xml([""] * 2).replace('dev="1"', 'dev="0"'), "two GPUs are dev 0"),
    ],
)
def test_bad_xml_names_the_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        imported(tmp_path, text)


def matrix(gpus: int, cell: str, nics: int = 0, nearest: str = "PXB") -> str:
    names = [f"GPU{g}" for g in range(gpus)] + [f"NIC{n}" for n in range(nics)]
    rows = ["\t\x1b[4m" + "\t".join([*names, "CPU Affinity", "NUMA Affinity", "GPU NUMA ID"]) + "\x1b[0m"]
    for a, name in enumerate(names):
        cells = ["X" if a == b else _cell(a, b, gpus, nics, cell, nearest) for b in range(len(names))]
        rows.append("\t".join([name, *(f" {c} " for c in cells), *(["0-55", "0", "N/A"] if a < gpus else [])]))
    return "\n".join([*rows, "", "Legend:", "  X    = Self", "  SYS  = far", "NIC Legend:", "  NIC0: mlx5_0"]) + "\n"


def _cell(a: int, b: int, gpus: int, nics: int, cell: str, nearest: str) -> str:
    if a < gpus and b < gpus:
        return cell
    if a >= gpus and b >= gpus:
        return "NODE"
    gpu, nic = min(a, b), max(a, b) - gpus
    return nearest if gpu * nics // gpus == nic else "SYS"


def test_a_matrix_of_a_switched_machine_is_the_shipped_one(tmp_path: Path) -> None:
    made = imported(tmp_path, matrix(8, "NV18", 8), name="topo.txt")
    shipped = load_cluster("dgx-h100")
    assert np.array_equal(made.cluster.path, shipped.path)
    assert np.array_equal(made.cluster.link_capacity, shipped.link_capacity)
    assert "nic:" in made.text and "nics" not in made.text
    h800 = imported(tmp_path, matrix(8, "NV8", 4), "hgx-h800", "topo.txt")
    assert set(h800.cluster.link_capacity) == {200e9} and "nics: 4" in h800.text


def test_nics_that_two_gpus_share_below_one_bridge_count_once_each(tmp_path: Path) -> None:
    shared = matrix(4, "NV18", 4, "PXB").replace("\x1b[4m", "").replace("\x1b[0m", "").expandtabs(8).splitlines()
    for row, text in enumerate(shared[1:5], start=1):
        cells = text.split()
        nics = ["PXB" if (nic - 5) // 2 == (row - 1) // 2 else "SYS" for nic in range(5, 9)]
        shared[row] = "   ".join([*cells[:5], *nics, *cells[9:]])
    assert "nics" not in imported(tmp_path, "\n".join(shared), name="topo.txt").text
    crowded = imported(tmp_path, matrix(2, "NV12", 3, "PIX").replace("SYS", "PIX"), name="topo.txt")
    assert crowded.notes[1] == "3 ports lie near 2 GPUs; one for each GPU is taken"


def test_a_matrix_of_a_bridged_pair_and_of_pcie_cards(tmp_path: Path) -> None:
    pair = imported(tmp_path, matrix(2, "NV12"), name="topo.txt").cluster
    assert (pair.link_kind, set(pair.link_capacity)) == (("nvlink_pair", "nvlink_pair"), {300e9})
    cards = imported(tmp_path, matrix(4, "SYS", 2, "PIX"), "l40s-pcie", "topo.txt")
    assert set(cards.cluster.link_capacity) == {32e9} and "nics: 2" in cards.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (matrix(2, "NV4").replace(" X ", " NV4 ", 1), "not symmetric with X"),
        (matrix(2, "NV4").replace(" NV4 ", " SYS ", 1), "not symmetric"),
        (matrix(2, "NVX"), r"topo\.txt:2: cell 'NVX' is not in the legend"),
        (matrix(3, "NV4").split("GPU2\t NV4")[0] + "GPU2\t NV4\n", r"topo\.txt:4: row GPU2 has 1 cells for 3"),
        (matrix(8, "NV36"), "more than the device of 'like' has"),
        (matrix(2, "NV4").replace("\nGPU1", "\nGPU7"), "rows of GPUs are GPU0, GPU7"),
    ],
)
def test_bad_matrices_say_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        imported(tmp_path, text, name="topo.txt")


def test_formats_are_recognised_or_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not recognised.*nccl-xml, nvidia-smi"):
        imported(tmp_path, "hello\n")
    with pytest.raises(BadInput, match="did you mean 'nccl-xml'"):
        import_topology(tmp_path / "topo.xml", format="nccl_xml")
    with pytest.raises(BadInput, match="unknown export format 'slurm-conf'.*astra-sim, graphml"):
        export_topology(load_cluster("dgx-h100"), "slurm-conf")


@pytest.mark.parametrize("name", ["dgx-h100", "l40s-pcie", "atlas-800t-a2"])
def test_graphml_holds_every_link(name: str) -> None:
    cluster = load_cluster(name, nodes=2)
    text = export_topology(cluster, "graphml").text
    graph = nx.read_graphml(io.BytesIO(text.encode()), force_multigraph=True)
    edges = sorted((data["name"], data["bytes_per_second"], data["kind"]) for *_, data in graph.edges(data=True))
    assert edges == sorted(zip(cluster.link_name, cluster.link_capacity, cluster.link_kind, strict=True))
    assert graph.is_directed() and graph.nodes["gpu9"] == {
        "kind": "gpu",
        "device": graph.nodes["gpu9"]["device"],
        "node": 1,
        "rail": 1,
    }
    assert text == export_topology(load_cluster(name, nodes=2), "graphml").text
