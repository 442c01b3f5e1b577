"""Attention cores in scaled_dot_product_attention: prefill and decode, with grouped heads or MLA. Which backend runs is
forced, and part of the kernel's name: a shape that it has no kernel for fails rather than falls back. A prompt that
follows cached tokens sees all of them: its causal mask ends at the lower right.

Source: torch.nn.attention.sdpa_kernel, SDPBackend and torch.nn.attention.bias in PyTorch's documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final, Literal

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import MOST_BEFORE, MOST_CACHED, PlanSection
from moesim.calibration.measure.target import Target
from moesim.calibration.operators.expand import models
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_close
from moesim.models import Attention

DTYPES = ("bf16", "fp16", "fp32")
BACKENDS: Final = {
    "flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH,
}  # fmt: skip
KERNEL: Final = "torch_sdpa"
Phase = Literal["prefill", "decode"]
MAX_PREFILL = 32768  # tokens of one call
CHECKED_HEADS = 2  # of the first sequence: the reference is slow
MLA_VALUE, MLA_LATENT = 128, 512  # v_head_dim and kv_lora_rank of DeepSeek-V2, V3 and Kimi-K2


def cases(plan: PlanSection, world: int, *, operator: str, phase: Phase, latent: bool) -> Iterator[Case]:
    """Attention of the plan's models, by batch, context and backend."""
    del world
    for columns in shapes(plan, phase=phase, latent=latent):
        for dtype in (name for name in plan.dtypes if name in DTYPES):
            for backend in (name for name in plan.sdpa if _able(name, columns, latent, phase)):
                yield Case(operator, operator, dtype, shape(**columns), kernel=f"{KERNEL}_{backend}")


def shapes(plan: PlanSection, *, phase: Phase, latent: bool) -> Iterator[dict[str, int]]:
    """Columns of the plan's attentions; a prompt follows each of the plan's prefixes.

    If `latent`, MLA with DeepSeek's widths: records have no column for others.
    """
    attentions = {model.attention for model in models(plan) if _is_latent(model.attention) == latent}
    for attention in sorted(attentions, key=str):
        for degree in plan.tensor_parallel:
            if attention.num_heads % degree:
                continue
            for batch, query, context in _sizes(plan, phase):
                yield {"batch": batch, "query": query, "context": context, **_columns(attention, degree, phase)}


def _sizes(plan: PlanSection, phase: Phase) -> Iterator[tuple[int, int, int]]:
    """Sequences, new tokens and cached ones of each."""
    for batch in plan.batches:
        for length in plan.contexts:
            if phase == "decode" and batch * length <= MOST_CACHED:
                yield batch, 1, length - 1
            if phase == "prefill" and batch * length <= MAX_PREFILL:
                yield from ((batch, length, one) for one in plan.prefixes if batch * (length + one) <= MOST_BEFORE)


def _able(backend: str, columns: dict[str, int], latent: bool, phase: Phase) -> bool:
    """Flash attention has one width for keys and values, the efficient one no grouped heads: as torch's checks of their
    inputs say (aten/src/ATen/native/transformers/sdp_utils_cpp.h). After cached tokens these two have a causal mask of
    their own, cuDNN's would read one from memory, as no engine's does (torch/nn/attention/bias.py).
    """
    if backend == "cudnn" and phase == "prefill" and columns["context"]:
        return False
    if backend == "flash":
        return not latent
    shares_cache = latent and phase == "decode"  # heads are rows of one head: see `prepare`
    return backend != "efficient" or shares_cache or columns["heads"] == columns["kv_heads"]


def _is_latent(attention: Attention) -> bool | None:
    """Whether it is MLA; None for MLA with other widths than those measured here."""
    if attention.kind != "mla":
        return False
    return True if (attention.v_head_dim, attention.kv_lora_rank) == (MLA_VALUE, MLA_LATENT) else None


def _columns(attention: Attention, degree: int, phase: Phase) -> dict[str, int]:
    """Heads of one rank. MLA's head_dim is that of a query head in prefill, of the latent space in decode."""
    heads = attention.num_heads // degree
    if attention.kind != "mla":
        return {
            "heads": heads, "kv_heads": max(attention.num_kv_heads // degree, 1), "head_dim": attention.head_dim,
            "tp": degree,
        }  # fmt: skip
    latent = attention.kv_lora_rank + attention.qk_rope_head_dim
    width, kv_heads = (attention.query_head_dim, heads) if phase == "prefill" else (latent, 1)
    return {"heads": heads, "kv_heads": kv_heads, "head_dim": width, "tp": degree}


def prepare(case: Case, place: Place, *, value_width: int = 0) -> Prepared:
    """See Operator. value_width: of a value where it differs from a key's: MLA's values are part of its latent keys."""
    length, width = case["query"] + case["context"], case["head_dim"]
    query = place.random(case["batch"], case["heads"], case["query"], width, dtype=case.dtype)
    key = place.random(case["batch"], case["kv_heads"], length, width, dtype=case.dtype)
    shares_cache = value_width and case["query"] == 1
    values = value_width or width
    value = key[..., :values] if shares_cache else torch.randn_like(key)[..., :values].contiguous()
    causal = case["query"] > 1
    if shares_cache:  # all heads attend to one latent: to a kernel, heads are rows of one head
        query = query.transpose(1, 2)
    grouped = query.shape[1] != key.shape[1]
    mask = causal_lower_right(case["query"], length) if causal and case["context"] else None
    call = partial(
        functional.scaled_dot_product_attention, query, key, value, attn_mask=mask, is_causal=causal and mask is None,
        enable_gqa=grouped,
    )  # fmt: skip
    pairs = case["batch"] * case["query"] * (case["context"] + (case["query"] + 1) / 2)
    moved = query.numel() + key.numel() + (0 if shares_cache else value.numel())
    moved += case["batch"] * case["heads"] * case["query"] * values
    return Prepared(
        call,
        lambda found: expect_close(found[:1, :CHECKED_HEADS], reference(query[:1], key[:1], value[:1], causal)),
        2.0 * pairs * case["heads"] * (width + values),
        float(moved * query.element_size()),
        within=partial(sdpa_kernel, BACKENDS[case.kernel.removeprefix(f"{KERNEL}_")]),
    )


def reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool) -> torch.Tensor:
    """[B, H, q, d], [B, G, n, d], [B, G, n, v] -> [B, CHECKED_HEADS, q, v]: softmax(q k / sqrt(d)) v in fp32; causal:
    the last query sees all keys, the one before it all but one.
    """
    repeat = query.shape[1] // key.shape[1]
    parts = []
    for head in range(min(query.shape[1], CHECKED_HEADS)):
        q, k, v = (t.float() for t in (query[:, head], key[:, head // repeat], value[:, head // repeat]))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if causal:
            new, tokens = scores.shape[-2:]
            later = torch.ones(new, tokens, dtype=torch.bool, device=scores.device).triu(1 + tokens - new)
            scores = scores.masked_fill(later, float("-inf"))
        parts.append(scores.softmax(-1) @ v)
    return torch.stack(parts, dim=1)


def _no_kernel(target: Target) -> str:
    """On a GPU scaled_dot_product_attention takes 576-wide keys by its reference path, which no engine runs."""
    if target.device_class != "cuda":
        return ""
    return "torch has no kernel for it there; mla_decode_flashmla, _flashinfer and _fa3 call libraries that have one"


def _operator(name: str, phase: Phase, *, value_width: int = 0) -> Operator:
    expand = partial(cases, operator=name, phase=phase, latent=bool(value_width))
    return Operator(KERNEL, expand, partial(prepare, value_width=value_width))


PREFILL, DECODE = _operator("attention_prefill", "prefill"), _operator("attention_decode", "decode")
MLA_PREFILL = _operator("mla_prefill", "prefill", value_width=MLA_VALUE)
MLA_DECODE = _operator("mla_decode", "decode", value_width=MLA_LATENT)._replace(refuses=_no_kernel)
