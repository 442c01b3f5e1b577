"""The experts section: a strategy's name or a placement file of any format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.placement.formats import Frame, write_placement
from moesim.step.dispatch import FIRST, candidates
from moesim.studies import Result, load, run
from moesim.studies.build import build
from moesim.studies.placement import frame_of

TINY = ["batch.tokens_per_gpu=16"]


def tiny(*changes: str) -> Result:
    return run(load("demo-tiny", [*TINY, *changes]))


@pytest.mark.parametrize(("name", "suffix"), [("sglang", ".json"), ("trtllm", ".yaml"), ("omniinfer", ".npy")])
def test_a_file_plays_as_the_placement_that_it_holds(tmp_path: Path, name: str, suffix: str) -> None:
    planned = load("demo-tiny", [*TINY, "experts.placement=greedy", "experts.redundant=8"])
    plan = build(planned, 0).plan
    path = tmp_path / f"placement{suffix}"
    write_placement(plan.placement, path, name, frame_of(plan.model, 8))
    from_file = tiny(f"experts.placement={path}")
    if name == "sglang":
        assert "replicas are picked as sglang does, whose placement file it is" in from_file.warnings
    else:
        assert from_file.metrics == run(planned).metrics
    assert from_file.provenance["placement"].startswith(f"{path} (sha256 ")
    with pytest.raises(BadInput, match=r"1 redundant slots, .* has 8. Try: redundant: 8"):
        tiny(f"experts.placement={path}", "experts.redundant=1")


def test_replicas_of_an_sglang_file_are_picked_as_sglang_picks_them(tmp_path: Path) -> None:
    """32 experts on 8 GPUs of one node, expert 0 twice: seven GPUs that do not hold it take its first slot, on GPU 0;
    the last one takes its own. The same experts spread evenly put half of its tokens on GPU 7."""
    fifth = [4, 8, 12, 16, 20, 24, 1, 0]
    rows = [[*range(4 * gpu, 4 * gpu + 4), fifth[gpu]] for gpu in range(8)]
    expert = np.tile(np.array(rows, dtype=np.int32).ravel(), (8, 1))
    placement = Placement(expert, np.tile(np.repeat(np.arange(8), 5).astype(np.int32), (8, 1)), 32, 8)
    path = tmp_path / "sglang.json"
    write_placement(placement, path, "sglang", Frame(8, 32, tuple(range(1, 9)), 9))
    plan = build(load("demo-tiny", [*TINY, f"experts.placement={path}"]), 0).plan
    assert plan.replicas == FIRST
    slots, number = candidates(plan.placement, 0, np.zeros(8, dtype=np.int64), plan.replicas)
    assert number[:, 0].tolist() == [1] * 8
    assert slots[:, 0, 0].tolist() == [0] * 7 + [39]


def test_uneven_ranks_from_a_file_are_played(tmp_path: Path) -> None:
    expert = np.tile(np.r_[np.arange(32), 0].astype(np.int32), (8, 1))
    rank = np.tile(np.r_[np.arange(32) // 4, 7].astype(np.int32), (8, 1))
    path = tmp_path / "uneven.npy"
    write_placement(Placement(expert, rank, 32, 8), path)
    more, even = tiny(f"experts.placement={path}"), tiny()
    assert more.metrics["peak_memory_bytes"].value > even.metrics["peak_memory_bytes"].value


def test_a_strategy_is_planned_on_other_tokens_than_the_step_s() -> None:
    moved = tiny("experts.placement=random")
    assert moved.metrics["step_time_s"] != tiny().metrics["step_time_s"]
    assert moved.metrics["expert_max_over_mean"] == tiny().metrics["expert_max_over_mean"]  # the load is the same


def test_a_placement_says_what_it_was_planned_on_and_shows_what_that_costs() -> None:
    sampled = ["routing={sampled: prefill_in4096}", "experts.placement=greedy"]
    moved = tiny(*sampled)
    assert "greedy, planned on earlier tokens, 10.4% of their load on other experts" in moved.provenance["placement"]
    assert "first quarter of the recorded requests" in tiny("experts.placement=greedy").provenance["placement"]


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    write_placement(Placement.contiguous(2, 32, 8), path, "sglang")
    with pytest.raises(BadInput, match="has 2 rows, SGLang wants one for each of 9 layers"):
        tiny(f"experts.placement={path}")
