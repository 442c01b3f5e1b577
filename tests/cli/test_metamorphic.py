"""Laws between two runs that differ in one thing, from the command line: no figure is needed to see that one is wrong.

Exact with port loads, roofline costs and schedules of fixed order. With the fluid network or measured kernels a change
for the better may cost up to 2 % (max-min shares are not monotone, kernels switch), more only with a named warning.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from moesim import shipped

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

SLACK = 1.02
TWO = (
    "cluster.nodes=2",
    "parallel.data_parallel_size=16",
    "parallel.expert_parallel_size=16",
    "batch.tokens_per_gpu=32",
)
BASE = (*TWO, "comm.dispatch=nccl", "routing={balanced: true}")
EXACT = (*BASE, "costs=roofline", "network.level=port_load")
FITTED = (*BASE, "network.level=fluid")
LEVELS = pytest.mark.parametrize(("given", "slack"), [(EXACT, 1.0), (FITTED, SLACK)], ids=["exact", "fluid, fitted"])


def played(moesim: Moesim, *changes: str, scenario: str = "demo-tiny") -> dict[str, Any]:
    """The document of a run; its parts are checked on the way."""
    done = moesim("run", scenario, "--json", *(word for change in changes for word in ("--set", change)))
    assert done.code == 0, done.err
    document: dict[str, Any] = json.loads(done.out)
    parts = {name: value or 0.0 for name, value in document["breakdown"].items()}
    assert all(value >= 0 for name, value in parts.items() if name != "schedule_effect_s"), parts
    assert sum(parts.values()) == pytest.approx(step(document), rel=1e-9)
    return document


def step(document: dict[str, Any]) -> float:
    return float(document["metrics"]["step_time_s"]["value"])


def never_slower(moesim: Moesim, chain: Sequence[Sequence[str]], slack: float) -> None:
    """Each of the chain is at most as slow as the one before, and the last is faster than the first."""
    taken = [step(played(moesim, *changes)) for changes in chain]
    assert all(later <= before * slack for before, later in pairwise(taken)), taken
    assert taken[-1] < taken[0]


@LEVELS
def test_more_bandwidth_is_never_slower(moesim: Moesim, given: tuple[str, ...], slack: float) -> None:
    never_slower(moesim, [(*given, f"network.efficiency={share}") for share in (0.1, 0.3, 0.5, 0.9, 1.0)], slack)


@LEVELS
def test_more_or_faster_ports_are_never_slower(moesim: Moesim, given: tuple[str, ...], slack: float) -> None:
    text = shipped.shipped("topologies", "dgx-h100.yaml").read_text(encoding="utf-8")
    port = "nic: {value: 400 Gb/s"
    assert port in text
    files = []
    for name, changed in (
        ("two", text.replace("  gpus: 8\n", "  gpus: 8\n  nics: 2\n")),
        ("four", text.replace("  gpus: 8\n", "  gpus: 8\n  nics: 4\n")),
        ("eight", text),
        ("faster", text.replace(port, "nic: {value: 800 Gb/s")),
    ):
        Path(f"{name}.yaml").write_text(changed, encoding="utf-8")
        files.append((*given, f"cluster={{topology: {name}.yaml, nodes: 2}}"))
    never_slower(moesim, files, slack)


@LEVELS
@pytest.mark.parametrize("way", ["dispatch", "combine"])
def test_fewer_bytes_are_never_slower(moesim: Moesim, given: tuple[str, ...], slack: float, way: str) -> None:
    never_slower(moesim, [(*given, f"comm.{way}_dtype={dtype}") for dtype in ("bf16", "fp8", "fp4")], slack)


@LEVELS
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_more_tokens_are_never_cheaper_a_step(moesim: Moesim, given: tuple[str, ...], slack: float, phase: str) -> None:
    numbers = (256, 255, 128, 65, 64, 33, 17, 8, 2, 1) if phase == "decode" else (2048, 1024, 512, 64)
    batches = [f"batch={{phase: {phase}, tokens_per_gpu: {number}, context: 64}}" for number in numbers]
    never_slower(moesim, [(*given, batch) for batch in batches], slack)


@LEVELS
def test_less_context_is_never_slower(moesim: Moesim, given: tuple[str, ...], slack: float) -> None:
    never_slower(moesim, [(*given, f"batch.context={number}") for number in (8192, 4097, 1000, 64, 1)], slack)


@pytest.mark.parametrize(
    "scenario",
    [
        ("demo-qwen3", "batch.context=4096"),
        ("dsv3-decode-ep72", "experts.placement=contiguous", "experts.redundant=0", "batch.context=4096",
         "cluster.nodes=8", "parallel={data_parallel_size: 64, expert_parallel_size: 64}", "batch.tokens_per_gpu=128",
         "routing={balanced: true}", "network.level=port_load"),
    ],
    ids=["grouped queries", "latent"],
)  # fmt: skip
def test_half_the_kv_bytes_cost_no_time_or_a_warning_names_the_kernel(
    moesim: Moesim, scenario: tuple[str, ...]
) -> None:
    name, *changes = scenario
    wide, narrow = (played(moesim, *changes, f"precision.kv_cache={one}", scenario=name) for one in ("bf16", "fp8"))
    kernels = [k for one in narrow["provenance"]["operators"] if one["family"] == "attention" for k in one["kernels"]]
    named = any(kernel in text for text in narrow["warnings"] for kernel in kernels)
    assert kernels and (step(narrow) <= step(wide) * SLACK or named), (step(narrow), step(wide))


def test_twice_the_nodes_change_something_or_warn(moesim: Moesim) -> None:
    one, two = (played(moesim, f"cluster.nodes={number}") for number in (1, 2))
    assert one["metrics"] != two["metrics"] or len(two["warnings"]) > len(one["warnings"])


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
@pytest.mark.parametrize("level", ["auto", "port_load", "fluid"])
def test_no_link_carries_more_than_it_can(moesim: Moesim, ratio: int, level: str) -> None:
    fabric = f"cluster={{topology: rail-fat-tree, nodes: 2, oversubscription: {ratio}}}"
    document = played(moesim, *BASE, fabric, "batch.tokens_per_gpu=256", f"network.level={level}")
    assert 0 < document["metrics"]["hottest_link_utilisation"]["value"] <= 1 + 1e-9


def attention_core_bytes(document: dict[str, Any]) -> float:
    """Bytes that the core of attention moves on a GPU in the whole step, from what the roofline says it reaches."""
    core = next(one for one in document["provenance"]["operators"] if one["label"] == "attention core")
    return float(core["seconds"] * core["bytes_per_s"])


@pytest.mark.parametrize("tensor", [1, 2, 4])
@pytest.mark.parametrize("model", ["Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-V3"])
def test_time_reads_the_kv_bytes_that_memory_holds(moesim: Moesim, model: str, tensor: int) -> None:
    """In decode all of the cache is read once; the queries and answers beside it are less than 4 % at this context."""
    sizes = f"tensor_parallel_size: {tensor}, data_parallel_size: {8 // tensor}, expert_parallel_size: 8"
    document = played(
        moesim, "costs=roofline", f"parallel={{{sizes}}}", f"model={model}", "routing={balanced: true}",
        "cluster.topology=gb200-nvl72", "batch={phase: decode, tokens_per_gpu: 4, context: 32000}",
        "precision={weights: fp8, experts: fp8}",
    )  # fmt: skip
    folder = next(path for path in Path("runs").iterdir())
    rows = json.loads((folder / "pictures.json").read_text())["memory"]["rows"]
    held = next(row["bytes"] for row in rows if row["item"] == "KV cache")
    read = attention_core_bytes(document)
    assert held == pytest.approx(read, rel=0.1), (held, read)
