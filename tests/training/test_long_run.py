"""Many steps with failures: against closed forms of Young and Daly, and by conservation of time."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.streams import stream
from moesim.training.long_run import LongRun, slowed, young_seconds

DAY = 86400.0


def run(every: int, steps: int = 20_000, mtbf: float = DAY / 4, write: float = 60.0, restart: float = 300.0) -> LongRun:
    return LongRun(np.full(steps, 10.0), every, write, restart, {"gpu": 0.75 / mtbf, "node": 0.25 / mtbf})


def mean(one: LongRun, trials: int = 200) -> tuple[float, float]:
    """Of wall times, and its standard error."""
    random = stream(7, "long run", one.every)
    found = [one.play(random).wall for _ in range(trials)]
    return float(np.mean(found)), float(np.std(found) / np.sqrt(trials))


def test_without_failures_a_run_is_its_steps_and_checkpoints() -> None:
    one = LongRun(np.full(1000, 10.0), 300, 60.0, 300.0, {})
    assert one.play(stream(1, "x")).wall == one.expected == 1000 * 10 + 4 * 60


@pytest.mark.parametrize("every", [50, 150, 600])
def test_a_run_takes_what_daly_s_formula_says(every: int) -> None:
    wall, error = mean(run(every))
    assert wall == pytest.approx(run(every).expected, abs=4 * error) and error < 0.01 * wall


@pytest.mark.parametrize("mtbf", [DAY / 4, 3 * DAY, 3000 * DAY])
def test_trials_are_runs_by_the_chance_that_something_fails(mtbf: float) -> None:
    """From many failures to one in a thousand runs: the same mean as Daly's, with an error of its own excess."""
    one, random = run(161, mtbf=mtbf), stream(8, "trials")
    found = np.array([one.trial(random).mean(lambda played: played.wall) for _ in range(200)])
    calm = one.trial(random).calm.wall
    assert found.mean() - calm == pytest.approx(one.expected - calm, rel=0.15)
    assert found.mean() == pytest.approx(one.expected, abs=4 * float(found.std()) / np.sqrt(200))


def test_the_best_interval_is_young_s() -> None:
    """sqrt(2 x 60 s x 6 h) = 1,610 s: 161 steps; half and twice as many take longer."""
    best = round(young_seconds(60.0, DAY / 4) / 10)
    intervals = [best // 4, best // 2, best, best * 2, best * 4]
    walls = [mean(run(every))[0] for every in intervals]
    assert best == 161 and int(np.argmin(walls)) == 2
    exact = min(range(20, 800), key=lambda every: run(every, steps=800 * 25).expected)
    assert exact == pytest.approx(best, rel=0.1) and run(best).expected < 1.002 * run(exact).expected


def test_time_is_conserved() -> None:
    one, random = run(200), stream(3, "long run")
    for _ in range(20):
        found = one.play(random)
        parts = float(one.seconds.sum()) + found.writing + found.lost + found.restarting
        failures = sum(found.failures.values())
        assert found.wall == pytest.approx(parts) and 0 < found.restarting <= 300 * failures
        assert 0 < found.lost < failures * (200 * 10 + 60) and found.writing == 100 * 60


def test_failures_come_as_often_as_they_should_and_where() -> None:
    one, random = run(200), stream(4, "long run")
    played = [one.play(random) for _ in range(200)]
    seconds, failed = sum(one.wall for one in played), [sum(p.failures[k] for p in played) for k in ("gpu", "node")]
    assert sum(failed) == pytest.approx(seconds / (DAY / 4), rel=0.05)
    assert failed[0] / failed[1] == pytest.approx(3, rel=0.2)


def test_one_seed_is_one_run() -> None:
    assert run(100).play(stream(5, "x")) == run(100).play(stream(5, "x"))


def test_stragglers_lengthen_their_share_of_steps() -> None:
    found = slowed(np.full(100_000, 2.0), 0.25, 1.5, stream(6, "x"))
    assert set(found) == {2.0, 3.0} and found.mean() == pytest.approx(2.25, rel=0.01)


def test_a_run_that_never_ends_is_refused() -> None:
    with pytest.raises(BadInput, match="never ends"):
        run(20_000, mtbf=3600.0)
