"""Two passes in a slot: the order that DeepSeek wrote down, and exchanges in which ranks meet before rows leave."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from moesim.costs import load_costs
from moesim.hardware import load_cluster
from moesim.models import Attention, MoEModel
from moesim.routing import Balanced
from moesim.routing.sources.sequences import Sequences
from moesim.training import Job, overlapped_ps, train_step
from moesim.training.routed import RoutedJob

MODEL = MoEModel(
    "hand", "hand", 1024, 8, 6016, False, Attention("gqa", 16, 4, 64, 64), tuple(range(8)), 16, 4, 512,
    shared_intermediate=512,
)  # fmt: skip
LAYER = [  # figure 4 of the DeepSeek-V3 report; its profile has MLP (W) before MLP (F)
    "combine_backward", "attention", "router", "dispatch", "experts_backward_data", "shared_backward_data",
    "dispatch_backward", "experts_backward_weight", "shared_backward_weight", "shared", "experts", "combine",
    "router_backward_data", "attention_backward_data", "attention_backward_weight", "router_backward_weight",
]  # fmt: skip
DELAY = 10**9


def routed(**changes: object) -> RoutedJob:
    """Four stages of two layers with experts on four ranks, DualPipe."""
    cluster = load_cluster("dgx-h100", nodes=2)
    keys = {"world": 16, "micro_batches": 8, "sequence": 256, "pipeline": 4, "expert": 4, "order": "dualpipe"}
    one = Job(MODEL, cluster, load_costs("roofline", cluster.devices[0]), **{**keys, **changes})  # type: ignore[arg-type]
    return RoutedJob(one, Sequences(Balanced(MODEL), 1))


def names(one: RoutedJob, rank: int) -> list[str]:
    """Of the tasks of a slot with two passes."""
    slot = next(slot for slot in one.job.schedule.orders[rank] if len(slot) > 1)
    return list(one.pattern(slot).skeleton.graph.name)


def test_two_passes_are_queued_layer_after_layer_as_in_the_published_chunk() -> None:
    assert [name for name in names(routed(), 1) if name != "host"] == LAYER * 2


def test_the_head_stands_between_the_forward_and_the_backward_pass() -> None:
    """Of the last stage's forward pass it is the last, of its backward pass the first."""
    one = routed()
    slot = next(
        slot for order in one.job.schedule.orders for slot in order
        if len(slot) > 1 and {act.stage for act in slot} & {3}
    )  # fmt: skip
    found = [name for name in one.pattern(slot).skeleton.graph.name if name != "host"]
    heads = [name for name in found if name.startswith("head")]
    assert [name for name in found if name in LAYER] == LAYER * 2
    assert heads in (["head"], ["head_backward_data", "head_backward_weight"])
    assert (found[-1] == "head") == (heads == ["head"])


def test_what_the_chunk_does_not_know_is_queued_in_turns() -> None:
    """Experts that are computed again have transfers of their own."""
    found = names(routed(recompute=frozenset({"moe"})), 1)
    assert found.count("dispatch") == 4
    assert [name for name in found if name in LAYER] != LAYER * 2


def test_without_experts_two_passes_take_as_long_as_one_after_the_other() -> None:
    """There are no transfers of rows that one could hide beside the other."""
    one = dataclasses.replace(routed().job, model=dataclasses.replace(MODEL, moe_layers=(), dense_intermediate=4096))
    step = train_step(dataclasses.replace(one, expert=1), overlapped_ps(dataclasses.replace(one, expert=1)))
    busiest = max(step.played.busy)
    pair = step.passes[0].one
    assert min(step.played.busy) == pytest.approx(8 * pair.whole, rel=0.05) and busiest < step.played.makespan


@pytest.mark.parametrize(("dispatch", "meets"), [("deepep_normal", True), ("nccl", False)])
def test_who_meets_before_rows_leave_is_as_late_as_the_last_rank(dispatch: str, meets: bool) -> None:
    """One of four equal lanes begins later: behind a meeting all are later by as much, else rows of the others have
    left, and what is late is a quarter of what comes.
    """
    one = routed(dispatch=dispatch)
    slot = next(slot for slot in one.job.schedule.orders[1] if len(slot) == 1)
    rows = [(one.rows(one.job.stages[act.stage], 0, np.array([0])), 0) for act in slot]
    begin = np.zeros(4, dtype=np.int64)
    even = one.pattern(slot).play(rows, begin).end
    late = one.pattern(slot).play(rows, begin + np.array([0, 0, DELAY, 0])).end
    assert np.all(late - even == DELAY) == meets
    assert late.max() - even.max() <= DELAY
    name, waits = one.pattern(slot).waits(rows, begin + np.array([0, 0, DELAY, 0]))[0]
    assert (name, waits.tolist()) == ("dispatch", [DELAY, DELAY, 0, DELAY])
