"""GPUs of two kinds in one cluster: each rank takes as long as its own kind does, the slowest decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moesim import shipped
from moesim.engine import evaluate
from moesim.errors import BadInput
from moesim.hardware import load_cluster
from moesim.step import lower
from moesim.studies.build import Built, build
from moesim.studies.load import load
from moesim.studies.run import run

SET = ("routing={balanced: true}", "costs=auto", "network.level=port_load", "batch.tokens_per_gpu=1024",
       "batch.context=1024")  # fmt: skip


def _topology(folder: Path, *others: str) -> Path:
    text = (shipped.names("topologies", ".yaml")["dgx-h100"]).read_text().replace("  nodes: 1\n", "  nodes: 2\n")
    path = folder / "mixed.yaml"
    path.write_text(text + "".join(["others:\n", *(f"- {one}\n" for one in others)] if others else []))
    return path


def _built(folder: Path, *others: str) -> Built:
    cluster = f"cluster={{topology: {_topology(folder, *others)}}}"
    return build(load("qwen3-prefill-ep16", (*SET, cluster)), 0)


def _ps(built: Built) -> int:
    lowered = lower(built.plan, built.batches)
    return int(evaluate(lowered.graph, built.plan.fabric.capacity).end.max())


SAME, OTHER = "{device: H100-SXM5-80GB, nodes: [1]}", "{device: H200-SXM-141GB, nodes: [1]}"
ALL = "{device: H200-SXM-141GB, nodes: [0, 1]}"


def test_two_kinds_that_are_equal_are_one_kind_to_the_tick(tmp_path: Path) -> None:
    assert _ps(_built(tmp_path)) == _ps(_built(tmp_path, SAME))


def test_a_mixed_step_lies_between_the_two_pure_ones(tmp_path: Path) -> None:
    slow, mixed, fast = (_ps(_built(tmp_path, *others)) for others in ((), (OTHER,), (ALL,)))
    assert fast < mixed <= slow


def test_each_rank_has_its_own_kinds_seconds(tmp_path: Path) -> None:
    built = [_built(tmp_path, *one) for one in ((), (OTHER,), (ALL,))]
    graphs = [lower(one.plan, one.batches).graph for one in built]
    seconds, second = [graph.lane_seconds for graph in graphs], graphs[0].lane_rank >= 8
    assert np.array_equal(seconds[1], np.where(second, seconds[2], seconds[0]))


def test_shares_are_of_what_all_gpus_could_do_and_memory_is_the_smallest(tmp_path: Path) -> None:
    cluster = load_cluster(_topology(tmp_path, OTHER))
    first, second = cluster.devices
    mean = cluster.mean_device(16)
    assert mean.memory_bandwidth == pytest.approx((first.memory_bandwidth + second.memory_bandwidth) / 2)
    assert cluster.mean_device(8) == first and cluster.smallest_memory == first.memory_bytes
    assert cluster.kinds == "8 H100-SXM5-80GB, 8 H200-SXM-141GB"


def test_a_result_says_which_gpus_it_is_of(tmp_path: Path) -> None:
    cluster = f"cluster={{topology: {_topology(tmp_path, OTHER)}}}"
    result = run(load("qwen3-prefill-ep16", (*SET, cluster)))
    assert result.provenance["devices"] == "8 H100-SXM5-80GB, 8 H200-SXM-141GB"
    assert any("each computes by its own profile (h100_sxm, h200_sxm)" in text for text in result.warnings)


def test_what_faster_ranks_wait_for_is_no_imbalance(tmp_path: Path) -> None:
    """Half of the GPUs are faster: the slower half's ideal compute and imbalance of rows, as of it alone; said so."""
    mixed, slow = (
        run(load("qwen3-prefill-ep16", (*SET, f"cluster={{topology: {_topology(tmp_path, *one)}}}")))
        for one in ((OTHER,), ())
    )
    for key in ("ideal_compute_s", "imbalance_s"):
        assert mixed.breakdown[key] == slow.breakdown[key] and mixed.breakdown[key]
    assert any("imbalance is of rows alone" in text for text in mixed.warnings)


@pytest.mark.parametrize(
    ("others", "what"),
    [
        (("{device: H200-SXM-141GB, nodes: [2]}",), "there is no node 2 of 2"),
        (("{device: H201, nodes: [1]}",), "unknown device 'H201'"),
        ((SAME, OTHER), "a node stands in two entries"),
    ],
)
def test_others_that_are_not_there_are_refused(tmp_path: Path, others: tuple[str, ...], what: str) -> None:
    with pytest.raises(BadInput, match=what):
        load_cluster(_topology(tmp_path, *others))
