"""Context parallelism: keys and values of a slice go round its ring, beside the attention to the block before."""

from __future__ import annotations

from typing import Any

import pytest

from moesim.costs import load_costs
from moesim.hardware import load_cluster
from moesim.models import Attention, MoEModel
from moesim.routing import Balanced
from moesim.routing.sources.sequences import Sequences
from moesim.studies.training import run_training
from moesim.training import Job, train_step
from moesim.training.passes import Layers
from moesim.training.routed import routed_step

NIC = 50e9  # B/s of one of dgx-h100
MODEL = MoEModel("hand", "hand", 4096, 2, 32000, False, Attention("mha", 32, 32, 128, 128), (), 0, 0, 0,
                 dense_intermediate=11008)  # fmt: skip


def job(nodes: int = 2, **changes: Any) -> Job:
    cluster = load_cluster("dgx-h100", nodes=nodes)
    keys = {"world": 8 * nodes, "micro_batches": 1, "sequence": 65536, "context": 8 * nodes, "model": MODEL, **changes}
    return Job(cluster=cluster, costs=load_costs("roofline", cluster.devices[0]), **keys)


def rings(one: Job) -> float:
    """Seconds of a micro-batch's passes that its rings are seen."""
    return Layers(one).passes(one.stages[0]).one.ring / 1e12


def test_a_ring_that_leaves_its_node_waits_for_its_nic() -> None:
    """2 layers, 15 hops of 4,096 tokens' keys and values, twice as much backward, behind one NIC of the 16 GPUs; a
    sixteenth of the core (4 s^2 h / 2 FLOPs on 16 ranks, 2.5 times as many backward) hides of each.
    """
    hop = 4096 * 2 * 4096 * 2 / NIC
    core = 4 * 65536**2 * 4096 / 2 / 16 / 16 / 989.4e12
    assert rings(job()) == pytest.approx(2 * 15 * (3 * hop - 3.5 * core), rel=0.1)
    assert rings(job()) == pytest.approx(2 * 15 * 3 * hop, rel=0.3)


def test_a_ring_inside_a_node_hides_behind_attention() -> None:
    assert rings(job(1)) == 0
    assert rings(job(1, sequence=1024)) > 0  # a block of 128 tokens takes less than a message


def test_the_other_ranks_of_a_tensor_group_have_rings_of_their_own() -> None:
    """Half the heads of twice as many tokens, in half as many hops, each of two rings over a NIC of its own."""
    whole: dict[str, Any] = {"tensor": 2, "expert_tensor": 2}
    sums = rings(job(**{**whole, "context": 1, "sequence": 8192}))  # of a tensor group that has as many tokens
    assert rings(job(**{**whole, "context": 8})) - sums < rings(job())
    one = job(**{**whole, "context": 8})
    assert one.plan(one.stages[0]).context.hop(8) == pytest.approx(8 / NIC + 1e-5, abs=1e-4)  # type: ignore[union-attr]


def test_both_players_of_a_step_wait_for_the_ring() -> None:
    """Experts' rows even: ranks one by one, and one that stands for all."""
    model = MoEModel("hand", "hand", 1024, 2, 6016, False, Attention("mha", 16, 16, 64, 64), (0, 1), 16, 4, 512)
    one = job(model=model, expert=16, sequence=16384)
    even = routed_step(one, Sequences(Balanced(model), 1))
    assert rings(one) > 0
    assert even.seconds == pytest.approx(train_step(one).seconds, rel=0.01)
    assert even.lanes.compute.max() + one.micro_batches * rings(one) * 1e12 <= even.lanes.end.max()


def test_a_user_sees_what_the_rings_take() -> None:
    """Over two nodes and inside one, from the command line's own function."""
    keys = {
        "moesim": 1, "name": "rings", "mode": "train", "model": "mistralai/Mixtral-8x7B-v0.1", "costs": "roofline",
        "batch": {"sequence_length": 32768}, "cluster": {"topology": "dgx-h100", "nodes": 8},
        "routing": {"balanced": True},
    }  # fmt: skip
    degrees = {"pipeline_parallel_size": 4, "expert_parallel_size": 8}
    wide, narrow = (
        run_training({**keys, "parallel": {**degrees, "context_parallel_size": of, "data_parallel_size": 16 // of}})
        for of in (16, 2)
    )
    assert (wide.breakdown["exposed_tensor_parallel_s"] or 0) > 0
    assert narrow.breakdown["exposed_tensor_parallel_s"] == 0
