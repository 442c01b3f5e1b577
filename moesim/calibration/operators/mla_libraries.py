"""MLA decode as engines run it, in the kernels of three libraries, where they are installed: CUDA only. Each keeps the
latent cache in pages; keys are the whole latent (512 + 64 values), values its first part, which all heads share. From
an fp8 cache TensorRT-LLM's kernels decode, which FlashInfer brings for Blackwell: queries are fp8 too, results bf16.

Sources: deepseek-ai/FlashMLA README @066b5ba; flashinfer.mla in FlashInfer's documentation; flash_attn_with_kvcache in
Dao-AILab/flash-attention hopper/flash_attn_interface.py @01afd16 (`qv`: the part of a query that meets the values).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

from moesim.calibration.measure.case import Case, shape
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.measure.probe import refusal
from moesim.calibration.measure.target import DTYPES as TORCH
from moesim.calibration.measure.target import Target
from moesim.calibration.operators.attention import CHECKED_HEADS, MLA_LATENT, reference, shapes
from moesim.calibration.operators.library import lacks
from moesim.calibration.operators.operator import Operator, Place, Prepared, expect_close

DTYPES: Final = ("bf16", "fp16")
FP8_LIMIT: Final = 0.1  # of the largest value: weights of the softmax are fp8 as well, with 3 bits behind the point
PAGES: Final = 2  # of a sequence are a multiple of it: TensorRT-LLM's kernels take 128 tokens at once
PAGE: Final = 64  # tokens: the one size that FlashMLA has, and one of the others'
NOPE: Final = 128  # of a key's values before they were absorbed, DeepSeek's
WORKSPACE: Final = 128 << 20  # bytes, as FlashInfer's documentation says


def cases(plan: PlanSection, world: int, *, operator: str, dtypes: tuple[str, ...]) -> Iterator[Case]:
    """The decode shapes of the plan's models with MLA."""
    del world
    for columns in shapes(plan, phase="decode", latent=True):
        yield from (Case(operator, "mla_decode", d, shape(**columns)) for d in plan.dtypes if d in dtypes)


@dataclass(frozen=True)
class Paged:
    """query [B, 1, H, d], latents [B, n, d] and the same in pages [B P, PAGE, 1, d] that a sequence has one after
    another; pages int32[B, P]; length int32[B].
    """

    query: torch.Tensor
    latents: torch.Tensor
    cache: torch.Tensor
    pages: torch.Tensor
    length: torch.Tensor

    @staticmethod
    def of(case: Case, place: Place) -> Paged:
        """Random values; what lies beyond a sequence in its last page is zero."""
        batch, tokens, width = case["batch"], case["context"] + case["query"], case["head_dim"]
        made = "bf16" if case.dtype == "fp8" else case.dtype  # torch draws no fp8
        query = place.random(batch, 1, case["heads"], width, dtype=made).to(TORCH[case.dtype])
        latents = place.random(batch, tokens, width, dtype=made).to(TORCH[case.dtype])
        number = -(-tokens // (PAGE * PAGES)) * PAGES
        cache = latents.new_zeros(batch, number * PAGE, width)
        cache[:, :tokens] = latents
        pages = torch.arange(batch * number, dtype=torch.int32, device=query.device).view(batch, number)
        length = torch.full((batch,), tokens, dtype=torch.int32, device=query.device)
        return Paged(query, latents, cache.view(batch * number, PAGE, 1, width), pages, length)

    @property
    def scale(self) -> float:
        """Of the scores."""
        return float(self.query.shape[-1] ** -0.5)

    def parts(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[..., d] -> the latent that is the value too, and the rest, each on its own in memory."""
        return values[..., :MLA_LATENT].contiguous(), values[..., MLA_LATENT:].contiguous()

    def check(self, found: torch.Tensor) -> None:
        """[B, 1, H, values]."""
        key = self.latents[:1].unsqueeze(1)
        expected = reference(self.query[:1].transpose(1, 2), key, key[..., :MLA_LATENT], causal=False)
        limit = FP8_LIMIT if self.query.dtype == TORCH["fp8"] else 0.0
        expect_close(found[:1, :, :CHECKED_HEADS].transpose(1, 2), expected, limit=limit)


def flash_mla(paged: Paged) -> tuple[Callable[[], torch.Tensor], str]:
    """A call of FlashMLA, and the kernel's name. Its schedule is made once for all layers of a step: outside."""
    library: Any = importlib.import_module("flash_mla")
    heads = paged.query.shape[2]
    schedule = library.get_mla_metadata(paged.length, heads, 1)

    def call() -> torch.Tensor:
        found: torch.Tensor = library.flash_mla_with_kvcache(
            paged.query, paged.cache, paged.pages, paged.length, MLA_LATENT, *schedule, softmax_scale=paged.scale,
            causal=True,
        )[0]  # fmt: skip
        return found

    return call, "flash_mla_with_kvcache"


def flashinfer(paged: Paged) -> tuple[Callable[[], torch.Tensor], str]:
    """The same of FlashInfer: which of its implementations runs, it chooses by device; the name says which."""
    library: Any = importlib.import_module("flashinfer.mla")
    device, dtype = paged.query.device, paged.query.dtype
    batch, number = paged.pages.shape
    each = torch.arange(batch + 1, dtype=torch.int32, device=device)
    wrapper = library.BatchMLAPagedAttentionWrapper(torch.empty(WORKSPACE, dtype=torch.int8, device=device))
    latent, rope = paged.parts(paged.cache.squeeze(2))
    wrapper.plan(
        each, each * number, paged.pages.reshape(-1), paged.length, paged.query.shape[2], MLA_LATENT, rope.shape[-1],
        PAGE, False, paged.scale, dtype, dtype,
    )  # fmt: skip
    query, turned = paged.parts(paged.query.squeeze(1))

    def call() -> torch.Tensor:
        found: torch.Tensor = wrapper.run(query, turned, latent, rope)
        return found.unsqueeze(1)

    return call, f"flashinfer_mla_{getattr(wrapper, '_backend', 'auto')}"


def flash_attention_3(paged: Paged) -> tuple[Callable[[], torch.Tensor], str]:
    """The same of FlashAttention 3."""
    library: Any = importlib.import_module("flash_attn_interface")
    latent, rope = paged.parts(paged.cache)
    query, turned = paged.parts(paged.query)

    def call() -> torch.Tensor:
        found: torch.Tensor = library.flash_attn_with_kvcache(
            turned, rope, latent, qv=query, cache_seqlens=paged.length, page_table=paged.pages,
            softmax_scale=paged.scale, causal=True,
        )  # fmt: skip
        return found

    return call, "flash_attn_with_kvcache"


def trtllm(paged: Paged) -> tuple[Callable[[], torch.Tensor], str]:
    """TensorRT-LLM's, by FlashInfer; its workspace is zero before the first call."""
    library: Any = importlib.import_module("flashinfer.mla")
    workspace = torch.zeros(WORKSPACE, dtype=torch.uint8, device=paged.query.device)
    pages, rope = paged.cache.transpose(1, 2), paged.query.shape[-1] - MLA_LATENT

    def call() -> torch.Tensor:
        found: torch.Tensor = library.trtllm_batch_decode_with_kv_cache_mla(
            query=paged.query, kv_cache=pages, workspace_buffer=workspace, qk_nope_head_dim=NOPE,
            kv_lora_rank=MLA_LATENT, qk_rope_head_dim=rope, block_tables=paged.pages, seq_lens=paged.length,
            max_seq_len=paged.pages.shape[1] * PAGE, bmm1_scale=paged.scale, bmm2_scale=1.0,
        )  # fmt: skip
        return found

    return call, "trtllm_batch_decode_mla"


def prepare(
    case: Case, place: Place, *, kernel: Callable[[Paged], tuple[Callable[[], torch.Tensor], str]]
) -> Prepared:  # fmt: skip
    """See Operator."""
    paged = Paged.of(case, place)
    call, name = kernel(paged)
    tokens, width = case["context"] + case["query"], case["head_dim"]
    pairs = float(case["batch"] * tokens)
    values = paged.query.numel() // width * MLA_LATENT
    moved = (pairs * width + paged.query.numel()) * paged.query.element_size() + 2 * values
    return Prepared(call, paged.check, 2.0 * pairs * case["heads"] * (width + MLA_LATENT), moved,
                    columns={"kernel": name})  # fmt: skip


def refuses(target: Target, *, operator: str, module: str, name: str) -> str:
    """Why it cannot run here: told by the library, or by trying."""
    tiny = shape(batch=1, query=1, context=127, heads=128, kv_heads=1, head_dim=576, tp=1)
    dtype = "fp8" if operator.endswith("_fp8") else "bf16"
    return lacks(module, name, target) or refusal(Case(operator, "mla_decode", dtype, tiny), target.device_class)


def _operator(
    operator: str, backend: str, module: str, name: str,
    kernel: Callable[[Paged], tuple[Callable[[], torch.Tensor], str]], dtypes: tuple[str, ...] = DTYPES,
) -> Operator:  # fmt: skip
    return Operator(
        name, partial(cases, operator=operator, dtypes=dtypes), partial(prepare, kernel=kernel), backend=backend,
        module=module.partition(".")[0],
        refuses=partial(refuses, operator=operator, module=module, name=name),
    )  # fmt: skip


FLASH_MLA = _operator("mla_decode_flashmla", "flash_mla", "flash_mla", "flash_mla_with_kvcache", flash_mla)
FLASHINFER = _operator(
    "mla_decode_flashinfer", "flashinfer", "flashinfer.mla", "BatchMLAPagedAttentionWrapper", flashinfer
)  # fmt: skip
FA3 = _operator("mla_decode_fa3", "flash_attn", "flash_attn_interface", "flash_attn_with_kvcache", flash_attention_3)
FP8 = _operator(
    "mla_decode_trtllm_fp8", "flashinfer", "flashinfer.mla", "trtllm_batch_decode_with_kv_cache_mla", trtllm, ("fp8",)
)  # fmt: skip
