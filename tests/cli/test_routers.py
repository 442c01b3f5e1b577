"""Routers as a user meets them: `moesim run` with a model of 64 experts, top-2, on two nodes of eight GPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

SCENARIO = """
moesim: 1
name: routers
model:
  {name: small-64e, hidden_size: 1024, num_layers: 2, vocab_size: 32000, num_experts: 64, top_k: 2,
   expert_intermediate: 1024, attention: {num_heads: 16, num_kv_heads: 16, head_dim: 64}}
cluster: {topology: dgx-h100, nodes: 2}
parallel: {data_parallel_size: 16, expert_parallel_size: 16}
batch: {phase: prefill, tokens_per_gpu: 1024, context: 256}
comm: {dispatch: nccl}
network: {level: port_load}
routing: {router: topk_softmax}
costs: roofline
"""


def run(moesim: Moesim, router: str, *sets: str, more: str = "") -> dict[str, Any]:
    """The JSON document; `router` and `more` are the inside of the routing section."""
    Path("s.yaml").write_text(SCENARIO)
    done = moesim("run", "s.yaml", "--json", "--set", f"routing={{router: {router}{more}}}",
                  *(word for one in sets for word in ("--set", one)))  # fmt: skip
    assert done.code == 0, done.err
    document: dict[str, Any] = json.loads(done.out)
    document["m"] = {name: metric["value"] for name, metric in document["metrics"].items()}
    return document


def moved(document: dict[str, Any], phase: str = "exposed_comm_s") -> float:
    """Seconds of a part of the breakdown."""
    return float(document["breakdown"][phase])


def test_tokens_that_start_where_their_experts_are_expose_less_communication(moesim: Moesim) -> None:
    """Sem-MoE: with even popularity, exposed communication falls about as the bytes do, and not one GPU fills up."""
    even = ", generator: {popularity: {lognormal: 0.0}}"
    plain = run(moesim, "topk_softmax", more=even)
    moves = run(moesim, "{name: speculative_shuffle, accuracy: 0.9}", more=even)
    kept = 1 - 0.9 / 2 - 0.1 / 16  # of two rows a token keeps one at home where its GPU is predicted
    assert moved(moves) / moved(plain) == pytest.approx(kept, abs=0.12)
    assert moves["m"]["max_vio"] == pytest.approx(plain["m"]["max_vio"], abs=1e-9)


def test_null_and_zero_compute_experts_take_their_share_of_choices(moesim: Moesim) -> None:
    """AdaMoE: 5 of 8 + 16 gives 5 x 8 / 24 real rows. MoE++: tau E / (tau E + Z) of the rows are FFN ones."""
    flat = ", generator: {popularity: {lognormal: 0.0}}"
    eight = ("model.num_experts=8", "parallel.data_parallel_size=8", "parallel.expert_parallel_size=8")
    null = run(moesim, "{name: null_adamoe, null: 16, k: 5}", *eight)
    assert null["m"]["mean_k"] == pytest.approx(5 / 3, abs=0.02)
    zero = run(moesim, "zero_copy_const_moepp", more=flat)["m"]
    assert zero["drop_rate"] < 0.1
    assert zero["mean_k"] / 2 == pytest.approx(0.75 * 64 / (0.75 * 64 + 4), abs=0.06)
    given = run(moesim, "{name: null_adamoe, null: 16, k: 5, logit: {mean: -50, std: 1.0}}", *eight)
    assert given["m"]["mean_k"] == 5


def test_gates_rank_as_measured(moesim: Moesim) -> None:
    """FSMoE (arXiv 2501.10714, table 6): expert choice < GShard < sigmoid < X-MoE, in both of its systems."""
    wide = ("model.hidden_size=2048", "model.expert_intermediate=4096")
    train = (*wide, "batch.phase=train", "batch.tokens_per_gpu=4096", "batch.context=1024")
    gates = (
        "expert_choice",
        "{name: gshard_top2, pad: true}",
        "{name: topk_softmax, score: sigmoid}",
        "{name: cosine_xmoe, score: sigmoid}",
    )
    seconds = [run(moesim, gate, *train)["m"]["step_time_s"] for gate in gates]
    assert seconds == sorted(seconds), seconds
    assert len(set(seconds)) == 4


def test_merging_experts_is_paid_for(moesim: Moesim) -> None:
    """SMEAR reads all 64 experts and writes one for each of 4 examples of a GPU, and reads that."""
    smear, plain = run(moesim, "smear"), run(moesim, "topk_softmax")
    expert = 3 * 1024 * 1024 * 2
    merges = 2 * 4 * (64 + 2) * expert / 3.35e12  # two layers, nominal bandwidth
    assert smear["m"]["router_s"] - plain["m"]["router_s"] == pytest.approx(merges, rel=0.25)
    assert moved(smear) == 0


def test_rounds_follow_each_other(moesim: Moesim) -> None:
    """Chain-of-Experts: the same rows in two rounds start two dispatches and two combines one after the other."""
    whole = run(moesim, "{name: iterated_coe, rounds: 1, k: 2}", "batch.tokens_per_gpu=256")
    halves = run(moesim, "{name: iterated_coe, rounds: 2, k: 1}", "batch.tokens_per_gpu=256")
    assert halves["m"]["mean_k"] == whole["m"]["mean_k"] == 2
    assert moved(halves) > moved(whole)
    assert halves["m"]["step_time_s"] > whole["m"]["step_time_s"]


@pytest.mark.parametrize(
    ("router", "acts"),
    [
        ("{name: gw_broadcast, h: 0.0}", 64),
        ("{name: compete, rate: 1.0}", 2),
        ("{name: cluster_moec, clusters: 16, q: 0.9, rho: 0.0}", 2),
    ],
)
def test_what_acts_in_training_only_does_nothing_elsewhere(moesim: Moesim, router: str, acts: float) -> None:
    plain, served = run(moesim, "topk_softmax"), run(moesim, router)
    assert served["m"]["mean_k"] == 2 and served["m"]["max_vio"] == pytest.approx(plain["m"]["max_vio"])
    assert any("acts in training only" in warning for warning in served["warnings"])
    trained = run(moesim, router, "batch.phase=train")
    assert trained["m"]["mean_k"] == acts
    plain = run(moesim, "topk_softmax", "batch.phase=train")
    assert trained["m"]["step_time_s"] > 1.2 * plain["m"]["step_time_s"]


def test_places_of_locmoe_grow_with_delta(moesim: Moesim) -> None:
    least, some, none = (
        run(moesim, f"{{name: locality_locmoe, delta: {d}}}")["m"]["drop_rate"] for d in ("0.0", "0.02", "null")
    )
    assert least > some > none == 0


def test_tokens_without_an_expert_are_printed(moesim: Moesim) -> None:
    chosen, plain = run(moesim, "expert_choice")["m"], run(moesim, "topk_softmax")["m"]
    assert 0 < chosen["tokens_without_expert"] < 0.5 and plain["tokens_without_expert"] == 0
    assert {"drop_rate", "mean_k", "max_vio", "router_s"} <= set(plain)


def test_no_noise_is_no_noise(moesim: Moesim) -> None:
    quiet, plain = run(moesim, "{name: noisy_topk, noise: 0}"), run(moesim, "topk_softmax")
    assert quiet["m"] == plain["m"]


def test_a_prior_is_even_unless_it_is_told_otherwise(moesim: Moesim) -> None:
    prior = run(moesim, "{name: prior_dirichlet, mode: shift}", more=", warm_up: 30")["m"]
    assert prior["max_vio"] < 0.3 * run(moesim, "topk_softmax")["m"]["max_vio"]


def test_one_destination_saves_bytes_where_copies_are_merged_and_says_so_elsewhere(moesim: Moesim) -> None:
    plain, merged = run(moesim, "sam"), run(moesim, "sam", "comm.dispatch=deepep_normal")
    assert any("its few destinations save no bytes" in warning for warning in plain["warnings"])
    assert not any("save no bytes" in warning for warning in merged["warnings"])


def test_init_writes_a_router_with_all_its_keys(moesim: Moesim) -> None:
    done = moesim("init", "--like", "demo-tiny", "--router", "{name: null_adamoe, null: 16}", "-o", "made.yaml")
    text = Path("made.yaml").read_text()
    assert done.code == 0 and "# choices of a token, real and null ones" in text and "    null: 16" in text
    assert moesim("run", "made.yaml").code == 0


def test_each_domain_has_a_load_of_its_own(moesim: Moesim) -> None:
    """Tasks that take four of 32 experts by what they are: eight times the mean; the mean over all hides it."""
    scoped = "routing={router: {name: scope_static, scope: domain}, generator: {domains: 4}}"
    found = json.loads(moesim("run", "demo-tiny", "--set", scoped, "--json").out)["metrics"]
    loads = [found[f"load_by_domain.d{number}"]["value"] for number in range(4)]
    assert loads == pytest.approx([32 / 4] * 4), "top-4 of 32"
    assert found["expert_max_over_mean"]["value"] < 8
    one = json.loads(moesim("run", "demo-tiny", "--set", "routing={router: topk_softmax}", "--json").out)["metrics"]
    assert not [name for name in one if name.startswith("load_by_domain")]
