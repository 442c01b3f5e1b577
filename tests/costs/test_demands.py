"""What physics has to do for an operator, against sums written out here."""

from __future__ import annotations

import pytest

from moesim.costs import shapes
from moesim.models import Attention

LATENT = Attention("mla", 128, 128, 128, 128, 1536, 512, 128, 64)  # DeepSeek-V3's: 128 heads of 128 + 64, values of 128


def test_prefill_of_latent_attention_expands_keys_and_values() -> None:
    """2 sequences of 1,000 tokens: 1,000 x 1,001 / 2 pairs a head, 192 multiplied for the score, 128 for the value."""
    found = shapes.attention_of(LATENT, "prefill", 1000, 0, 2, 64, "bf16")
    assert float(found.flops) == pytest.approx(2 * 2 * 500_500 * 64 * (192 + 128))
    own = 2 * 1000 * 64 * (192 + 128) * 2  # queries read and results written
    assert float(found.bytes) == pytest.approx(own + own)  # as many keys and values, without a cached context


def test_decode_of_latent_attention_reads_the_latent_once_for_all_heads() -> None:
    found = shapes.attention_of(LATENT, "decode", 1, 999, 3, 64, "fp8")
    assert float(found.flops) == pytest.approx(2 * 3 * 1000 * 64 * (2 * 512 + 64))
    assert float(found.bytes) == pytest.approx(3 * 64 * (192 + 128) * 2 + 3 * 1000 * (512 + 64))
