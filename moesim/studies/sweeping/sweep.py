"""`sweep`: a plan's points, each read from the store or run, into a table."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from moesim import atomic
from moesim.errors import BadInput, MoesimError, unknown_name
from moesim.studies import fronts
from moesim.studies.fronts import Goal
from moesim.studies.shown import Rows, Tabular
from moesim.studies.sweeping import table
from moesim.studies.sweeping.axes import Interval
from moesim.studies.sweeping.design import Design
from moesim.studies.sweeping.executor import LOST, Answer, Executor, Here, Pool, Processes
from moesim.studies.sweeping.on_ray import Ray
from moesim.studies.sweeping.on_slurm import Slurm
from moesim.studies.sweeping.plan import Digests, Plan, Point, plan_of
from moesim.studies.sweeping.store import PLAN, Kept, Record, Store, packed, unpacked
from moesim.version import __version__

FOLDER: Final = Path("sweeps")
OK, INFEASIBLE, AGAIN = 0, 3, frozenset({LOST, 75})  # codes of records; AGAIN: another try may end otherwise
NEARLY: Final = 0.8  # likeness of a mistyped name (difflib): `step_time` 0.86, `ttft` to `mean_ttft_ms` 0.5
STATES: Final = {0: "ok", 2: "refused", 3: "does not fit", 5: "deadlock", 70: "defect", 75: "try again", LOST: "lost"}
Engine = Literal["local", "ray", "slurm"]  # what runs points
Tell = Callable[[int, int, int], None]  # points that are there, in all, of them run now


class Front(NamedTuple):
    """Points that no other beats in all goals: their numbers, and how good they are as a whole (see studies/fronts)."""

    goals: tuple[Goal, ...]
    points: tuple[int, ...]
    hypervolume: float
    r2: float

    def to_json(self) -> dict[str, Any]:
        """As metrics."""
        found = {"front_points": len(self.points), "hypervolume": self.hypervolume, "r2": self.r2}
        return {name: {"value": value, "unit": "1"} for name, value in found.items()}


@dataclass(frozen=True)
class Sweep(Tabular):
    """Every point's record, in the plan's order. ran: of them run now; damaged: read with a wrong checksum, and run
    again.
    """

    plan: Plan
    folder: Path
    points: tuple[Point, ...]
    kept: tuple[Kept, ...]
    ran: int
    damaged: int = 0
    warned: tuple[str, ...] = ()

    @property
    def done(self) -> list[tuple[Point, Kept]]:
        """Points that have numbers."""
        return [(p, one) for p, one in zip(self.points, self.kept, strict=True) if one.code == OK]

    @property
    def failed(self) -> list[tuple[Point, Kept]]:
        """Points that have none."""
        return [(p, one) for p, one in zip(self.points, self.kept, strict=True) if one.code != OK]

    @property
    def exit_code(self) -> int:
        """0 where every point ran or does not fit, else the worst of the codes."""
        codes = [70 if one.code == LOST else one.code for _, one in self.failed]
        return max((code for code in codes if code != INFEASIBLE), default=0)

    def values(self, metric: str, where: str = "--show") -> list[float | None]:
        """A metric of every point, None where it failed or has none. Raises BadInput for a name no point has."""
        found = [value_of(one, metric) for one in self.kept]
        if self.done and all(value is None for value in found):
            known = {name for _, one in self.done for name in one.record["metrics"]}
            raise unknown_name("metric", metric, known, where=where)
        return found

    def front(self, goals: tuple[Goal, ...]) -> Front:
        """Of the points that have all of these metrics. Raises BadInput for names no point has."""
        columns = [self.values(goal.metric, "--front") for goal in goals]
        able = [row for row in range(len(self.points)) if all(column[row] is not None for column in columns)]
        if not able:
            raise BadInput("no point has numbers", where="--front", way_out="`reason` in results.csv says why")
        found = fronts.quality(fronts.as_goals([[column[row] or 0.0 for row in able] for column in columns], goals))
        return Front(goals, tuple(able[row] for row in found.front), found.hypervolume, found.r2)

    def rows(self) -> Rows:
        """A row a point: axes, seed, state, metrics and parts of the breakdown."""
        return table.rows(self.plan.keys, self.points, self.kept)

    def title(self) -> str:
        """ "demo: 12 points, 11 ok" """
        return f"{self.plan.subject.name}: {len(self.points)} points, {len(self.done)} ok"

    def said_with(self) -> Sequence[str]:
        """What has to be said beside the numbers."""
        return [*self._notes(), *self.warned]

    def _notes(self) -> Iterator[str]:
        if self.damaged:
            yield f"{self.damaged} stored point(s) were damaged (their checksum differs) and were run again"
        if self.plan.asked > len(self.points):
            yield f"{self.plan.asked} points were asked for, {len(self.points)} of them differ: equal ones are run once"
        if self.plan.quality:
            yield self.plan.quality.said
        for point, one in self.failed[:3]:
            where = ", ".join(point.overrides) or "the point"
            yield f"{where}, seed {point.seed}: {STATES.get(one.code, one.code)}: {one.record['reason']}"
        if len(self.failed) > 3:
            yield f"{len(self.failed) - 3} more points have no numbers: see `reason` in {self.folder}/results.csv"

    def to_json(self, front: Front | None = None) -> dict[str, Any]:
        """The document that `--json` prints."""
        counts = {"points": len(self.points), "points_ok": len(self.done), "points_failed": len(self.failed)}
        return {
            "metrics": {name: {"value": value, "unit": "1"} for name, value in counts.items()}
            | (front.to_json() if front else {}),
            **({"front": list(front.points)} if front else {}),
            "breakdown": {},
            "points": [dict(row) for row in self.rows()],
            "provenance": {
                "moesim": __version__,
                "kind": "sweep",
                "scenario": self.plan.subject.name,
                "mode": self.plan.subject.mode,
                "design": self.plan.design,
                "axes": {
                    axis.key: str(axis.values) if isinstance(axis.values, Interval) else list(axis.values)
                    for axis in self.plan.axes
                },
                "folder": str(self.folder),
                **({"quality": self.plan.quality.to_json()} if self.plan.quality else {}),
            },
            "warnings": list(self.said_with()),
        }


def value_of(one: Kept, metric: str) -> float | None:
    """A metric, or a part of the breakdown, of a point."""
    if metric in one.record["metrics"]:
        return float(one.record["metrics"][metric]["value"])
    found = one.record["breakdown"].get(metric)
    return None if found is None else float(found)


def sweep(
    plan: Plan, *, jobs: int = 1, engine: Engine = "local", folder: Path | None = None,
    executor: Executor | None = None, tell: Tell = lambda there, of, ran: None, wanted: Sequence[str] = (),
) -> Sweep:  # fmt: skip
    """Run what is not stored yet. engine and jobs: see `executor_of`, where no executor is given. wanted: metrics that
    somebody will ask for. Raises BadInput, TryAgain; a point that fails is recorded, and the others go on.
    """
    owner = hashlib.sha256(json.dumps([plan.subject.mode, plan.subject.base.data], sort_keys=True).encode()).hexdigest()
    store = Store(folder or FOLDER / f"{_plain(plan.subject.name)}-{owner[:12]}", owner)
    points, made = _planned(plan, store)
    joined = [plan.quality.of(plan.setting(point)) for point in points] if plan.quality else []
    slips = [name for name in wanted if not joined or name not in joined[0]]
    runs = executor or executor_of(engine, jobs)
    with store.writing(plan.subject.name):
        if made is not None:
            atomic.write(store.folder / PLAN, made)
        known, damaged = _stored(store, points)
        left = list({point.key: point for point in points if point.key not in known}.values())
        for number, answer in enumerate(_answers(plan, runs, left), start=1):
            known[answer.point.key] = store.write(answer.point.key, answer.code, _record(plan, answer))
            tell(len(points) - len(left) + number, len(points), number)
            if slips and answer.code == OK:
                _refuse_slips(known[answer.point.key], slips)
                slips = []
        kept = [_joined(plan, point, known[point.key]) for point in points]
        warned = table.write(store.folder, plan.keys, points, kept)
    return Sweep(plan, store.folder, tuple(points), tuple(kept), len(left), damaged, warned)


def executor_of(engine: Engine, jobs: int) -> Executor:
    """local: so many processes, 0 for this one alone; ray: so many points at once, 0: as its CPUs allow; slurm: so many
    jobs at once, 0: its USUAL.
    """
    if engine == "local":
        return Processes(jobs) if jobs else Here()
    return Ray(jobs) if engine == "ray" else Slurm(jobs)


@contextmanager
def executing(engine: Engine, jobs: int) -> Iterator[Executor]:
    """The same for several sweeps of one subject: processes stay from one to the next."""
    if engine != "local":
        yield executor_of(engine, jobs)
        return
    with closing(Pool(jobs)) as pool:
        yield pool


def sweep_over(
    scenario: str | Path | Mapping[str, Any], over: Mapping[str, Any], *, design: Design = "cartesian",
    points: int | None = None, seeds: int = 1, seed: int = 0, jobs: int = 1, engine: Engine = "local",
    folder: str | Path | None = None, quality: str | Path | None = None,
) -> Sweep:  # fmt: skip
    """Run a scenario with keys varied, as `moesim sweep` does and into the same store: over: key -> list of values, or
    an interval as text ("0.5..1") that `points` are drawn from; quality: CSV of what is known of them beside. Raises
    BadInput, TryAgain.

    `sweep_over("demo-tiny", {"batch.tokens_per_gpu": [64, 128]}).to_arrow()` is the table.
    """
    table = None if quality is None else Path(quality)
    plan = plan_of(scenario, over, design=design, points=points, seeds=seeds, seed=seed, quality=table)
    return sweep(plan, jobs=jobs, engine=engine, folder=None if folder is None else Path(folder))


def _answers(plan: Plan, executor: Executor, points: Sequence[Point]) -> Iterator[Answer]:
    """What is refused without a run, then what is run."""
    yield from (Answer(point, point.refused[0], reason=point.refused[1]) for point in points if point.refused)
    if able := [point for point in points if not point.refused]:
        yield from executor.run(plan.subject, able)


def _joined(plan: Plan, point: Point, one: Kept) -> Kept:
    return plan.quality.beside(one, plan.setting(point)) if plan.quality else one


def _refuse_slips(one: Kept, wanted: Sequence[str]) -> None:
    """Nobody waits for all points to hear that a name was mistyped: one that the first point has not, and that is
    nearly another, is refused; others may belong to a later point. Raises BadInput.
    """
    known = {*one.record["metrics"], *one.record["breakdown"]}
    for name in wanted:
        if name not in known and difflib.get_close_matches(name, known, n=1, cutoff=NEARLY):
            raise unknown_name("metric", name, known, where="--show or --front")


def _record(plan: Plan, answer: Answer) -> Record:
    """What is kept of a run: no times, so that two stores of one sweep are equal to the byte."""
    kept: Mapping[str, Any] = answer.result or {"metrics": {}, "breakdown": {}, "warnings": []}
    return {
        "scenario": plan.subject.name,
        "overrides": list(answer.point.overrides),
        "seed": answer.point.seed,
        "reason": answer.reason,
        **{name: kept[name] for name in ("metrics", "breakdown", "warnings")},
    }


def _stored(store: Store, points: Sequence[Point]) -> tuple[dict[str, Kept], int]:
    """key -> those that need not be run again, and how many are damaged. Raises BadInput for mixed stores."""
    known: dict[str, Kept] = {}
    damaged = 0
    for point in points:
        kept = store.read(point.key)
        damaged += kept is None and store.damaged(point.key)
        if kept is not None and kept.code not in AGAIN:
            known[point.key] = kept
    return known, damaged


def _planned(plan: Plan, store: Store) -> tuple[list[Point], str | None]:
    """The points, as they were worked out before where nothing has changed since; else text to keep of them. Raises
    BadInput.
    """
    kept, digests = unpacked(store.folder / PLAN), Digests()
    if kept is not None and kept["plan"] == plan.digest and _same(kept["files"], digests):
        return [Point(tuple(o), tuple(v), s, k, tuple(r) if r else None) for o, v, s, k, r in kept["points"]], None
    points = plan.points(digests)
    files = {str(path): digest for path, digest in sorted(digests.known.items())}
    rows = [[p.overrides, p.values, p.seed, p.key, p.refused] for p in points]
    return points, packed({"plan": plan.digest, "files": files, "points": rows})


def _same(files: Mapping[str, str], digests: Digests) -> bool:
    try:
        return all(digests(Path(path)) == digest for path, digest in files.items())
    except MoesimError:
        return False


def _plain(name: str) -> str:
    """A name for a folder."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)[:60] or "sweep"
