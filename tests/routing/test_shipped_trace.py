"""The shipped trace is what its header says."""

from __future__ import annotations

import numpy as np
import pytest

from moesim import shipped
from moesim.models import load_model
from moesim.routing import PHASES, Replay, RoutingTrace, Transplant, digest_of, open_trace, read_trace
from moesim.routing.stats.affinity import affinity
from moesim.routing.stats.domains import domain_divergence, shuffled_divergence
from moesim.routing.stats.load import max_violation

PATH = shipped.shipped("workloads", "routing", "tiny-moe.parquet")


@pytest.fixture(scope="module")
def recorded() -> RoutingTrace:
    return read_trace(PATH)


def test_it_is_large_and_varied_enough(recorded: RoutingTrace) -> None:
    header = recorded.header
    assert recorded.tokens >= 50_000 and len(header.domains) >= 4 and header.moe_layers >= 8
    assert header.num_experts >= 32 and header.top_k >= 4 and header.licence
    assert set(np.unique(recorded.domain)) == set(range(len(header.domains)))
    assert {PHASES[p] for p in np.unique(recorded.phase)} == {"prefill", "decode"}


def test_the_model_learned_at_least_a_nat_over_the_unigram(recorded: RoutingTrace) -> None:
    evidence = recorded.header.evidence
    assert evidence["held_out_loss_nats"] < evidence["unigram_loss_nats"] - 1


def test_the_evidence_in_the_header_follows_from_the_tokens(recorded: RoutingTrace) -> None:
    evidence, apart = recorded.header.evidence, ~np.eye(len(recorded.header.domains), dtype=bool)
    assert np.round(max_violation(recorded.counts()), 3).tolist() == evidence["max_violation_by_layer"]
    assert np.round(affinity(recorded), 3).tolist() == evidence["affinity_by_layer_pair"]
    divergence = domain_divergence(recorded)[apart].mean()
    assert round(float(divergence), 4) == evidence["domain_divergence_bits_mean"]
    assert divergence > 10 * shuffled_divergence(recorded)[apart].mean()


def test_a_request_prefills_in_one_step_and_decodes_one_token_a_step(recorded: RoutingTrace) -> None:
    index = recorded.by_request
    for start, length in zip(index.start, index.length, strict=True):
        rows = index.order[start : start + length]
        step, decode = recorded.step[rows], recorded.phase[rows] == 1
        assert np.array_equal(recorded.position[rows], np.arange(length))
        assert len(set(step[~decode])) == 1 and (np.diff(step[decode]) == 1).all()


def test_it_replays_on_its_own_model_and_transplants_to_a_large_one(recorded: RoutingTrace) -> None:
    own, large = load_model("tiny-moe"), load_model("Qwen/Qwen3-30B-A3B")
    assert digest_of(own) == own.routing_digest
    request, position = np.arange(100), np.arange(100)
    assert Replay(recorded, own, 0).experts(7, request, position).shape == (100, 4)
    assert Transplant(recorded, large, 0).experts(47, request, position).shape == (100, 8)


def test_a_window_of_it_needs_no_other_block(recorded: RoutingTrace) -> None:
    window = open_trace(PATH).window(20_000, 20_010)
    assert np.array_equal(window.expert, recorded.expert[20_000:20_010])
