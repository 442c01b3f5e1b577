"""A pipelined step, against sums written out here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moesim.costs import load_costs
from moesim.errors import BadInput
from moesim.hardware import load_cluster
from moesim.layout import HBM
from moesim.models import Attention, MoEModel
from moesim.routing.sources.in_places import Limit
from moesim.training import Job, rank_memory, train_step

CLUSTER = load_cluster("dgx-h100", nodes=1)
H, FFN, VOCAB = 1024, 4096, 6016
DENSE = MoEModel(
    "hand", "hand", H, 4, VOCAB, False, Attention("gqa", 16, 4, 64, 64), (), 0, 0, 0, dense_intermediate=FFN
)
LAYER = H * (16 + 2 * 4) * 64 + H * 16 * 64 + 3 * H * FFN  # attention and FFN


def job(**changes: int) -> Job:
    costs = load_costs("roofline", CLUSTER.devices[0])
    return Job(DENSE, CLUSTER, costs, **{"world": 8, "micro_batches": 4, "sequence": 512, "pipeline": 2, **changes})  # type: ignore[arg-type]


def test_two_equal_stages_wait_for_each_other_as_one_f_one_b_does() -> None:
    """1F1B with 2 ranks and m micro-batches takes m + 1 slots of the slower stage at the most, and m of it at least."""
    step = train_step(job())
    slots = [one.one.whole for one in step.passes]
    assert 4 * max(slots) < step.played.makespan <= 5 * max(slots) + 6 * step.transfer
    assert step.transfer == pytest.approx(2 * 512 * H / 450e9 * 1e12, rel=1e-6)  # a stream in bf16 over one NVLink port
    assert step.ranks == ((0,), (1,))


def test_twice_the_micro_batches_add_as_many_slots() -> None:
    few, many = (train_step(job(micro_batches=number)).played.makespan for number in (4, 8))
    slower = max(one.one.whole for one in train_step(job()).passes)
    assert many - few == pytest.approx(4 * slower, rel=0.05)


def test_memory_of_both_ends_by_hand() -> None:
    """Weights 2, gradients 4, Adam with its master copy 12 / 4 replicas; a half of the layers and one table each."""
    for rank in (0, 1):
        rows = {row.item: row.bytes for row in rank_memory(job(), rank).rows if row.pool == HBM}
        matrices = 2 * LAYER + H * VOCAB
        assert rows["weights"] == pytest.approx(2 * matrices, rel=0.001)  # and the norms
        assert rows["gradients"] == 2 * rows["weights"]
        assert rows["optimizer states"] == pytest.approx(12 / 4 / 2 * rows["weights"], rel=1e-6)
        assert f"activations of {2 - rank} passes" in rows


def test_key_and_value_heads_that_ranks_share_are_kept_by_each() -> None:
    """Tensor parallel over 8 with 4 key-value heads: 8 are kept, twice what the model has."""
    few, many = (job(tensor=ways, expert_tensor=ways, pipeline=1) for ways in (4, 8))
    rows = [row for one in (few, many) for row in rank_memory(one, 0).rows]
    saved = [row.bytes for row in rows if row.item.startswith("activations")]
    same = 4 * (4 * H + 2 * 16 * 64 + 3 * FFN)
    assert saved[0] == 2 * 128 * (same + 4 * 4 * 2 * 64) and saved[1] == 2 * 64 * (same + 4 * 8 * 2 * 64)


@pytest.mark.parametrize(("changes", "said"), [
    ({"pipeline": 3}, "does not divide 8 GPUs"), ({"pipeline": 8}, "4 layers do not divide over 8"),
    ({"tensor": 8, "pipeline": 1, "sequence": 100}, "100 tokens do not divide"),
    ({"context": 2, "pipeline": 1, "sequence": 1026}, "two slices of a sequence on each context rank. Try: 1028"),
])  # fmt: skip
def test_layouts_that_do_not_multiply_are_refused(changes: dict[str, int], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        train_step(job(**changes))


def test_a_rank_with_two_stages_holds_both() -> None:
    one = replace(job(micro_batches=4), order="interleaved", chunks=2)
    assert train_step(one).ranks == ((0, 2), (1, 3))


def test_recomputed_experts_are_kept_of_one_layer_at_a_time() -> None:
    """Eight experts of 512, two a token, a shared one of 768: (2 x (1024 + 3 x 512) + 3 x 768) x 2 bytes a token."""
    model = replace(DENSE, moe_layers=(0, 1, 2, 3), num_experts=8, top_k=2, expert_intermediate=512,
                    shared_intermediate=768, dense_intermediate=0)  # fmt: skip
    plain = replace(job(pipeline=1), model=model)
    again = replace(plain, recompute=frozenset({"moe"}))
    held, freed = ({row.item: row.bytes for row in rank_memory(one, 0).rows} for one in (plain, again))
    layer = 2 * 512 * (2 * (H + 3 * 512) + 3 * 768)
    assert freed.pop("experts of a layer, recomputed") == layer
    assert held["activations of 1 passes"] - freed["activations of 1 passes"] == 4 * layer


@pytest.mark.parametrize(("limit", "places"), [(Limit(1.3, pad=True), 167), (Limit(1.3), 128), (Limit(0.6), 77)])
def test_experts_keep_their_places(limit: Limit, places: int) -> None:
    """512 tokens choose 2 of 8 experts, 128 rows each: ceil(1.3 x 128) places, filled up or not; ceil(0.6 x 128)."""
    model = replace(DENSE, moe_layers=(0, 1, 2, 3), num_experts=8, top_k=2, expert_intermediate=512)
    plain = replace(job(pipeline=1), model=model)
    held, more = (sum(r.bytes for r in rank_memory(one, 0).rows) for one in (plain, replace(plain, limit=limit)))
    assert more - held == 4 * 2 * 8 * (places - 128) * (H + 3 * 512)


def test_even_rows_all_have_places_where_there_are_as_many() -> None:
    """Two sequences of 250 tokens choose 2 of 8 experts: 125 places each are enough, as many as with more of them."""
    model = replace(DENSE, moe_layers=(0, 1, 2, 3), num_experts=8, top_k=2, expert_intermediate=512)
    tight, roomy, free, short = (
        train_step(replace(job(expert=2, sequence=250, sequences=2), model=model, limit=limit)).played.makespan
        for limit in (Limit(1.0), Limit(1.25), None, Limit(0.9))
    )
    assert tight == roomy == free > short
