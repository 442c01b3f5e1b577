"""Sharded data parallelism: closed forms of the ZeRO paper for memory and traffic, and what overlap can hide."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from moesim.errors import BadInput
from moesim.layout import Layout, Shards
from moesim.step.optimizer import parameters_of
from moesim.training import Job, rank_memory, train_step
from moesim.training.sharding import data_parallel_bytes, unhidden
from tests.training.test_job import VOCAB, H, job
from tests.training.test_passes import MIXED

STAGES = (0, 1, 2, 3)


def sharded(stage: int, **changes: Any) -> Job:
    """Eight replicas of the whole model, bf16 gradients as in the paper."""
    return replace(job(pipeline=1, micro_batches=1), zero=stage, gradient_bytes=2, **changes)


def rows(one: Job) -> dict[str, int]:
    return {row.item: row.bytes for row in rank_memory(one, 0).rows}


def test_memory_is_that_of_the_zero_paper() -> None:
    """Of psi parameters on N ranks, with 2 + 2 + K bytes (K = 12): Rajbhandari et al. (2020), figure 1."""
    held = [
        sum(rows(sharded(stage))[item] for item in ("weights", "gradients", "optimizer states")) for stage in STAGES
    ]
    psi, n = held[0] / 16, 8
    assert held[1:] == pytest.approx([4 * psi + 12 * psi / n, 2 * psi + 14 * psi / n, 16 * psi / n], rel=1e-6)


def test_traffic_is_that_of_the_zero_paper() -> None:
    """Section 7: stages 1 and 2 move what plain data parallelism does, stage 3 half as much again."""
    moved = [data_parallel_bytes(sharded(stage), 0) for stage in STAGES]
    psi = rows(sharded(0))["weights"] / 2
    assert moved == pytest.approx([2 * 2 * psi * 7 / 8 * times for times in (1, 1, 1, 1.5)], rel=1e-6)


def test_every_micro_batch_of_stages_2_and_3_moves_gradients_again() -> None:
    one, four = (
        [data_parallel_bytes(replace(sharded(stage), micro_batches=many), 0) for stage in STAGES] for many in (1, 4)
    )
    ratio = [more / less for less, more in zip(one, four, strict=True)]
    assert ratio == pytest.approx([1, 1, (4 + 1) / 2, 4])


def test_replicas_of_shard_groups_keep_more_and_reduce_the_rest() -> None:
    """HSDP, 2 x 4: shards of four; three quarters of a gather and scatter, then an all-reduce of a quarter."""
    whole, hybrid = sharded(3), sharded(3, shard=4)
    assert rows(hybrid)["weights"] == 2 * rows(whole)["weights"]
    psi = rows(sharded(0))["weights"] / 2
    moved = data_parallel_bytes(hybrid, 0)
    assert moved == pytest.approx(2 * psi * (3 * 3 / 4 + 2 * (1 / 4) * 1 / 2), rel=1e-6)


def test_experts_are_sharded_over_those_that_hold_the_same() -> None:
    found = Shards.of(Layout(16, 1, 4), 3, 8)
    assert (found.dense, found.expert) == ((8, 2, 1), (2, 2, 4))
    assert Shards.of(Layout(16, 1, 8), 3, 4).expert == (1, 2, 8)
    assert found.kept(80, 20, 3) == 80 / 8 + 20 / 2


def test_on_an_infinite_network_nothing_but_start_up_is_left() -> None:
    """Twice the bytes take no longer there; with compute beside them nothing but a pass's first and last is seen."""
    cluster = job().cluster
    fast = replace(cluster, link_capacity=cluster.link_capacity * 1e12)
    fp32, bf16 = (replace(sharded(3), cluster=fast, gradient_bytes=each) for each in (4, 2))
    shard = [train_step(one).passes[0].one.shard for one in (fp32, bf16)]
    beside = train_step(replace(bf16, reduce_beside=True, gather_beside=True)).passes[0].one.shard
    assert shard[0] == shard[1] and beside == pytest.approx(shard[0] / 4, rel=0.1)


@pytest.mark.parametrize("stage", STAGES)
def test_beside_compute_a_step_is_never_longer(stage: int) -> None:
    plain = train_step(replace(sharded(stage), micro_batches=2))
    beside = train_step(replace(sharded(stage, reduce_beside=True, gather_beside=True), micro_batches=2))
    assert beside.seconds <= plain.seconds * (1.0 + (0.02 if stage < 2 else 0))  # layer by layer: more start-ups
    assert beside.passes[0].one.whole <= plain.passes[0].one.whole


def test_layers_hide_what_they_have_compute_for() -> None:
    """Gather 5 first; beside 10 the next 5: free; beside 10 the next 25: 15 more; the last has none ahead."""
    assert unhidden([10, 10, 10], [5, 5, 25], [0, 0, 0]) == 5 + 15
    assert unhidden([10, 10, 10], [0, 0, 0], [12, 4, 3]) == 2 + 3
    assert unhidden([10, 10], [0, 8], [8, 0]) == 0 and unhidden([10, 10, 10], [0, 8, 8], [8, 8, 0]) == 6


def test_a_layer_at_a_time_is_whole_while_it_computes() -> None:
    found, twice = rows(sharded(3)), rows(sharded(3, gather_beside=True))
    layer = rows(sharded(0))["weights"] - 2 * 2 * H * VOCAB  # four layers
    assert found["gathered layers"] == pytest.approx(layer / 4 + 2 * H * VOCAB, rel=0.001)
    assert twice["gathered layers"] == 2 * found["gathered layers"]


@pytest.mark.parametrize("stage", STAGES)
def test_shards_of_one_rank_are_plain_data_parallelism(stage: int) -> None:
    """Nothing is gathered that is whole already, and a step takes as long."""
    alone = sharded(stage, shard=1)
    assert rows(alone) == rows(sharded(0)) and train_step(alone).seconds == train_step(sharded(0)).seconds


def test_experts_that_one_rank_holds_are_not_gathered() -> None:
    """Experts over all eight ranks: what is gathered is the dense part of a layer and the vocabulary's table."""
    found = replace(job(pipeline=1, world=8), model=MIXED, expert=8, zero=3)
    largest = max(parameters_of(found.plan(part))[0] for part in found.stages[0].alone())
    assert rows(found)["gathered layers"] == 2 * largest


def test_more_of_it_sharded_is_never_more_memory() -> None:
    cases = [replace(job(pipeline=1, world=8), model=MIXED, expert=4, zero=stage) for stage in STAGES]
    kept = [sum(rows(one)[name] for name in ("weights", "gradients", "optimizer states")) for one in cases]
    assert all(more >= less for more, less in pairwise(kept))


@pytest.mark.parametrize(("layout", "size", "said"), [
    (Layout(8), 3, "3 does not divide 8"), (Layout(24, 2, 6), 4, "cut each other"),
])  # fmt: skip
def test_groups_that_do_not_fit_are_refused(layout: Layout, size: int, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Shards.of(layout, 3, size)
