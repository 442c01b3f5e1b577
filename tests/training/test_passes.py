"""Layers that are played once, against stages that are played whole; and what hides behind compute."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moesim.costs import load_costs
from moesim.engine import evaluate
from moesim.hardware import load_cluster
from moesim.models import Attention, MoEModel
from moesim.schedules import Verb
from moesim.step import lower
from moesim.training import Job
from moesim.training.passes import Layers, Pair
from tests.training.test_job import DENSE

CLUSTER = load_cluster("dgx-h100", nodes=1)
H = 1024
GQA = Attention("gqa", 16, 4, 64, 64)
# a dense layer, then three with experts, of which the last looks back at 128 tokens only
MIXED = MoEModel(
    "hand", "hand", H, 4, 6016, False, GQA, (1, 2, 3), 16, 2, 512, dense_intermediate=4096,
    others=((replace(GQA, window=128), (3,)),),
)  # fmt: skip


def job(model: MoEModel, **changes: int) -> Job:
    costs = load_costs("roofline", CLUSTER.devices[0])
    return Job(model, CLUSTER, costs, **{"world": 8, "micro_batches": 4, "sequence": 512, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("one", "near"), [
    (job(DENSE), 1e-9), (job(DENSE, tensor=2, expert_tensor=2), 1e-9), (job(MIXED, expert=4), 2e-3),
])  # fmt: skip
def test_a_layer_of_each_kind_stands_for_all(one: Job, near: float) -> None:
    """Rows are even up to one either way; dense layers are equal to the tick."""
    stage = one.stages[0]
    passes = Layers(one).passes(stage)
    lowered = lower(one.plan(stage), [one.batch(8)])
    line = evaluate(lowered.graph, one.fabric.capacity)
    ends = line.end[np.array([node.verb != Verb.OPTIMIZER for node in lowered.nodes])[line.task]]
    assert passes.one.whole == pytest.approx(int(ends.max()), rel=near)
    assert passes.after == pytest.approx(int(line.end.max() - ends.max()), rel=near)


def test_all_to_alls_hide_behind_the_compute_that_there_is() -> None:
    """100 of 300 are exchanges; GEMMs of 80 take 10 % longer beside them: 208. Of 190 exchanges in 300, 72 are left."""
    assert Pair(120, 180, 100, 80, 7).overlapped(1.1) == Pair(83, 125, 0, 80, 7)
    assert Pair(120, 180, 190, 80, 7).overlapped(1.1) == Pair(76, 114, 72, 80, 7)
    none = Pair(120, 180, 0, 80, 7)
    assert none.overlapped(1.0) == none


def test_an_overlapped_step_is_shorter_and_never_below_its_compute() -> None:
    plain = job(MIXED, expert=8)
    apart, beside = (Layers(one).passes(one.stages[0]) for one in (plain, replace(plain, overlap=True)))
    whole = apart.one.whole
    assert whole - apart.one.exchange <= beside.one.whole < whole


def test_gpus_that_share_a_port_wait_for_each_other() -> None:
    """Two nodes of four GPUs with one port each: half of all rows leave their node, there and back, twice."""
    cluster = load_cluster("rtx-2080ti-pcie", nodes=2)
    shared = replace(job(MIXED, expert=8), cluster=cluster, costs=load_costs("roofline", cluster.devices[0]))
    left = 4 * 512 * MIXED.top_k / 2 * H * 2  # rows of four GPUs, bytes of one
    alone = len(MIXED.moe_layers) * 4 * left / 12.5e9 * 1e12
    assert shared.meets and not job(MIXED, expert=4).meets
    assert alone <= Layers(shared).passes(shared.stages[0]).one.exchange <= 1.2 * alone
