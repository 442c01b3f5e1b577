"""Rebalancing on a history: would following the load have paid, and how?

Recordings in the order of their names are the past. Each is served by what was decided before it; four ways to decide
are played: keep the first plan, EPLB anew on the last window (what engines do), few moves on all windows so far, and a
new plan on all windows so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.network import Fabric
from moesim.placement import PlacementProblem, Windows, plan
from moesim.placement.different import clusters, one_each
from moesim.placement.formats import Frame
from moesim.placement.online import Policy, Replayed, replay, value
from moesim.studies.placing.options import Options
from moesim.studies.placing.recordings import RecordedFile
from moesim.studies.result import Metric
from moesim.units import show_bytes, show_seconds

FEW: Final = 0.05  # of the slots that one change may move
KEEP, LAST, SOME, ALL = "keep the first plan", "eplb on the last window", "few moves on the history", "plan anew on it"
POLICIES: Final[Mapping[str, Policy]] = {
    KEEP: Policy(1, 1, 0.99, None, "eplb"),
    LAST: Policy(1, 1, 0.0, None, "eplb"),
    SOME: Policy(1, None, 0.0, FEW, "incremental"),
    ALL: Policy(1, None, 0.0, None, "multiwindow"),
}
LEAST: Final = 0.005  # gain below which moving is not spoken of


@dataclass(frozen=True)
class History:
    """played: way -> what it would have reached; kin: the regime of each window, numbered from 0 as they come; apart:
    how far one static plan for all regimes is above a plan for each of them; slots: of all layers; step: seconds saved
    a step by a unit of the objective, None where no step is known; placement: what stands at the end of few moves.
    """

    played: Mapping[str, Replayed]
    kin: tuple[int, ...]
    names: tuple[str, ...]
    apart: float
    slots: int
    step: float | None
    placement: Placement
    frame: Frame
    provenance: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def regimes(self) -> int:
        """Number of different loads."""
        return len(set(self.kin))

    def mean(self, way: str) -> float:
        """Objective on the windows that came after a decision."""
        return float(self.played[way].objective[1:].mean())

    def moved(self, way: str) -> float:
        """Share of the slots that a change moves, on average."""
        changes = self.played[way].changes
        return sum(one.decision.moves for one in changes) / len(changes) / self.slots if changes else 0.0

    @property
    def gain(self) -> float:
        """Of few moves on the history over keeping what stands."""
        return 1 - self.mean(SOME) / self.mean(KEEP)

    @property
    def pays(self) -> bool:
        """Whether following the load with few moves beats what stands; after how many steps is said beside it."""
        return self.gain > LEAST

    def text(self) -> str:
        """The answer in words."""
        loads = "one regime" if self.regimes == 1 else f"{self.regimes} regimes"
        static = f"one static plan for all is {self.apart:.1%} from planning for each"
        answer = "pays" if self.pays else "does not pay"
        few, last = self.mean(SOME), self.mean(LAST)
        cost = (
            f"moving {self.moved(SOME):.1%} of the slots at a time on all windows so far reaches {few:.3f} on the next"
        )
        beside = f"EPLB on the last window {last:.3f} with {self.moved(LAST):.0%} moved, keeping {self.mean(KEEP):.3f}"
        return f"Your load comes in {loads}; {static}. Rebalancing {answer}: {cost}, {beside}.{self._price()}"

    def _price(self) -> str:
        """Bytes, stall and break-even of a change, where links and sizes are known."""
        costs = [one.migration for one in self.played[SOME].changes if one.migration]
        if not costs:
            return " Bytes and stall are not known: no step was played."
        size, stall = np.mean([one.bytes for one in costs]), np.mean([one.seconds for one in costs])
        text = f" A change moves {show_bytes(float(size))} and stalls {show_seconds(float(stall))}"
        saved = 0.0 if self.step is None else (self.mean(KEEP) - self.mean(SOME)) * self.step
        return f"{text}, won back after {_steps(float(stall) / saved)}." if saved > 0 else f"{text}."

    def _moved_each(self, one: Replayed) -> list[float]:
        """Share of the slots that move after each window."""
        shares = np.zeros(len(self.names))
        for change in one.changes:
            shares[change.window] = change.decision.moves / self.slots
        moved: list[float] = shares.tolist()
        return moved

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        metrics = {"gain_over_keeping": Metric(self.gain, "1"), "static_gap": Metric(self.apart, "1"),
                   "gain_over_eplb": Metric(1 - self.mean(SOME) / self.mean(LAST), "1"),
                   "moved": Metric(self.moved(SOME), "1"), "objective": Metric(self.mean(SOME), "1")}  # fmt: skip
        rows = [
            {"way": way, "objective": self.mean(way), "moved": self.moved(way), "changes": len(one.changes),
             "moves": one.moves, "stall_s": one.stall_s, "each": one.objective.tolist(), "bytes": _bytes(one),
             "moved_each": self._moved_each(one)}
            for way, one in self.played.items()
        ]  # fmt: skip
        return {
            "metrics": {name: {"value": one.value, "unit": one.unit} for name, one in metrics.items()},
            "breakdown": {},
            "verdict": {"answer": "yes" if self.pays else "no", "regimes": self.regimes, "text": self.text()},
            "ways": rows,
            "provenance": {**self.provenance, "windows": list(self.names), "regimes": list(self.kin)},
            "warnings": list(self.notes),
        }


def _steps(count: float) -> str:
    """ "1 step", "1,200 steps": whole ones."""
    whole = int(np.ceil(count))
    return "1 step" if whole == 1 else f"{whole:,} steps"


def _bytes(one: Replayed) -> int | None:
    """Of all changes of a way, None where no step is known."""
    costs = [change.migration for change in one.changes]
    return None if None in costs else sum(cost.bytes for cost in costs if cost)


def _numbered(kin: list[int]) -> tuple[int, ...]:
    """Names of clusters -> numbers from 0 on, in the order in which they come."""
    names = list(dict.fromkeys(kin))
    return tuple(names.index(one) for one in kin)


def follow(
    problem: PlacementProblem, found: tuple[RecordedFile, ...], frame: Frame, options: Options,
    fabric: Fabric | None = None, expert_bytes: int = 0, step: float | None = None,
) -> History:  # fmt: skip
    """Play all ways on the recordings, in the order of their names. Raises BadInput for fewer than three."""
    if len(found) < 3:
        raise BadInput(
            f"{len(found)} recordings are no history", where="--history", way_out="three or more, one a window"
        )
    ordered = sorted(found, key=lambda one: one.name)
    loads = [one.load for one in ordered]
    windows = Windows("history", one_each(loads, range(len(loads))))
    start = problem.previous or plan(problem.with_train(windows.only(0, 1, "first")), "eplb").placement
    problem = replace(problem, previous=None, move_budget=None, clock=None)
    played = {
        way: replay(policy, problem, start, windows, fabric=fabric, expert_bytes=expert_bytes)
        for way, policy in POLICIES.items()
    }
    kin = clusters(loads)
    slots = start.num_slots * start.num_layers
    facts = {"topology": options.topology, "gpus": options.gpus, "objective": problem.objective.name,
             "dispatch_over_replicas": problem.dispatch.name, "trace": options.trace}  # fmt: skip
    return History(
        played, _numbered(kin), tuple(one.name for one in ordered), _apart(problem, one_each(loads, kin)), slots, step,
        played[SOME].placement, frame, facts,
    )  # fmt: skip


def _apart(problem: PlacementProblem, loads: np.ndarray[Any, np.dtype[np.int64]]) -> float:
    """int64[regimes, layers, experts] -> how far one plan for all is above a plan for each, on each."""
    together = plan(problem.with_train(Windows("all", loads)), "multiwindow").placement
    shared, own = [], []
    for load in loads:
        alone = problem.with_train(Windows("one", load[None]))
        own.append(min(value(alone, plan(alone, name).placement) for name in ("lpt", "multiwindow")))
        shared.append(value(alone, together))
    return float(np.mean(shared) / np.mean(own) - 1)
