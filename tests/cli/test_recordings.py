"""What people recorded, as they saved it: found by looking, read right, or refused with both readings named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from moesim.routing import read_trace
from moesim.routing.importers import REGISTRY, look
from moesim.routing.loads import loads_of, read_loads
from moesim.studies.routing import trace_path

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

COUNTS = np.array([[[3, 1, 2, 2], [0, 8, 0, 0]], [[2, 2, 2, 2], [5, 1, 1, 1]]])  # 2 steps, 2 layers, 4 experts
IDS = np.array([[[0, 3], [2, 1]], [[1, 2], [3, 2]], [[3, 0], [0, 1]]])  # 3 tokens, 2 layers, top-2


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        (json.dumps({"logical_count": COUNTS.tolist()}), "expert-counts", COUNTS),
        (json.dumps({"logical_count": COUNTS[0].tolist()}, indent=1), "expert-counts", COUNTS[:1]),
        (json.dumps({"logical_count": (COUNTS[0] * 1.0).tolist()}), "expert-counts", COUNTS[:1]),
        (json.dumps({"logical_count": (COUNTS[0] / 4).tolist()}), "expert-counts", COUNTS[:1] * 250),
        (json.dumps({"tokens_per_expert": COUNTS[1].tolist()}), "expert-counts", COUNTS[1:]),
        (json.dumps(COUNTS.tolist()), "expert-counts", COUNTS),
        (
            lines(*({"iteration": 7 + s, "layer": n, "tokens_per_expert": COUNTS[s, n].tolist()}
                    for s in (1, 0) for n in (0, 1))),
            "expert-counts", COUNTS,
        ),
        (
            "layer_id,expert_id,count\n" + "".join(f"{n},{e},{COUNTS[0, n, e]}\n" for n in (0, 1) for e in range(4)),
            "sglang-csv", COUNTS[:1],
        ),
    ],
)  # fmt: skip
def test_counts_are_read_from_any_file(moesim: Moesim, text: str, form: str, expected: np.ndarray) -> None:
    Path("recording").write_text(text)
    done = moesim("trace", "import", "recording", "-o", "c.npz")
    assert done.code == 0 and f"recording: {form}" in done.err, done.err
    found = read_loads(Path("c.npz"))
    assert np.array_equal(found.counts, expected)
    assert ("1000ths" in found.header.origin) == bool((expected > 100).any())


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (json.dumps(IDS.tolist()), "topk-ids"),
        (lines({"routed_experts": IDS.tolist()}), "vllm-returned"),
        (json.dumps({"outputs": [{"routed_experts": IDS.tolist()}]}), "vllm-returned"),
        (lines({"choices": [{"routed_experts": IDS.tolist()}]}), "vllm-returned"),
        (lines({"meta_info": {"routed_experts": IDS.tolist()}}), "sglang-returned"),
        (lines(*({"layer": n, "topk": IDS[t, n].tolist()} for t in range(3) for n in (0, 1))), "token-rows"),
        (lines(*({"layer": n, "topk_ids": IDS[:, n].tolist()} for n in (0, 1))), "token-rows"),
        (
            lines(*({"problem_id": "a", "token_idx": t, "layer": n, "experts": IDS[t, n].tolist(),
                     "gating_probs": [0.75, 0.25]} for n in (1, 0) for t in (2, 0, 1))),
            "token-rows",
        ),
        (json.dumps({f"layer_{n}": IDS[:, n].tolist() for n in (0, 1)}), "megatron-replay"),
    ],
)  # fmt: skip
def test_tokens_are_read_from_any_file(moesim: Moesim, text: str, form: str) -> None:
    Path("recording").write_text(text)
    done = moesim("trace", "import", "recording", "-o", "t.parquet")
    assert done.code == 0 and f"recording: {form}" in done.err, done.err
    assert np.array_equal(read_trace("t.parquet").expert, IDS)


def test_arrays_are_told_apart_by_what_is_in_them(moesim: Moesim) -> None:
    rng = np.random.default_rng(0)
    logits = {f"layer_{n}": rng.standard_normal((5, 8)) for n in (3, 4)}
    np.savez("logits", layer_3=logits["layer_3"], layer_4=logits["layer_4"])
    assert moesim("trace", "import", "logits.npz", "--top-k", "2", "-o", "l.parquet").code == 0
    found = read_trace("l.parquet")
    assert found.header.evidence["layer_ids"] == [3, 4] and found.logits is not None
    for number, layer in enumerate((3, 4)):
        assert np.array_equal(found.expert[:, number], np.argsort(-logits[f"layer_{layer}"], axis=1)[:, :2])
    np.save("ids.npy", IDS)
    np.savez("unnamed", IDS)
    np.savez("replay", layer_0=IDS[:, 0], layer_1=IDS[:, 1])
    np.savez("counts", layer_0=COUNTS[0, 0], layer_1=COUNTS[0, 1])
    np.save("one.npy", np.arange(3000).reshape(1000, 3) % 7)
    kinds = ("ids.npy", "unnamed.npz", "replay.npz", "counts.npz", "one.npy")
    assert [look(Path(name)) for name in kinds] == [
        "topk-ids",
        "topk-ids",
        "megatron-replay",
        "expert-counts",
        "exflow",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps([[[0, 2], [2, 0]]]), "both ids and counts"),
        (json.dumps([[[1, 1, 3], [1, 1, 1]]]), "neither ids nor counts"),
        (json.dumps({"physical_to_logical_map": [[0, 1]]}), "physical_to_logical_map"),
        (json.dumps({"logical_count": [[1, float("nan")]]}), "finite"),
        (json.dumps({"logical_count": [[1, 2], [3]]}), "different lengths"),
        (json.dumps({"logical_count": [[-1, 2]]}), "negative"),
        ("layer_id,expert_id,count\n0,1,2.5\n", ":2"),
        ("layer_id,expert_id,count\n0,1,2\n0,1,2\n", "two rows"),
        (lines({"layer": 0, "topk": [1.5, 2]}), "whole numbers"),
        (lines({"layer": 0, "token": 1, "topk": [1]}, {"layer": 1, "token": 0, "topk": [1]}), "0 rows, not one"),
        (lines({"routed_experts": [[[0.0, 1.0]]]}), "whole numbers"),
        ("\x80\x04pickle", "unpack"),
        ("<html>", "moesim knows"),
    ],
)  # fmt: skip
def test_what_is_wrong_or_two_things_is_refused(moesim: Moesim, content: str, said: str) -> None:
    Path("x").write_bytes(content.encode("latin1"))
    done = moesim("trace", "import", "x", "-o", "out.npz")
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1, done.err
    assert not Path("out.npz").exists()


@pytest.mark.parametrize("form", sorted(set(REGISTRY) - {"exflow", "router-logits"}))
def test_a_look_finds_what_export_wrote(tmp_path: Path, form: str) -> None:
    trace = read_trace(trace_path("tiny-moe")).window(0, 600)
    REGISTRY[form].write(trace if REGISTRY[form].tokens else loads_of(trace), tmp_path / "x")
    assert look(tmp_path / "x") == form


@pytest.mark.parametrize("form", ["vllm-returned", "trtllm", "sglang-csv", "topk-ids"])
def test_place_takes_a_recording_as_it_is(moesim: Moesim, form: str) -> None:
    assert moesim("trace", "export", form, "tiny-moe", "-o", "x").code == 0
    asked = (
        "--topology",
        "dgx-h100",
        "--gpus",
        "8",
        "--strategy",
        "eplb",
        "--redundant",
        "8",
        "--no-simulate",
        "--json",
    )
    done = moesim("place", "--trace", "x", *asked, "--model", "tiny-moe")
    assert done.code == 0, done.err
    found = {name: one["value"] for name, one in json.loads(done.out)["metrics"].items()}
    assert 1 <= found["bound"] <= found["objective"] < 0.9 * found["baseline_objective"]


def test_routers_that_look_at_scores_replay_a_recording(moesim: Moesim) -> None:
    asked = ("run", "demo-tiny", "--json", "--set", "routing.trace=tiny-moe-logits")
    plain, routed, fewer = (
        json.loads(moesim(*asked, *more).out)
        for more in (
            (),
            ("--set", "routing.router=topk_softmax"),
            ("--set", "routing.router={name: topk_softmax, k: 2}"),
        )
    )
    assert plain["metrics"]["max_vio"] == routed["metrics"]["max_vio"]  # top-4 of the logits are the recorded choices
    assert fewer["metrics"]["mean_k"]["value"] == 2
    assert any("synthesised logits" in warning for warning in routed["warnings"])
    assert "tiny-moe-logits" in moesim("run", "demo-tiny", "--set", "routing.router=topk_softmax").err


def test_logits_give_back_choices_and_weights(moesim: Moesim) -> None:
    assert moesim("trace", "logits", "tiny-moe-logits", "-o", "l.parquet").code == 0
    found = read_trace("l.parquet")
    assert found.logits is not None and found.weight is not None
    logits = found.logits.astype(np.float64)
    best = np.argsort(-logits, axis=2)[:, :, :4]
    assert np.array_equal(np.sort(best), np.sort(found.expert.astype(np.int64)))
    scores = np.exp(np.take_along_axis(logits, found.expert.astype(np.int64), axis=2))
    assert np.abs(scores / scores.sum(axis=2, keepdims=True) - found.weight.astype(np.float64)).max() < 1e-3
