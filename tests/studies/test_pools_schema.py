"""Every key of `pools` changes the result of some scenario. Sections of a pool are those of a scenario, whose keys the
other walks try one by one: here each section is shown to be the pool's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from moesim.serving.transfer import Wires
from moesim.studies.serving import ServeScenario, run_serving
from moesim.studies.serving.load import load_serving
from moesim.studies.serving.pools import build_pools
from tests.studies.test_schema_walk import leaves

BASE = (
    "model=tiny-moe", "routing={trace: tiny-moe}", "precision={}", "cluster.nodes=3", "scheduler={preset: vllm_dp_ep}",
    "pools.prefill={parallel: {data_parallel_size: 8, expert_parallel_size: 8}}",
    "pools.decode={parallel: {data_parallel_size: 8, expert_parallel_size: 8}}",
    "requests={number: 24, arrivals: {poisson: {rate: 3000/s}}, input_length: {fixed: 200}, output_length: {fixed: 9}}",
)  # fmt: skip
OF_A_POOL = {
    "parallel": "parallel={data_parallel_size: 4, expert_parallel_size: 4}", "replicas": "replicas=2",
    "experts": "experts={redundant: 8, placement: greedy}", "comm": "comm={dispatch: deepep_normal}",
    "overlap": "overlap={schedule: two_batch}", "scheduler": "scheduler={preset: vllm_dp_ep, host_time: 2 ms}",
    "autoscale": "autoscale={target: 1, max_replicas: 2, startup_time: 1 ms, interval: 2 ms}",
}  # fmt: skip
CASES = {
    **{
        f"pools.{role}.{key}": f"pools.{role}.{change}"
        for role in ("prefill", "decode") for key, change in OF_A_POOL.items()
    },
    "pools.transfer": "pools.transfer=infinite",
}  # fmt: skip


def test_every_key_has_a_case() -> None:
    own = {key for key in leaves(ServeScenario) if key.startswith("pools.")}
    assert {".".join(key.split(".")[:3]) for key in own} == set(CASES)


@cache
def played(*overrides: str) -> dict[str, Any]:
    document = run_serving("dsv3-pools", overrides=(*BASE, *overrides)).to_json()
    return {name: document[name] for name in ("metrics", "breakdown")}


@pytest.mark.parametrize("key", CASES)
def test_a_key_changes_a_result(key: str) -> None:
    assert played(CASES[key]) != played(), key


DRAFTS = ", num_speculative_tokens: 2, draft_acceptance_rate: 0.8"


@pytest.mark.parametrize(("first", "second", "moved"), [("", "", 0), (DRAFTS, DRAFTS, 1), ("", DRAFTS, 0)])
def test_kv_that_moves_is_kv_that_both_memories_hold(first: str, second: str, moved: int) -> None:
    """A block of tokens, with what a draft module keeps of them where prompts have gone through one."""
    pools = build_pools(load_serving("dsv3-pools", (
        *BASE, f"pools.prefill.scheduler={{preset: sglang{first}}}",
        f"pools.decode.scheduler={{preset: vllm_dp_ep{second}}}",
    )), 0)  # fmt: skip
    wires, answers = pools.links(), pools.parts[1]
    assert isinstance(wires, Wires) and not answers.plan.ops.spread.state_bytes
    layers, size = answers.plan.model.num_layers, answers.memory.block_size
    plain = size * answers.plan.ops.spread.kv_bytes_per_token(answers.plan.ops.precision.kv_cache)
    assert wires.bytes_of(size) == pytest.approx(plain * (layers + moved) / layers, rel=1e-12)
    assert answers.memory.block_bytes == pytest.approx(plain * (layers + bool(second)) / layers, rel=1e-12)
