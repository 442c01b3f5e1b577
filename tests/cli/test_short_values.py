"""Short ways to write values on the command line."""

from __future__ import annotations

import json
import re

import pytest

from moesim.studies import load
from moesim.units import counted
from tests.cli.conftest import Moesim


@pytest.mark.parametrize(
    ("text", "number"),
    [("32k", 32_000), ("32Ki", 32_768), ("1e3", 1000), ("1.5k", 1500), ("2M", 2_000_000), ("1.28e5", 128_000)],
)
def test_short_counts(text: str, number: int) -> None:
    assert counted(text) == number


@pytest.mark.parametrize("text", ["017k", "0k", "1e0", "1.2345k", "k", "32kB", "25ms", "-1k", "1e-3", "32"])
def test_what_is_no_short_count(text: str) -> None:
    assert counted(text) is None


def test_set_takes_them_and_times_without_a_blank() -> None:
    batch = load("demo-tiny", ("batch.context=2Ki", "batch.tokens_per_gpu=1e2")).scenario.batch
    assert (batch.context, batch.tokens_per_gpu) == (2048, 100)
    fault = "faults=[{at: 25ms, rank: 0, factor: 0.5}]"
    assert load("demo-tiny", (fault,)).scenario.faults[0].at == 0.025


def test_nvfp4_is_fp4(moesim: Moesim) -> None:
    same = [load("demo-tiny", (f"precision.experts={name}",)).scenario.digest for name in ("fp4", "nvfp4", "mxfp4")]
    assert len(set(same)) == 1
    assert "nvfp4" in json.dumps(json.loads(moesim("schema").out))


def test_init_writes_to_stdout_where_it_is_told_to(moesim: Moesim) -> None:
    assert moesim("init", "-o", "-").out == moesim("init").out


@pytest.mark.parametrize(
    ("setting", "most"), [("batch.tokens_per_gpu=1e9", 4194304), ("batch.micro_batches=1e9", 4096)]
)
def test_what_would_take_for_ever_is_refused_at_once(moesim: Moesim, setting: str, most: int) -> None:
    """Both limits were written down and had no effect: a step of 1e9 micro-batches never ended."""
    done = moesim("run", "mixtral-train-ep8", "--set", setting)
    assert done.code == 2 and f"less than or equal to {most}, not 1000000000" in done.err


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("batch.tokens_per_gpu=017", "without the leading zero it is 17"),
        ("routing.balanced=NO", "is written false"),
        ("network.efficiency=1e-10", "with a point it is 1.0e-10"),
    ],
)
def test_old_spellings_are_refused_with_the_new_one(moesim: Moesim, setting: str, hint: str) -> None:
    done = moesim("run", "demo-tiny", "--set", setting)
    assert done.code == 2 and hint in done.err


def test_what_is_too_much_is_refused_with_the_most_that_fits(moesim: Moesim) -> None:
    """The number said runs, one more does not."""
    wide = ("run", "demo-qwen3", "--set", "batch.context=200000", "--set")
    done = moesim(*wide, "batch.tokens_per_gpu=90000")
    most = re.search(r"Try: batch.tokens_per_gpu: (\d+);", done.err)
    assert done.code == 3 and most
    assert moesim(*wide, f"batch.tokens_per_gpu={most[1]}").code == 0
    assert moesim(*wide, f"batch.tokens_per_gpu={int(most[1]) + 1}").code == 3


def test_the_nearest_redundancy_that_divides(moesim: Moesim) -> None:
    done = moesim("run", "demo-qwen3", "--set", "experts.redundant=3")
    assert done.code == 2 and done.err.strip().endswith("Try: redundant: 0 or 8")
