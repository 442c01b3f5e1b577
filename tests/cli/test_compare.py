"""`moesim compare`: paired seeds, an interval for every number, one sentence."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from moesim.studies.compare import _as_sure, compare, paired

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim


def test_the_interval_is_scipy_s_paired_one() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 0.1, 7), rng.normal(1.1, 0.1, 7)
    found, oracle = paired(a.tolist(), b.tolist(), "s"), stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))
    assert found.value == pytest.approx(b.mean() - a.mean())


def test_more_tokens_take_longer_and_it_says_so(moesim: Moesim) -> None:
    done = moesim("compare", "demo-tiny", "--set", "batch.tokens_per_gpu=256", "--seeds", "3", "--json")
    document = json.loads(done.out)
    step = document["metrics"]["step_time_s"]
    assert 0 < step["low"] <= step["value"] <= step["high"]
    assert step["variant"] - step["base"] == pytest.approx(step["value"])
    assert "slower" in document["provenance"]["verdict"]
    assert document["provenance"]["verdict"] in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("base", "variant", "differ"),
    [((2.4, 3.4, 2.8, 3.0, 3.7), (2.5, 4.1, 3.1, 3.1, 4.7), False),
     ((2.8, 1.1, 3.2, 1.0, 3.3), (3.1, 1.5, 3.2, 1.6, 3.7), True)],
)  # fmt: skip
def test_rates_differ_for_certain_where_times_do(
    base: tuple[float, ...], variant: tuple[float, ...], differ: bool
) -> None:
    """Student's interval of 6 tokens a step over its seconds says the opposite of that of the seconds."""
    documents = [{"metrics": {"step_time_s": {"value": one}, "tokens_per_s": {"value": 6 / one}}}
                 for one in (*base, *variant)]  # fmt: skip
    time = paired(base, variant, "s")
    rate = paired([6 / one for one in base], [6 / one for one in variant], "tok/s")
    found = _as_sure({"step_time_s": time, "tokens_per_s": rate}, documents)["tokens_per_s"]
    assert (time.told, rate.told, found.told) == (differ, not differ, differ)
    assert found.low <= found.value <= found.high and found.value == rate.value


def test_the_verdict_names_what_moved(moesim: Moesim) -> None:
    """Another way of the rows: the same computing, other transfers, and another kernel's ports are the fullest."""
    done = moesim("compare", "demo-tiny", "--set", "comm.dispatch=deepep_normal", "--seeds", "2", "--json")
    document = json.loads(done.out)
    said = document["provenance"]["verdict"].partition(" Most moved: ")[2]
    assert said.startswith("exposed communication +") and document["breakdown"]["exposed_comm_s"] > 0
    assert "balanced compute" not in said and "imbalance" not in said
    full = document["metrics"]["hottest_link_utilisation"]
    assert f"at {full['base']:.1%} to" in said and f"at {full['variant']:.1%}." in said
    spots = document["provenance"]["variant"]["congestion"]["hot_spots"]
    assert spots[0]["link"].split("(")[1] in said  # which GPU's is the fullest is close


def test_a_scenario_does_not_differ_from_itself(moesim: Moesim) -> None:
    done = moesim("compare", "demo-tiny", "--with", "demo-tiny", "--seeds", "2")
    assert done.code == 0
    assert "No difference" in done.out and "Most moved" not in done.out


def test_errors_of_two_devices_are_independent() -> None:
    """The same rates under another name: as fast, but nobody measured it, so that no difference is certain."""
    same, other = (compare("demo-tiny", overrides=[f"cluster.topology={name}"]) for name in ("dgx-h100", "hgx-h800"))
    assert same.metrics["step_time_s"].low == same.metrics["step_time_s"].high == 0
    found = other.metrics["step_time_s"]
    assert found.high - found.low > 0.02 * found.base
    assert other.base[0]["provenance"]["error_draw"] != other.variant[0]["provenance"]["error_draw"]


@pytest.mark.parametrize("arguments", [[], ["--seeds", "1", "--with", "demo-tiny"], ["--set", "seed=3"]])
def test_bad_comparisons_are_refused(moesim: Moesim, arguments: list[str]) -> None:
    done = moesim("compare", "demo-tiny", *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1)


def test_a_page_holds_the_command_and_both_scenarios(moesim: Moesim) -> None:
    words = ("--with", "demo-qwen3", "--set", "model=tiny-moe", "--set", "routing={trace: tiny-moe}", "--seeds", "2")
    done = moesim("compare", "demo-tiny", *words, "--report=page.html")
    assert done.code == 0 and "page.html" in done.out, done.err
    data = json.loads(Path("page.html").read_text().partition('id="data">')[2].partition("</script>")[0])
    assert data["command"].startswith("moesim compare base.yaml --with variant.yaml --set model=tiny-moe")
    for name, text in data["scenarios"].items():
        Path(name).write_text(text)
    again = moesim(*shlex.split(data["command"])[1:], "--json")
    assert json.loads(again.out)["metrics"] == data["document"]["metrics"]
