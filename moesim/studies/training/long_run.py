"""`run:` of a training scenario: many steps, with routing that drifts, checkpoints, failures and stragglers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from pydantic import Field

from moesim import streams
from moesim.errors import BadInput
from moesim.studies.interval import half_width, most_likely
from moesim.studies.moving import MovingSection
from moesim.studies.prices import HOUR, KILO, PricesSection
from moesim.studies.result import Metric
from moesim.studies.scenario import Count
from moesim.training import Job
from moesim.training.long_run import LongRun, Played, Trial, slowed, young_seconds
from moesim.training.rebalanced import Look
from moesim.units import Bandwidth, Seconds
from moesim.yamlfile import Section

MOST_LOOKS: Final = 64  # each plays every layer of every micro-batch
NOTE: Final = (
    "run: failures are independent and exponential, a straggler slows the whole step, training stands while a "
    "checkpoint is written; a step that is done again takes as long as before"
)
ASSUMED: Final = "run: mean times between failures, restart and checkpoint rates are the scenario's"
Seconds64 = np.ndarray[Any, np.dtype[np.float64]]


class RunSection(Section):
    """Many steps in a row: routing that drifts, checkpoints, failures, restarts, stragglers."""

    steps: int = Field(ge=1, le=10_000_000, description="optimizer steps")
    trials: int = Field(32, ge=1, le=10_000, description="runs that are drawn; metrics are their means")
    checkpoint_rate: Bandwidth = Field(
        gt=0, description="at which each GPU writes and reads its share of parameters and optimizer states"
    )
    checkpoint_every: Count | Literal["auto"] = Field(
        "auto", description="steps between checkpoints; auto: as Young's formula has it"
    )
    restart: Seconds | None = Field(
        None, description="from a failure until the checkpoint can be read; needed where something fails"
    )
    gpu_mtbf: Seconds | None = Field(None, gt=0, description="mean time between failures of one GPU")
    nic_mtbf: Seconds | None = Field(None, gt=0, description="and of one NIC, of which each GPU has one")
    node_mtbf: Seconds | None = Field(None, gt=0, description="and of what else is in a node")
    straggler_rate: float = Field(0.0, ge=0, le=1, description="share of its steps in which a GPU is slow")
    straggler_slowdown: float = Field(1.0, ge=1, le=100, description="how much longer a step with a slow GPU takes")
    routing_every: Count | None = Field(
        None, description="steps after which routing is looked up anew, and routers have learned; default: never"
    )

    rebalance: MovingSection | None = Field(
        None, description="at each look experts move between GPUs, planned on the load since the one before"
    )

    @property
    def fails(self) -> bool:
        """Whether anything does."""
        return any((self.gpu_mtbf, self.nic_mtbf, self.node_mtbf))

    def check(self) -> None:
        """Raises BadInput for keys that have nothing to act on."""
        for wrong, key, what, way_out in (
            (self.fails and self.restart is None, "restart", "missing, and something fails", "e.g. restart: 10 min"),
            (not self.fails and self.restart is not None, "restart", "nothing fails", "gpu_mtbf, or leave it out"),
            (not self.fails and self.checkpoint_every == "auto", "checkpoint_every",
             "auto needs something that fails", "a number of steps, or gpu_mtbf"),
            ((self.straggler_rate > 0) != (self.straggler_slowdown > 1), "straggler_rate",
             "straggler_rate and straggler_slowdown act together", "give both, or neither"),
            (self.rebalance is not None and self.looks < 2, "rebalance", "there is no second look at the load",
             "routing_every: steps between two looks"),
            (bool(self.routing_every) and self.looks > MOST_LOOKS, "routing_every",
             f"routing would be looked up {self.looks} times; at most {MOST_LOOKS}",
             f"routing_every: {-(-self.steps // MOST_LOOKS)} or more"),
        ):  # fmt: skip
            if wrong:
                raise BadInput(what, where=f"run.{key}", way_out=way_out)
        if self.rebalance:
            self.rebalance.policy("run.rebalance", 0, redundant=False)

    @property
    def looks(self) -> int:
        """How often routing is looked up."""
        return -(-self.steps // self.routing_every) if self.routing_every else 1

    @property
    def numbers(self) -> list[int]:
        """Steps at which it is."""
        return [look * (self.routing_every or 0) for look in range(self.looks)]

    def rates(self, job: Job) -> dict[str, float]:
        """Failures a second of all that there is of a kind."""
        nodes = -(-job.world // job.cluster.gpus_per_node)
        each = {"gpu": (self.gpu_mtbf, job.world), "nic": (self.nic_mtbf, job.world), "node": (self.node_mtbf, nodes)}
        return {name: number / mtbf for name, (mtbf, number) in each.items() if mtbf}


class Drawn(NamedTuple):
    """A number of each trial, in order: those of two runs whose settings differ are pairs. unseen: by how much their
    mean may be off, beside what they spread, through what happens in none of them.
    """

    values: Seconds64
    unit: str
    unseen: float = 0.0


class RunTold(NamedTuple):
    """What a Result says of a run."""

    metrics: dict[str, Metric]
    drawn: dict[str, Drawn]
    provenance: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Run:
    section: RunSection
    job: Job
    looks: Sequence[Look]
    state_bytes: tuple[float, float]  # written, read

    @property
    def write(self) -> float:
        return self.state_bytes[0] / self.section.checkpoint_rate

    @property
    def read(self) -> float:
        """Seconds of reading a checkpoint: replicas read what they wrote parts of each."""
        return self.state_bytes[1] / self.section.checkpoint_rate

    @property
    def back(self) -> float:
        """Seconds from a failure until it goes on."""
        return (self.section.restart or 0.0) + self.read

    @property
    def seconds(self) -> Seconds64:
        """float64[steps], without stragglers; experts move before the first of those that follow a look."""
        taken = self._steps([look.seconds for look in self.looks])
        taken[self.section.numbers] += [look.stall for look in self.looks]
        return taken

    @property
    def useful(self) -> float:
        """Seconds of the steps alone."""
        return float(self._steps([look.seconds for look in self.looks]).sum())

    @property
    def saved(self) -> float:
        """Seconds that a run would be longer in which no expert moves, without stragglers and failures."""
        return float(self._steps([look.still for look in self.looks]).sum() - self.seconds.sum())

    def _steps(self, looks: Sequence[float]) -> Seconds64:
        """A number of each look -> of each step."""
        each = self.section.routing_every or self.section.steps
        return np.repeat(np.array(looks), each)[: self.section.steps]

    @property
    def slow(self) -> float:
        """Chance that a step meets a straggler."""
        return 1.0 - (1.0 - self.section.straggler_rate) ** self.job.world

    @property
    def longer(self) -> float:
        """What stragglers make of a step on average."""
        return 1.0 + self.slow * (self.section.straggler_slowdown - 1.0)

    @property
    def young(self) -> int | None:
        """Steps between two checkpoints by Young's formula."""
        rate = sum(self.section.rates(self.job).values())
        if not rate:
            return None
        mean = float(self.seconds.mean()) * self.longer
        return max(1, min(round(young_seconds(self.write, 1.0 / rate) / mean), self.section.steps))

    @property
    def every(self) -> int:
        given = self.section.checkpoint_every
        return min(given if isinstance(given, int) else self.young or self.section.steps, self.section.steps)

    @property
    def mean(self) -> LongRun:
        """Of steps as long as stragglers make them on average."""
        return LongRun(self.seconds * self.longer, self.every, self.write, self.back, self.section.rates(self.job))

    def trials(self) -> Iterator[tuple[Trial, float]]:
        """Each with the seconds that stragglers add."""
        section, plain = self.section, self.seconds
        for trial in range(section.trials):
            taken = slowed(plain, self.slow, section.straggler_slowdown, streams.stream(trial, "stragglers"))
            one = LongRun(taken, self.every, self.write, self.back, section.rates(self.job))
            yield one.trial(streams.stream(trial, "failures")), float(taken.sum() - plain.sum())


def run_told(
    section: RunSection, job: Job, state_bytes: tuple[float, float], looks: Sequence[Look],
    prices: PricesSection | None,
) -> RunTold:  # fmt: skip
    """looks: of each of `section.numbers`; state_bytes: what the fullest GPU writes, and reads. Raises BadInput."""
    whole = _Run(section, job, looks, state_bytes)
    found = list(whole.trials())
    drawn = _drawn(whole, found)
    drawn |= _paid(prices, drawn["run_s"], job.world)
    metrics = {name: _mean(one) for name, one in drawn.items()}
    metrics |= _moving(whole) if section.rebalance else {}
    metrics["checkpoint_s"] = Metric(whole.write, "s")
    metrics |= {"checkpoint_read_s": Metric(whole.read, "s")} if section.fails else {}
    metrics["checkpoint_every_steps"] = Metric(float(whole.every), "1")
    notes = (NOTE, ASSUMED) if section.fails else (NOTE,)
    return RunTold(metrics, drawn, {"run": _provenance(whole, found)}, notes)


def _moving(whole: _Run) -> dict[str, Metric]:
    """What moving experts costs, and what it saves after that."""
    looks = whole.looks
    numbers = {
        "rebalances": (sum(look.moves > 0 for look in looks), "1"),
        "moved_experts": (sum(look.moves for look in looks), "1"),
        "moved_bytes": (sum(look.moved for look in looks), "B"),
        "rebalance_stall_s": (sum(look.stall for look in looks), "s"), "rebalance_gain_s": (whole.saved, "s"),
    }  # fmt: skip
    return {name: Metric(float(value), unit) for name, (value, unit) in numbers.items()}


def _each(found: Sequence[tuple[Trial, float]], of: Callable[[Played], float]) -> Seconds64:
    """A number of runs -> float64[trials] what it is of each."""
    return np.array([trial.mean(of) for trial, _ in found])


def _failed(kind: str, played: Played) -> float:
    return played.failures[kind]


def _drawn(whole: _Run, found: Sequence[tuple[Trial, float]]) -> dict[str, Drawn]:
    tokens, slower = whole.job.tokens * whole.section.steps, np.array([more for _, more in found])

    def of(value: Callable[[Played], float], unit: str = "s") -> Drawn:
        return Drawn(_each(found, value), unit, _failures(whole, found, value) + _stragglers(whole, found, value))

    return {
        "run_s": of(lambda one: one.wall),
        "run_checkpoint_s": of(lambda one: one.writing),
        "run_lost_s": of(lambda one: one.lost),
        "run_restart_s": of(lambda one: one.restarting),
        "run_straggler_s": Drawn(slower, "s", 0.0 if slower.any() else _slower(whole)),
        "run_goodput": of(lambda one: whole.useful / one.wall, "1"),
        "run_tokens_per_s": of(lambda one: tokens / one.wall, "tok/s"),
        "run_failures": of(lambda one: sum(one.failures.values()), "1"),
    }


def _failures(whole: _Run, found: Sequence[tuple[Trial, float]], value: Callable[[Played], float]) -> float:
    """What failures after the first may change that few trials have, or none: as many more as a run may have at most,
    each about as much as those that are seen. Where half of the trials have some, their spread says it.
    """
    counts = np.array([sum(trial.failing.failures.values()) for trial, _ in found])
    again = int((counts > 1).sum())
    if not counts.all() or 2 * again >= len(found):
        return 0.0
    chance = min(whole.mean.again, most_likely(again, len(found)))
    more = chance / (1.0 - chance) - float(counts.mean() - 1.0)
    each = [trial.chance * abs(value(trial.failing) - value(trial.calm)) for trial, _ in found]
    return max(more, 0.0) * float((each / counts).max())


def _stragglers(whole: _Run, found: Sequence[tuple[Trial, float]], value: Callable[[Played], float]) -> float:
    """Where no trial has one: what as many as are expected would change."""
    if any(more for _, more in found):
        return 0.0
    calm = found[0][0].calm
    return abs(value(replace(calm, wall=calm.wall + _slower(whole))) - value(calm))


def _slower(whole: _Run) -> float:
    """Seconds that stragglers add on average."""
    return float(whole.seconds.sum()) * (whole.longer - 1.0)


def _mean(drawn: Drawn) -> Metric:
    """Mean over trials with its 95 % interval; of a single trial nothing says how far others are from it."""
    middle = float(drawn.values.mean())
    if len(drawn.values) == 1:
        return Metric(middle, drawn.unit)
    half = half_width(drawn.values) + drawn.unseen
    return Metric(middle, drawn.unit, max(middle - half, 0.0), middle + half)


def _paid(prices: PricesSection | None, run: Drawn, gpus: int) -> dict[str, Drawn]:
    """run: seconds of each trial."""
    if prices is None:
        return {}
    energy = (prices.gpu_watts or 0.0) / KILO  # of a GPU in an hour
    each = {"run_cost": ((prices.gpu_hour or 0.0) + energy * prices.kilowatt_hour, "1"), "run_energy": (energy, "kWh")}
    asked = {"run_cost": prices.gpu_hour, "run_energy": prices.gpu_watts}
    hours = gpus / HOUR
    return {
        name: Drawn(run.values * hours * rate, unit, run.unseen * hours * rate)
        for name, (rate, unit) in each.items() if asked[name]
    }  # fmt: skip


def _provenance(whole: _Run, found: Sequence[tuple[Trial, float]]) -> dict[str, Any]:
    rates = whole.section.rates(whole.job)
    return {
        "series": [
            {"step": number, "step_time_s": look.seconds, **(_moves(look) if whole.section.rebalance else {})}
            for number, look in zip(whole.section.numbers, whole.looks, strict=True)
        ],
        "failures": {kind: float(_each(found, partial(_failed, kind)).mean()) for kind in rates},
        "mtbf_s": 1.0 / sum(rates.values()) if rates else None,
        "young_every_steps": whole.young,
        "daly_run_s": whole.mean.expected,
    }  # fmt: skip


def _moves(look: Look) -> dict[str, Any]:
    """What a look of a series says of experts that move."""
    return {"still_step_time_s": look.still, "stall_s": look.stall, "moved_experts": look.moves}
