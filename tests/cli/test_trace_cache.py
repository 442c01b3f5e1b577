"""`moesim trace cache`, from the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import Moesim

CACHE = ("trace", "cache", "tiny-moe", "--passes", "100", "--json")


def found(moesim: Moesim, *more: str) -> dict[str, Any]:
    done = moesim(*CACHE, *more)
    assert done.code == 0, done.err
    return {name: one["value"] for name, one in json.loads(done.out)["metrics"].items()}


def test_bytes_and_time_add_up(moesim: Moesim) -> None:
    """Misses x bytes; the stall is what the link takes for them, one after the other; 8 layers of 500 us a pass."""
    one = found(moesim, "--slots", "8")
    misses = (1 - one["hit_ratio"]) * 100 * 8 * 4
    assert one["fetched_bytes"] == pytest.approx(misses * 50e6) and one["stall_s"] == pytest.approx(misses * 2e-3)
    assert one["pass_s"] == pytest.approx(one["stall_s"] / 100 + 8 * 500e-6)
    faster = found(moesim, "--slots", "8", "--link", "50 GB/s")
    assert faster["stall_s"] == pytest.approx(one["stall_s"] / 2) and faster["hit_ratio"] == one["hit_ratio"]
    assert "predictor_accuracy" not in one  # nothing was predicted
    assert found(moesim, "--slots", "16")["hit_ratio"] > one["hit_ratio"]


@pytest.mark.parametrize(
    ("given", "words"),
    [(("--slots", "40"), "--slots 32"), (("--slots", "4", "--link", "25"), "--link"),
     (("--slots", "4", "--shallow", "7"), "--shallow 0"), (("--slots", "4", "--prefetch", "orcale"), "'oracle'"),
     (("--slots", "4", "--expert", "0 B"), "not above zero"), (("--slots", "4", "--compose", "x"), "affinity"),
     (("--slots", "4", "--accuracy", "0.5"), "--prefetch gate"), (("--slots", "4", "--distance", "2"), "--prefetch"),
     (("--slots", "4", "--prefetch", "gate", "--accuracy", "nan"), "no probability")],
)  # fmt: skip
def test_what_cannot_be_is_refused(moesim: Moesim, given: tuple[str, ...], words: str) -> None:
    refused = moesim(*CACHE, *given)
    assert refused.code == 2 and words in refused.err
