"""Bytes that the small kernels of a training step move beside its GEMMs, each tensor read and written once.

Their real time is about twice that: a profile's elementwise rate has the factor, which DeepSeek's training profile
gives. Serving engines have them inside measured operators, or in kernels of their own; there they are not counted.
"""

from __future__ import annotations

from moesim.models import Attention

BF16, FP32 = 2, 4
LOSS_BYTES = BF16 + FP32  # of a logit, forward: bf16 read, its softmax written in fp32; backward the same the other way


def rotary_bytes(mixer: Attention, heads: int, kv_heads: int) -> int:
    """Of a token, forward and again backward: queries and keys rotated. MLA's keys are put together from the latent's
    rotary part and their own, and its values are cut out beside them.
    """
    queries = 2 * heads * mixer.query_head_dim
    if mixer.kind != "mla":
        return BF16 * (queries + 2 * kv_heads * mixer.head_dim)
    keys = heads * (mixer.qk_nope_head_dim + mixer.query_head_dim)
    return BF16 * (queries + keys + 2 * heads * mixer.v_head_dim)


def permute_rows(choices: int) -> int:
    """Rows that a token's rank reads and writes for it, forward and again backward: copied once for each choice, and
    its results summed.
    """
    return 2 * (choices + 1)


SORT_PASSES = 2  # of a row that came, read and written: put in order of experts; and of its result, put back
