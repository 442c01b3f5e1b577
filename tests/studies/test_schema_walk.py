"""Every key of a scenario changes the result of some scenario, or is refused there: none is read and forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import pytest
from annotated_types import Ge, Le
from pydantic import BaseModel

from moesim.errors import BadInput
from moesim.studies import Scenario, load, run
from moesim.yamlfile import Section

LABELS = {"moesim", "name", "description", "mode", "published.source", "published.missing", "model.name"}  # only text

TINY = ("batch.tokens_per_gpu=16",)
BALANCED = (*TINY, "routing={balanced: true}")
TWO = (*TINY, "cluster.nodes=2", "parallel.data_parallel_size=16", "parallel.expert_parallel_size=16")
NORMAL = (*TWO, "comm.dispatch=deepep_normal", "batch={phase: prefill, tokens_per_gpu: 128, context: 64}")
LOW = (*TWO, "comm.dispatch=deepep_low_latency")
TREE = (*TWO, "cluster={topology: rail-fat-tree, nodes: 2}", "comm.dispatch=nccl", "network.level=fluid")
HASHED = (*TREE, "batch={phase: prefill, tokens_per_gpu: 128, context: 64}", "cluster.oversubscription=2")
ECMP = (*HASHED, "cluster.routing=ecmp", "cluster.spines=4")
TRAIN = (*TINY, "batch={phase: train, tokens_per_gpu: 64, context: 64, micro_batches: 1}", "comm.dispatch=nccl")
SPREAD = (
    *TRAIN, "cluster.nodes=2", "network.level=port_load",
    "parallel={data_parallel_size: 16, expert_parallel_size: 2, expert_tensor_parallel_size: 8}",
)  # fmt: skip
ROUTER = (*TINY, "routing={router: topk_softmax}")
DOMAINS = (*TINY, "routing={router: topk_softmax, generator: {domains: 4}}")
IDS = (*TINY, "routing={router: topk_softmax, generator: {token_dependence: 0.5}}")
SLOW = (*TINY, "network.level=fluid", "faults=[{at: 50 us, link: gpu3/nvlink_up, factor: 0.2, until: 200 us}]")
DEAD = (*NORMAL, "faults=[{at: 20 us, link: node0/nic3, factor: 0, until: 900 us}]")
HEADS = "attention: {num_heads: 8, num_kv_heads: 2, head_dim: 64}"
FIRST = "name: own, hidden_size: 512, num_layers: 2, dense_layers: 1, dense_intermediate: 1024, vocab_size: 4096"
REST = "num_experts: 16, top_k: 2, expert_intermediate: 256, shared_intermediate: 256, dtype: bf16, expert_matrices: 3"
OWN = (*BALANCED, "precision={}", f"model={{{FIRST}, tie_embeddings: false, {HEADS}, {REST}}}")
GROUPED = REST.replace("dtype: bf16", "dtype: bf16, num_groups: 4")
GROUPS = (*TINY, "routing={sampled: prefill_in512}", "precision={}", f"model={{{FIRST}, {HEADS}, {GROUPED}}}")
ROOFLINE = (*BALANCED, "precision={}", "costs=roofline", "batch.context=1024")
RANKS = "kv_lora_rank: 64, q_lora_rank: 64, qk_nope_head_dim: 64, qk_rope_head_dim: 32, v_head_dim: 64"
MLA = f"attention: {{num_heads: 8, {RANKS}}}"
PICKS = (*ROOFLINE, f"model={{{FIRST}, {MLA[:-1]}, selected: 256, index_heads: 4, index_dim: 64}}, {REST}}}")
LATENT = (*ROOFLINE, f"model={{{FIRST}, {MLA}, {REST}}}")
NET = "linear: {kind: kda, key_heads: 4, key_dim: 32, value_heads: 4, value_dim: 32, conv: 4, rank: 16}, pattern: LA"
HYBRID = (*ROOFLINE, f"model={{{FIRST.replace('num_layers: 2', 'num_layers: 3')}, {HEADS}, {NET}, {REST}}}")
WINDOW = (*ROOFLINE, f"model={{{FIRST}, {HEADS[:-1]}, window: 16}}, pattern: WA, {REST}}}")

CASES: dict[str, tuple[tuple[str, ...], str]] = {
    "model": (BALANCED, "Mixtral-8x7B-v0.1"),
    **{f"model.{key}": (OWN, value) for key, value in {
        "hidden_size": "1024", "num_layers": "3", "dense_layers": "0", "vocab_size": "65536", "tie_embeddings": "true",
        "attention.num_heads": "16", "attention.num_kv_heads": "8", "attention.head_dim": "128", "num_experts": "64",
        "top_k": "8", "expert_intermediate": "2048", "shared_intermediate": "2048", "dense_intermediate": "8192",
        "dtype": "fp8", "expert_matrices": "2", "latent": "256",
    }.items()},
    **{f"model.attention.{key}": (LATENT, "96") for key in (
        "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim",
    )},
    **{f"model.attention.{key}": (PICKS, "8") for key in ("selected", "index_heads", "index_dim")},
    **{f"model.linear.{key}": (HYBRID, value) for key, value in {
        "kind": "gdn", "key_heads": "2", "key_dim": "64", "value_heads": "8", "value_dim": "64", "conv": "0",
        "rank": "64",
    }.items()},
    "model.attention.window": (WINDOW, "64"),
    "model.pattern": (HYBRID, "LAA"),
    "model.expert_interval": (HYBRID, "2"),
    "model.num_groups": (GROUPS, "8"),
    "model.topk_groups": (GROUPS, "2"),
    "batch.phase": ((*TINY, "batch.context=16"), "prefill"),
    "batch.tokens_per_gpu": (TINY, "32"),
    "batch.context": (TINY, "4096"),
    "batch.micro_batches": (TRAIN, "2"),
    "cluster.topology": ((*BALANCED, "costs=roofline"), "hgx-h200"),
    "cluster.nodes": (TWO, "1"),
    "cluster.oversubscription": (TREE, "4"),
    "cluster.routing": ((*HASHED, "cluster.routing=ecmp", "cluster.spines=4"), "adaptive"),
    "cluster.spines": (ECMP, "1"),
    "cluster.queue_pairs": ((*ECMP, "cluster.queue_pairs=1"), "4"),
    "parallel.tensor_parallel_size": ((*TINY, "parallel={data_parallel_size: 4, expert_parallel_size: 4}"), "2"),
    "parallel.data_parallel_size": ((*TINY, "parallel.expert_parallel_size=4"), "4"),
    "parallel.expert_parallel_size": (TINY, "4"),
    "parallel.expert_tensor_parallel_size": ((*TINY, "parallel.expert_parallel_size=4"), "2"),
    "experts.redundant": ((*TINY, "experts.placement=greedy"), "8"),
    "experts.placement": (TINY, "greedy"),
    "comm.dispatch": (TINY, "nccl"),
    "comm.dispatch_dtype": (TINY, "fp8"),
    "comm.combine_dtype": (TINY, "fp8"),
    "comm.version": (LOW, "2025-02"),
    "comm.path": (LOW, "rdma"),
    "comm.all_reduce": ((*TINY, "parallel={tensor_parallel_size: 4, data_parallel_size: 1}"), "vllm"),
    "precision.weights": (OWN, "fp8"),
    "precision.experts": (OWN, "fp8"),
    "precision.kv_cache": (TINY, "fp8"),
    "overlap.schedule": (TINY, "two_batch"),
    "overlap.degree": ((*TINY, "overlap.schedule=tutel"), "1"),
    "overlap.degree_backward": ((*TRAIN, "overlap.schedule=tutel"), "1"),
    "overlap.inter_intra": ((*SPREAD, "overlap.schedule=fsmoe"), "false"),
    "overlap.shared_expert": (TRAIN, "false"),
    "overlap.interference": ((*TINY, "overlap.schedule=two_batch"), "1.5"),
    "routing.trace": (BALANCED, "tiny-moe"),
    "routing.transplant": (("routing={trace: tiny-moe}", *TINY), "true"),
    "routing.sampled": (TINY, "prefill_in512"),
    "routing.balanced": (TINY, "true"),
    "routing.router": (ROUTER, "switch_top1"),
    "routing.warm_up": ((*TINY, "routing={router: bias_lossfree}"), "200"),
    "routing.generator.popularity.zipf": (ROUTER, "1.2"),
    "routing.generator.popularity.lognormal": (ROUTER, "1.5"),
    "routing.generator.popularity.dirichlet": (ROUTER, "0.3"),
    "routing.generator.popularity.statistics": (ROUTER, "prefill_in512"),
    "routing.generator.scale": ((*TINY, "routing={router: {name: top_p, p: 0.3}}"), "3.0"),
    "routing.generator.domains": (ROUTER, "4"),
    "routing.generator.domain_strength": (DOMAINS, "1.0"),
    "routing.generator.vocabulary": (IDS, "10"),
    "routing.generator.token_dependence": (ROUTER, "0.9"),
    "network.level": (TREE[:-1], "fluid"),
    "network.window": (TREE, "0.1"),
    "network.efficiency": (NORMAL, "0.5"),
    "network.background": (NORMAL, "0.5"),
    "faults.at": (SLOW, "100 us"),
    "faults.link": (SLOW, "gpu4/nvlink_down"),
    "faults.rank": (TINY, "3"),
    "faults.factor": (SLOW, "0.5"),
    "faults.until": (SLOW, "150 us"),
    "faults.then": (DEAD, "reroute"),
    "faults.detour": (DEAD, "[]"),
    "training.recompute": (TRAIN, "[moe]"),
    "training.optimizer": (TRAIN, "adafactor"),
    "training.master": (TRAIN, "false"),
    "costs": (TINY, "roofline"),
    "costs.profile": (TINY, "h200_sxm"),
    "costs.kernels": (TINY, "sglang"),
    "published.tokens_per_s_per_node": (TINY, "1000.0"),
}  # fmt: skip
REFUSED = {"cluster.nodes", "faults.detour"}  # too few GPUs; a detour of traffic that does not reroute
WHOLE = {  # keys that cannot be set alone: what stands in their section
    "routing.trace": "routing={trace: tiny-moe}",
    "routing.sampled": "routing={sampled: prefill_in512}",
    "routing.balanced": "routing={balanced: true}",
    "faults.at": "faults=[{at: 100 us, link: gpu3/nvlink_up, factor: 0.2, until: 200 us}]",
    "faults.link": "faults=[{at: 50 us, link: gpu4/nvlink_down, factor: 0.2, until: 200 us}]",
    "faults.rank": "faults=[{at: 50 us, rank: 3, factor: 0.2}]",
    "faults.factor": "faults=[{at: 50 us, link: gpu3/nvlink_up, factor: 0.5, until: 200 us}]",
    "faults.until": "faults=[{at: 50 us, link: gpu3/nvlink_up, factor: 0.2, until: 150 us}]",
    "faults.then": "faults=[{at: 20 us, link: node0/nic3, factor: 0, until: 900 us, then: reroute}]",
    "faults.detour": "faults=[{at: 20 us, link: node0/nic3, factor: 0, detour: [gpu4/nic_out]}]",  # refused: no reroute
    "costs.profile": "costs={profile: h200_sxm}",
    "costs.kernels": "costs={profile: h100_sxm, kernels: sglang}",
    "published.tokens_per_s_per_node": "published={tokens_per_s_per_node: 1000.0, source: a test}",
    **{
        f"routing.generator.popularity.{name}": f"routing={{router: topk_softmax, generator: {{popularity: {given}}}}}"
        for name, given in (
            ("zipf", "{zipf: 1.2}"), ("lognormal", "{lognormal: 1.5}"), ("dirichlet", "{dirichlet: 0.3}"),
            ("statistics", "{statistics: prefill_in512}"),
        )
    },
}  # fmt: skip


def leaves(schema: type[BaseModel], lead: str = "") -> Iterator[str]:
    """Dotted keys of a schema that hold a value; a key that takes a value or a section counts as both."""
    for name, field in schema.model_fields.items():
        key, inner = f"{lead}{field.alias or name}", list(_sections(field.annotation))
        if not inner or _takes_a_value(field.annotation):
            yield key
        for section in inner:
            yield from leaves(section, f"{key}.")


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)


def _takes_a_value(annotation: Any) -> bool:
    return str in get_args(annotation) or any(_takes_a_value(one) for one in get_args(annotation) if get_args(one))


def test_every_key_has_a_case() -> None:
    keys = set(leaves(Scenario)) - LABELS
    assert keys - set(CASES) == set(), "a key without a case: name a scenario whose result it changes"
    assert set(CASES) - keys == set(), "a case without a key"


@cache
def played(overrides: tuple[str, ...]) -> dict[str, Any]:
    document = run(load("demo-tiny", overrides)).to_json()
    return {"metrics": document["metrics"], "breakdown": document["breakdown"]}


@pytest.mark.parametrize("key", CASES)
def test_a_key_changes_a_result_or_is_refused(key: str) -> None:
    base, value = CASES[key]
    changed = (*base, WHOLE.get(key, f"{key}={value}"))
    if key in REFUSED:
        with pytest.raises(BadInput):
            played(changed)
    else:
        assert played(changed) != played(base), f"{key}={value} changes nothing"


def test_no_field_has_two_limits_of_which_only_the_last_would_hold() -> None:
    """Field(le=...) beside a type that has one of its own is read and forgotten by pydantic."""
    for schema in _descendants(Section):
        for name, field in schema.model_fields.items():
            limits = [type(one) for one in field.metadata if isinstance(one, (Le, Ge))]
            assert len(limits) == len(set(limits)), f"{schema.__name__}.{name}"


def _descendants(parent: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for child in parent.__subclasses__():
        yield child
        yield from _descendants(child)
