"""TensorRT-LLM's exchange over one NVLink domain: constants of a made-up law, and what the shipped ones say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moesim.calibration.deepep import rows_away
from moesim.calibration.nvlink_domain import best_rate, held_out, in_one_domain, sent_bytes
from moesim.calibration.records import Records, records_of
from moesim.calibration.systems import find_system
from moesim.costs import load_costs
from moesim.hardware import load_cluster

GB200 = load_cluster("gb200-nvl72")
RATE, START = 600e9, 15e-6


def _rows() -> Records:
    facts = {"run": "r", "device": "GB200", "device_class": "cuda", "backend": "trtllm", "version": "1", "sms": 0}
    shape = {"kernel": "nvlink_one_sided", "hidden": 7168, "topk": 8, "experts": 256}
    rows: list[dict[str, Any]] = []
    for world in (4, 8, 16):
        for tokens in (1, 64, 1024, 16384):
            for op, dtype, width in (("dispatch", "fp8", 1 + 4 / 128), ("combine", "bf16", 2.0)):
                seconds = START + tokens * rows_away(256, 8, world) * 7168 * width / RATE
                rows.append(facts | shape | {"op": op, "dtype": dtype, "tokens": tokens, "world": world,
                                             "case": len(rows), "seconds": seconds})  # fmt: skip
    return records_of(rows)


def test_a_made_up_law_is_found_again() -> None:
    rows = _rows()
    assert best_rate(rows) == pytest.approx(RATE, rel=1e-6)
    assert np.abs(held_out(rows).log).max() < 0.02
    found = in_one_domain(rows, find_system("gb200"), GB200)["nvlink_domain"]
    assert found["efficiency"] == {"nvlink": round(600 / 900, 3)} and found["alpha"].startswith("15")
    assert in_one_domain(rows.where(np.zeros(len(rows), dtype=bool)), find_system("gb200"), GB200) == {}


def test_bytes_are_a_copy_for_each_other_gpu_that_has_an_expert() -> None:
    row = _rows().where(np.arange(24) == 0)
    assert sent_bytes(row)[0] == pytest.approx(7168 * (1 + 4 / 128) * 3 * (1 - _missed(64)), rel=1e-9)


def _missed(own: int) -> float:
    """Chance that none of 8 of 256 experts is among `own`: product of what is left."""
    return float(np.prod([(256 - own - i) / (256 - i) for i in range(8)]))


@pytest.mark.parametrize(("kernel", "ranks", "sent", "us"), [
    ("nvlink_domain", 8, 32768 * rows_away(256, 8, 8) * 7168 * (0.5 + 1 / 16), 1400.6),
    ("nvlink_domain@two-sided", 64, 2048 * rows_away(256, 8, 64) * 7168 * 2, (442.8 + 28.2 + 497.8) / 2),
])  # fmt: skip
def test_the_shipped_ones_say_what_was_measured(kernel: str, ranks: int, sent: float, us: float) -> None:
    """Rows of aiconfigurator-core 0.12.0, TensorRT-LLM 1.3.0rc10 on GB200; the two-sided one: dispatch with its
    preparing, and combine, of as many bytes, in the middle.
    """
    cost = load_costs("gb200", GB200.devices[0]).communication[kernel]
    told = cost.startup("all_to_all", ranks, ranks - 1, sent) + sent / (cost.efficiency["nvlink"] * 900e9)
    assert told * 1e6 == pytest.approx(us, rel=0.12)
