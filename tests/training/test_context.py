"""Context parallelism: keys and values of a slice go round its ring, beside the attention to the block before."""

from __future__ import annotations

from typing import Any

import pytest

from moesim.costs import load_costs
from moesim.hardware import load_cluster
from moesim.models import Attention, MoEModel
from moesim.routing import Balanced
from moesim.routing.sources.sequences import Sequences
from moesim.studies.training import TrainResult, run_training
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


EVEN: dict[str, Any] = {"balanced": True}
OWN: dict[str, Any] = {"router": "topk_softmax", "generator": {"popularity": {"zipf": 0.6}}}


def small(order: str, routing: dict[str, Any], degrees: dict[str, Any]) -> dict[str, Any]:
    """Two stages of 16 GPUs."""
    heads = {"num_heads": 16, "num_kv_heads": 4, "head_dim": 128}
    model = {"name": "m", "hidden_size": 2048, "num_layers": 4, "vocab_size": 32000, "attention": heads,
             "num_experts": 16, "top_k": 1, "expert_intermediate": 1024}  # fmt: skip
    return {
        "moesim": 1, "name": "small", "mode": "train", "model": model, "costs": "roofline",
        "batch": {"sequence_length": 4096, "micro_batches": 16}, "cluster": {"topology": "dgx-h100", "nodes": 4},
        "parallel": {"pipeline_parallel_size": 2, "expert_parallel_size": 8, **degrees},
        "pipeline": {"schedule": order}, "routing": routing,
    }  # fmt: skip


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


def parts(found: TrainResult) -> dict[str, float]:
    """Seconds, which add up."""
    seconds = {name: part or 0.0 for name, part in found.breakdown.items()}
    assert sum(seconds.values()) == pytest.approx(found.metrics["step_time_s"].value)
    return seconds


def test_with_rows_of_their_own_rings_are_no_alltoalls() -> None:
    """1F1B has nothing beside them: they take what they take with even rows."""
    even, own = (run_training(small("1f1b", routing, {"context_parallel_size": 16})) for routing in (EVEN, OWN))
    ring = parts(even)["exposed_tensor_parallel_s"]
    assert ring > 0 and parts(own)["exposed_tensor_parallel_s"] == pytest.approx(ring)
    assert own.metrics["alltoall_s"].value < 2 * even.metrics["alltoall_s"].value


@pytest.mark.parametrize("routing", [EVEN, OWN])
def test_no_part_is_negative_where_rings_hide_beside_another_pass(routing: dict[str, Any]) -> None:
    """DualPipe over tensor groups: most of their transfers lie beside the other pass."""
    degrees = {"tensor_parallel_size": 4, "expert_tensor_parallel_size": 1, "data_parallel_size": 4}
    found = run_training(small("dualpipe", routing, degrees))
    assert min(parts(found).values()) >= 0 and found.metrics["alltoall_s"].value >= 0
