"""Linear recurrences: their demand by hand, measured kernels, and the roofline where nobody measured one."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.costs import load_costs
from moesim.costs.recurrences import convolution, recurrence
from moesim.hardware import load_cluster
from moesim.models import Linear

H100 = load_cluster("dgx-h100").devices[0]
PROFILE = load_costs("h100_sxm", H100)
NET = Linear("gdn", 16, 128, 32, 128)
MAMBA = Linear("mamba2", 8, 128, 64, 64)


def test_a_decoded_token_reads_and_writes_the_state() -> None:
    found = recurrence("decode", 1, 10, 2, 4, 8, 16, "gdn")
    assert float(found.bytes) == 10 * 2 * 2 * (2 * 8 + 4 * 16) + 10 * 2 * 4 * 8 * 16 * 4
    assert float(found.flops) == 10 * 7 * 4 * 8 * 16


def test_a_convolution_moves_its_tokens_twice_and_in_decode_its_last_inputs() -> None:
    assert float(convolution("prefill", 100, 3, 64, 4).bytes) == (2 * 300 + 3 * 3) * 64 * 2
    assert float(convolution("decode", 1, 3, 64, 4).bytes) == (2 * 3 + 2 * 3 * 3) * 64 * 2
    assert float(convolution("decode", 1, 0, 64, 4).bytes) == 0


def test_nothing_to_do_takes_no_time() -> None:
    assert all(float(one.seconds) == 0 for one in PROFILE.recurrence("decode", 1, 0, NET, 1))


@pytest.mark.parametrize(("batch", "us"), [(1, 4.9), (64, 95.1), (1024, 1440.0)])
def test_decode_takes_what_was_measured(batch: int, us: float) -> None:
    """vLLM 0.24.0's packed decode on H100, as aiconfigurator-core 0.12.0 lists it: rows the profile was fitted on."""
    _, rule = PROFILE.recurrence("decode", 1, batch, NET, 1)
    assert float(rule.seconds) * 1e6 == pytest.approx(us, rel=0.05)
    assert (rule.basis, rule.family) == ("fitted", "recurrence") and rule.role == "gdn_decode.bf16"


def test_no_context_makes_it_longer_and_more_prompt_does() -> None:
    seconds = [
        sum(float(one.seconds) for one in PROFILE.recurrence("prefill", q, 1, NET, 1)) for q in (512, 4096, 32768)
    ]
    assert seconds[2] / seconds[1] == pytest.approx(8, rel=0.1) and seconds[0] < seconds[1]


def test_an_unmeasured_scan_is_a_roofline_that_says_so() -> None:
    conv, scan = PROFILE.recurrence("decode", 1, np.array([1024, 2048]), MAMBA, 1)
    assert conv.basis == "fitted"
    assert scan.basis == "assumed" and "nobody measured it" in scan.kernel
    assert scan.family == "unmeasured kernels" and PROFILE.families[scan.family] > PROFILE.families["recurrence"]
    state = 2 * 64 * 128 * 64 * 4 + 2 * 2 * (8 * 128 + 64 * 64)
    assert scan.seconds == pytest.approx(np.array([1024, 2048]) * state / 3.35e12)


def test_a_share_of_the_heads_costs_less() -> None:
    whole, part = (PROFILE.recurrence("decode", 1, 256, NET, ways)[1].seconds for ways in (1, 4))
    assert float(part) == pytest.approx(float(whole) / 4, rel=0.15)


def test_a_prompt_is_cut_into_chunks_of_64_that_add_products_within_them() -> None:
    """3 sequences of 100 tokens fill two chunks each; 4 heads of 8 x 16 cells on 2 key heads."""
    found = recurrence("prefill", 100, 3, 2, 4, 8, 16, "gdn")
    cells, whole = 4 * 8 * 16, 3 * 2 * 64
    assert float(found.flops) == 4 * 300 * cells
    assert float(found.bytes) == 300 * 2 * 2 * (2 * 8 + 4 * 16) + 3 * 2 * cells * 4
    assert float(found.padded) == whole * (6 * cells + 2 * 64 * 4 * (3 * 8 + 2 * 16))
    assert [float(one) for one in found.counts] == [3 * 4 * 2]
    assert [2 ** float(one) for one in found.coordinates] == pytest.approx([12, 100, 4, 3, float(found.bytes)])
    decoded = recurrence("decode", 1, 10, 2, 4, 8, 16, "gdn")
    assert float(decoded.padded) == float(decoded.flops) and [float(one) for one in decoded.counts] == [40]
    assert [float(one) for one in recurrence("prefill", 0, 3, 2, 4, 8, 16, "gdn").counts] == [0]


def test_a_convolution_multiplies_every_tap() -> None:
    found = convolution("prefill", 100, 3, 64, 4)
    assert float(found.flops) == float(found.padded) == 2 * 300 * 64 * 4
    assert [float(one) for one in found.counts] == [3]
    assert [2 ** float(one) for one in found.coordinates] == pytest.approx([300, 100, 64, float(found.bytes)])
