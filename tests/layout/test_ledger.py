"""The memory ledger row by row, against sums written out here and against a published pair."""

from __future__ import annotations

from typing import Any

import pytest

from moesim.errors import BadInput
from moesim.network import all_to_all
from moesim.studies import Result, run
from moesim.studies.load import load_data
from tests.step.by_hand import DATA, DENSE, EXPERTS, HEADS, KV, MODEL, SHARED, VOCAB, WIDTH, D, H

TRAIN = {"phase": "train", "tokens_per_gpu": 64, "context": 16}


def ledger(**changes: Any) -> dict[str, int]:
    result: Result = run(load_data({**DATA, **changes}, "by hand"))
    return {row.item: row.bytes for row in result.played.memory.rows}


ATTENTION = H * (HEADS + 2 * KV) * D + HEADS * D * H
DENSE_PART = 2 * ATTENTION + 3 * H * DENSE + 3 * H * SHARED + EXPERTS * H + 2 * VOCAB * H
OWN_EXPERTS = EXPERTS // 4 * 3 * H * WIDTH


def test_a_serving_rank() -> None:
    found = ledger(precision={"weights": "fp8", "experts": "fp8", "kv_cache": "fp8"})
    unquantised = EXPERTS * H + 2 * VOCAB * H  # router and embeddings stay bf16
    assert found["dense weights"] == DENSE_PART + unquantised
    assert found["expert weights"] == OWN_EXPERTS
    assert found["KV cache"] == 8 * 101 * 2 * KV * 2 * D


def test_a_tensor_group_caches_all_its_tokens_on_every_rank() -> None:
    found = ledger(parallel={"tensor_parallel_size": 4})
    assert found["KV cache"] == 4 * 8 * 101 * 2 * (KV // 4) * 2 * D * 2


def test_low_latency_kernels_make_room_for_every_token_of_every_expert() -> None:
    """DeepSeek-V3 in bf16 with 56 scales a row, to send and to receive, twice: 4.3 GB for 288 slots and 256 tokens."""
    kernels = all_to_all.find("deepep_low_latency")
    assert kernels.reserved_bytes(256, 288, 7168) == 4 * 288 * 256 * (2 * 7168 + 4 * 56)
    assert kernels.reserved_bytes(8192, 288, 7168) == kernels.reserved_bytes(256, 288, 7168)
    found = ledger(comm={"dispatch": "deepep_low_latency"})
    assert found["slots of the all-to-all"] == 4 * EXPERTS * 8 * (2 * H + 4 * H // 128)
    assert "slots of the all-to-all" not in ledger()
    alone = {"data_parallel_size": 4, "expert_parallel_size": 1}
    assert "slots of the all-to-all" not in ledger(comm={"dispatch": "deepep_low_latency"}, parallel=alone)


@pytest.mark.parametrize(
    ("optimizer", "master", "each"),
    [("adam", True, 12), ("adam", False, 8), ("momentum", True, 8), ("sgd", True, 4), ("sgd", False, 0)],
)
def test_what_optimizers_keep(optimizer: str, master: bool, each: int) -> None:
    found = ledger(batch=TRAIN, training={"optimizer": optimizer, "master": master})
    assert found["gradients"] == 2 * (DENSE_PART + OWN_EXPERTS)
    assert found["optimizer states"] == each * (DENSE_PART // 4 + OWN_EXPERTS)


def test_adafactor_keeps_sums_of_rows_and_columns() -> None:
    found = ledger(batch=TRAIN, training={"optimizer": "adafactor", "master": False})
    attention = 2 * ((HEADS + 2 * KV) * D + H + H + HEADS * D)
    ffn = sum(2 * width + H + H + width for width in (DENSE, SHARED))
    dense = attention + ffn + EXPERTS + H + 2 * (VOCAB + H)
    experts = EXPERTS // 4 * (2 * WIDTH + H + H + WIDTH)
    assert found["optimizer states"] == 4 * dense // 4 + 4 * experts


@pytest.mark.parametrize(("optimizer", "master", "moved"), [
    ("adam", True, 30), ("adam", False, 24), ("momentum", True, 22), ("sgd", True, 14), ("sgd", False, 8),
    ("adafactor", True, 16),
])  # fmt: skip
def test_an_update_moves_what_is_kept(optimizer: str, master: bool, moved: int) -> None:
    """Of each parameter of a shard: its bf16 gradient twice (for the norm, and to use it), what is kept read and
    written, the parameter. All sums of gradients, 2 bytes, are then set to zero.
    """
    result = run(load_data({**DATA, "batch": TRAIN, "training": {"optimizer": optimizer, "master": master}}, "by hand"))
    graph = result.played.graph
    seconds = graph.lane_seconds[graph.lane_ptr[graph.name.index("optimizer")]]
    zeroed = 2 * (DENSE_PART + OWN_EXPERTS)
    assert seconds == pytest.approx((moved * (DENSE_PART / 4 + OWN_EXPERTS) + zeroed) / 3.35e12)


def test_training_keys_are_of_training_only() -> None:
    with pytest.raises(BadInput, match="of training only"):
        ledger(training={"optimizer": "sgd"})


def test_activations_follow_the_rows_that_routers_make() -> None:
    row = 2 * (H + 3 * WIDTH)
    even = ledger(batch=TRAIN, routing={"router": "topk_softmax", "generator": {"popularity": {"lognormal": 0.0}}})
    hot = ledger(batch=TRAIN, routing={"router": "topk_softmax", "generator": {"popularity": {"lognormal": 2.0}}})
    padded = ledger(batch=TRAIN, routing={"router": {"name": "gshard_top2", "cf": 4.0}})
    mean = 64 * 2 * row
    assert mean < even["expert activations"] < 1.5 * mean < hot["expert activations"]
    assert even["expert activations"] % row == 0 and padded["expert activations"] > 0


def test_recomputed_experts_are_alive_one_layer_at_a_time() -> None:
    model = {**MODEL, "num_layers": 4, "dense_layers": 0}
    plain, again = (ledger(batch=TRAIN, model=model, training={"recompute": m}) for m in ([], ["moe"]))
    assert plain["expert activations"] > 3 * again["expert activations"] > 0


COE: dict[str, Any] = {
    "hidden_size": 1024, "num_layers": 4, "vocab_size": 102_400, "top_k": 8, "num_experts": 63,
    "attention": {"num_heads": 8, "num_kv_heads": 8, "head_dim": 128},
    "expert_intermediate": 704, "shared_intermediate": 704,
}  # fmt: skip


def coe(model: dict[str, Any], router: Any) -> float:
    """Bytes of one GPU that trains it on 64 x 512 tokens."""
    data = {"name": "coe", "model": model, "cluster": {"topology": "dgx-h100", "nodes": 1}, "costs": "roofline",
            "batch": {"phase": "train", "tokens_per_gpu": 64 * 512, "context": 512}, "routing": {"router": router},
            }  # fmt: skip
    return run(load_data(data, "coe")).metrics["peak_memory_bytes"].value


def test_chain_of_experts_saves_the_memory_of_the_experts_that_it_does_without() -> None:
    """Published: 11.70 GB for 64 experts top-8, 9.64 GB for 48 experts in two rounds of top-4 (CoE, scripts/plot). Both
    compute eight rows a token, so what differs is weights: 16 bytes of each of 131.88 M parameters, 2.06 GB.
    """
    plain = coe({**COE, "name": "moe"}, "topk_softmax")
    chain = coe({**COE, "name": "coe", "num_experts": 47, "top_k": 4}, {"name": "iterated_coe", "rounds": 2, "k": 4})
    parameters = 16 * 4 * 3 * 1024 * 704
    assert plain - chain == pytest.approx(16 * parameters, rel=0.1)
    assert 1.5e9 < plain - chain < 2.6e9


def buffers(router: Any, **changes: Any) -> int:
    keys = {"batch": TRAIN, "routing": {"router": router}, **changes}
    return ledger(**keys).get("capacity buffers", 0)


def test_capacity_buffers_have_every_place_there_and_what_came_back_of_each_layer() -> None:
    """Of a GPU's 64 tokens each of 8 experts takes ceil(1.25 x 64 / 8) = 10 rows (Switch), 2 x 10 of GShard's two
    choices: a layer's inputs in their places, and the outputs that are weighed, bf16; the model has one such layer.
    """
    switch = {"name": "switch_top1", "cf": 1.25, "pad": True}
    gshard = {"name": "gshard_top2", "cf": 1.25, "pad": True}
    assert buffers(switch) == 2 * (8 * 10 * H * 2)
    assert buffers(gshard) == 2 * buffers(switch)


def test_outputs_of_all_layers_are_kept_inputs_of_one() -> None:
    four = {**MODEL, "num_layers": 5, "dense_layers": 1}
    layer = 8 * 10 * H * 2
    router = {"name": "switch_top1", "cf": 1.25, "pad": True}
    assert buffers(router, model=four) == layer + 4 * layer
    assert buffers(router, model=four, training={"recompute": ["moe"]}) == 2 * layer


def test_rows_without_padding_take_no_more_than_places_and_routers_without_places_none() -> None:
    kept = buffers({"name": "switch_top1", "cf": 1.25})
    assert 0 < kept <= 2 * 8 * 10 * H * 2 and kept % (2 * H * 2) == 0
    assert buffers("topk_softmax") == buffers({"name": "switch_top1", "cf": None}) == 0


def test_memory_holds_the_bytes_that_the_layout_transform_writes() -> None:
    """Two kernels of a layer, each reads rows and writes them into a buffer: they move twice what buffers hold."""
    router = {"name": "switch_top1", "cf": 1.25, "pad": True}
    result = run(load_data({**DATA, "batch": TRAIN, "routing": {"router": router}}, "by hand"))
    free = {"router": {"name": "switch_top1", "cf": None}}
    plain = run(load_data({**DATA, "batch": TRAIN, "routing": free}, "by hand"))
    forward = [one.played.demand["router", "elementwise"].bytes[0] for one in (result, plain)]
    positions = 4 * 64 * 8 * (1 + 2 + 1)
    assert forward[0] - forward[1] == pytest.approx(2 * buffers(router) + positions)
