"""Bytes of each transfer of a step, against sums written out here, and what waits for what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moesim.engine import Join, evaluate
from moesim.step import lower
from tests.step.by_hand import DENSE, EVEN, EXPERTS, HEADS, KV, SHARED, TOP, VOCAB, WIDTH, D, H, HandStep, step, tp

TRAIN = {"phase": "train", "tokens_per_gpu": 64, "context": 16}  # 4 requests on each of 4 ranks
BF16, FP8 = 2 * H, H + 4 * H // 128  # bytes of a token's row; fp8 has one fp32 scale per 128 values
FIRST = [[0, 2]]  # all tokens to ranks 0 and 1


def rows(found: HandStep, name: str, row_bytes: int, number: int = 0) -> list[list[int]]:
    """Token rows from rank to rank."""
    sent = found.sent(name, number)
    assert not np.any(sent % row_bytes)
    found_rows: list[list[int]] = (sent // row_bytes).tolist()
    return found_rows


TO_FIRST = [[0, 8, 0, 0], [8, 0, 0, 0], [8, 8, 0, 0], [8, 8, 0, 0]]  # 8 tokens a rank, what stays is not sent
BACK = np.array(TO_FIRST).T.tolist()


@pytest.mark.parametrize(("out", "back", "there_bytes", "back_bytes"), [
    ("bf16", "bf16", BF16, BF16), ("fp8", "bf16", FP8, BF16), ("bf16", "fp8", BF16, FP8),
])  # fmt: skip
def test_dispatch_and_combine_in_their_own_dtypes(out: str, back: str, there_bytes: int, back_bytes: int) -> None:
    found = step(FIRST, comm={"dispatch": "nccl", "dispatch_dtype": out, "combine_dtype": back})
    assert rows(found, "dispatch", there_bytes) == TO_FIRST
    assert rows(found, "combine", back_bytes) == BACK


MIXED = {"dispatch": "nccl", "dispatch_dtype": "fp8", "combine_dtype": "bf16"}


def test_gradients_go_to_experts_as_rows_do_and_back_as_results_do() -> None:
    """DeepSeek-V3, section 3.3.3: fp8 on both ways to the experts, bf16 on both ways back."""
    found = step(FIRST, batch=TRAIN, comm=MIXED)
    there, back = (np.array(way) * 8 for way in (TO_FIRST, BACK))  # 64 tokens a rank
    assert rows(found, "combine_backward", FP8) == there.tolist()
    assert rows(found, "dispatch_backward", BF16) == back.tolist()
    assert rows(found, "dispatch", FP8) == there.tolist() and rows(found, "combine", BF16) == back.tolist()


def test_a_recomputed_moe_layer_sends_and_computes_all_of_it_again() -> None:
    plain, again = (step(FIRST, batch=TRAIN, comm=MIXED, training={"recompute": m}) for m in ([], ["moe"]))
    for name in ("dispatch", "shared", "experts", "combine"):
        assert len(plain.tasks(name)) == 1 and len(again.tasks(name)) == 2, name
    for name in ("dispatch", "combine"):
        assert np.array_equal(again.sent(name, 0), again.sent(name, 1))
    order = [again.tasks(name)[-1] for name in ("dispatch", "experts", "combine", "combine_backward")]
    assert order == sorted(order)


def ring(part: int, ranks: int, passes: int = 1) -> list[list[int]]:
    """Every rank of consecutive groups sends (n - 1) parts to the next, per pass."""
    matrix = np.zeros((4, 4), dtype=int)
    for rank in range(4):
        first = rank // ranks * ranks
        matrix[rank, first + (rank + 1 - first) % ranks] = passes * (ranks - 1) * part
    found: list[list[int]] = matrix.tolist()
    return found


@pytest.mark.parametrize("ways", [2, 4])
def test_sequence_parallel_rings_carry_the_slices_of_a_group(ways: int) -> None:
    found = step(parallel=tp(ways, expert_parallel_size=4))
    names = [n for n in found.graph.name if n in ("all_gather", "reduce_scatter", "all_reduce")]  # type: ignore[attr-defined]
    assert names == ["all_gather", "reduce_scatter"] * 3  # attention twice, dense FFN once; experts have their own
    for name in ("all_gather", "reduce_scatter"):
        assert all(found.sent(name, i).tolist() == ring(8 * BF16, ways) for i in range(3))


def test_without_expert_parallelism_attention_and_ffn_end_in_all_reduces() -> None:
    """Four parts and a quarter of them each, since the switch of the node adds up (6 parts in a ring)."""
    found = step(parallel=tp(4))
    names = [n for n in found.graph.name if n not in ("attention", "router", "shared", "host", "head")]  # type: ignore[attr-defined]
    layers = ["all_reduce", "mlp", "all_reduce", "all_reduce", "experts", "all_reduce"]
    assert names == ["embedding_all_reduce", *layers, "logits_all_gather"]
    reduced = (np.array(ring(8 * BF16, 4)) // 3 * 5).tolist()
    assert all(found.sent("all_reduce", i).tolist() == reduced for i in range(4))


def test_experts_on_ranks_that_have_all_tokens_end_in_an_all_reduce_too() -> None:
    found = step([[0, 4]], parallel=tp(4, expert_parallel_size=4), comm={"dispatch": "replicated"})
    whole = step([[0, 4]], parallel=tp(4))
    assert not found.tasks("dispatch") and not found.tasks("combine") and not found.tasks("all_gather")
    assert found.graph.name == whole.graph.name  # type: ignore[attr-defined]
    assert all(found.sent("all_reduce", i).tolist() == whole.sent("all_reduce", i).tolist() for i in range(4))
    assert (found.seconds("experts") > 0).tolist() == [True, False, True, False]  # experts 0 and 4 of 8 on four ranks


def test_both_embeddings_are_spread_over_the_vocabulary() -> None:
    """Rows that a rank's part lacks are zeros until they are added up; logits are brought together."""
    found = step(parallel=tp(4))
    assert found.sent("embedding_all_reduce").tolist() == found.sent("all_reduce").tolist()
    assert found.sent("logits_all_gather").tolist() == ring(4 * 8 * VOCAB // 4 * 2, 4)
    alone = step(parallel=tp(1, expert_parallel_size=4))
    assert not alone.tasks("embedding_all_reduce") and not alone.tasks("logits_all_gather")


def test_training_takes_its_loss_where_the_logits_are_and_adds_up_gradients_of_the_stream() -> None:
    found = step(EVEN, batch=TRAIN, parallel=tp(4, expert_parallel_size=4))
    ends = [n for n in found.graph.name if n.startswith(("embedding_", "head_", "logits_"))]  # type: ignore[attr-defined]
    assert ends == [
        "embedding_reduce_scatter", "head_all_gather", "head_all_gather", "head_backward", "head_reduce_scatter",
        "embedding_all_gather",
    ]  # fmt: skip
    for name in ("embedding_reduce_scatter", "head_reduce_scatter", "embedding_all_gather"):
        assert found.sent(name).tolist() == found.sent("all_gather").tolist()


def test_ranks_that_share_experts_hand_their_tokens_on_once() -> None:
    """Attention data parallel, experts by width over all four: rows are gathered, partial sums scattered."""
    found = step(parallel=tp(1, expert_tensor_parallel_size=4), comm=MIXED)
    assert found.sent("all_gather").tolist() == ring(8 * FP8, 4)
    assert found.sent("reduce_scatter").tolist() == ring(8 * BF16, 4)
    assert not found.tasks("dispatch") and not found.tasks("all_reduce")


def test_expert_parallel_by_width_sends_to_the_rank_in_the_same_place() -> None:
    """EP 2 x width 2: rank 1 sends what experts 4 to 7 get to rank 3, whose rows rank 2 gets from it, and back."""
    found = step([[0, 4]], parallel=tp(1, expert_parallel_size=2, expert_tensor_parallel_size=2), comm=MIXED)
    assert rows(found, "dispatch", FP8) == [[0, 0, 8, 0], [0, 0, 0, 8], [8, 0, 0, 0], [0, 8, 0, 0]]
    assert found.sent("all_gather").tolist() == ring(16 * FP8, 2)  # 8 rows of its own and 8 received
    assert found.sent("reduce_scatter").tolist() == ring(16 * BF16, 2)
    assert rows(found, "combine", BF16) == [[0, 0, 8, 0], [0, 0, 0, 8], [8, 0, 0, 0], [0, 8, 0, 0]]
    names = [n for n in found.graph.name if n in ("dispatch", "all_gather", "experts", "reduce_scatter", "combine")]  # type: ignore[attr-defined]
    assert names == ["dispatch", "all_gather", "experts", "reduce_scatter", "combine"]


def test_a_gather_of_everything_is_not_done_twice() -> None:
    both = tp(1, expert_parallel_size=2, expert_tensor_parallel_size=2)
    assert not step(EVEN, parallel=both, comm={"dispatch": "allgather_reducescatter"}).tasks("all_gather")


@pytest.mark.parametrize("overlap", [True, False])
def test_a_shared_expert_that_is_spread_has_its_own_rings_in_training(overlap: bool) -> None:
    """Megatron's: tokens gathered before it, partial sums scattered after; it waits for the gathered tokens."""
    found = step(EVEN, batch=TRAIN, parallel=tp(4, expert_parallel_size=4), overlap={"shared_expert": overlap})
    rings = [n for n in found.graph.name if n in ("all_gather", "reduce_scatter")]  # type: ignore[attr-defined]
    places = 4  # attention twice, dense FFN, shared expert
    assert rings.count("reduce_scatter") == 2 * places
    assert rings.count("all_gather") == 3 * places  # backward gradients, and tokens for the gradients of weights
    assert Join.ARRIVAL in found.joins("all_gather", "shared")


def test_experts_start_when_their_own_rows_have_landed() -> None:
    """Ranks 2 and 3 receive nothing: an arrival join lets them go on before the busiest port of all has finished."""
    found = step(FIRST, batch={"phase": "prefill", "tokens_per_gpu": 4096, "context": 1024})
    assert found.joins("dispatch", "experts") == {Join.ARRIVAL}
    line = evaluate(found.graph, found.plan.fabric.capacity)  # type: ignore[attr-defined]
    task = found.tasks("dispatch")[0]
    arrival = line.arrival[found.graph.lanes(task)]  # type: ignore[attr-defined]
    # rank 0 receives 3 x 4,096 rows at 450 GB/s, rank 2 nothing
    assert arrival[0] - arrival[2] > 0.9e12 * 3 * 4096 * BF16 / 450e9
    assert found.joins("attention", "router") == {Join.LANE}


def test_gradients_and_parameters_between_replicas_by_hand() -> None:
    """TP 2, EP 2, four ranks: the dense part of a rank has two replicas, two apart; so have its experts."""
    found = step(EVEN, batch=TRAIN, parallel=tp(2, expert_parallel_size=2))
    attention = H * (HEADS + 2 * KV) // 2 * D + HEADS // 2 * D * H
    dense = 2 * attention + 3 * H * (DENSE + SHARED) // 2 + EXPERTS * H + 2 * VOCAB // 2 * H
    experts = EXPERTS // 2 * 3 * H * WIDTH
    for kind, parameters in (("dense", dense), ("expert", experts)):
        shard = parameters * 2 // 2  # bf16, halved
        expected = np.zeros((4, 4), dtype=int)
        expected[[0, 1, 2, 3], [2, 3, 0, 1]] = shard
        assert found.sent(f"{kind}_reduce_scatter").tolist() == expected.tolist()
        assert found.sent(f"{kind}_all_gather").tolist() == expected.tolist()
    order = [found.tasks(name)[0] for name in ("expert_reduce_scatter", "optimizer", "dense_all_gather")]
    assert order == sorted(order)


def test_experts_by_width_have_replicas_as_far_apart_as_an_island() -> None:
    found = step(EVEN, batch=TRAIN, parallel=tp(2))
    expected = np.zeros((4, 4), dtype=int)
    expected[[0, 1, 2, 3], [2, 3, 0, 1]] = EXPERTS * 3 * H * WIDTH // 2 * 2 // 2
    assert found.sent("expert_reduce_scatter").tolist() == expected.tolist()
    alone: dict[str, Any] = {"parallel": {"tensor_parallel_size": 4, "data_parallel_size": 1}}
    assert not step(EVEN, batch=TRAIN, **alone).tasks("expert_reduce_scatter")


def test_micro_batches_end_in_one_optimizer_step() -> None:
    found = step(EVEN, batch={**TRAIN, "micro_batches": 3})
    counts = {name: len(found.tasks(name)) for name in ("experts", "combine_backward", "head", "optimizer")}
    assert counts == {"experts": 3, "combine_backward": 3, "head": 3, "optimizer": 1}


def test_rows_of_the_fullest_rank_are_those_of_one_micro_batch() -> None:
    found = step(EVEN, batch={**TRAIN, "micro_batches": 3})
    assert lower(found.plan, found.built.batches).received.tolist() == [[64 * TOP] * 4]


def test_each_micro_batch_asks_for_its_own_tokens_experts() -> None:
    """Requests 0 to 15 take experts of ranks 0 and 1, the next sixteen those of ranks 2 and 3."""
    found = step([[0, 2]] * 16 + [[4, 6]] * 16, batch={**TRAIN, "micro_batches": 2})
    first, second = (found.sent("dispatch", number).sum(axis=0) > 0 for number in (0, 1))
    assert (first.tolist(), second.tolist()) == ([True, True, False, False], [False, False, True, True])
