"""The verdict: predicted against measured passes, beside how well the measured ones repeat themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from moesim.calibration.measure.local import on_local_ranks
from moesim.calibration.truth.predict import fit, low, predict
from moesim.calibration.truth.rank import KERNELS, WHOLE, Name, Samples, sample_rank
from moesim.calibration.truth.setting import Setting

BAR: Final = 0.10  # of every held-out pass that repeats
GATE: Final = 0.15  # where continuous integration fails
REPEATS: Final = 0.05  # halves of a pass's samples differ by no more, or there is no truth to compare with
Standing = Literal["within the bar", "above the bar", "above the gate", "INCONCLUSIVE"]


@dataclass(frozen=True)
class Cell:
    """One held-out routing, kernel and rank: CPU seconds at the 10 % quantile, and of the odd and the even samples."""

    name: Name
    rank: int
    measured: float
    predicted: float
    split_half: float

    @property
    def error(self) -> float:
        """Signed and relative."""
        return self.predicted / self.measured - 1

    @property
    def repeats(self) -> bool:
        """Whether there is a truth to compare with."""
        return abs(self.split_half) <= REPEATS


@dataclass(frozen=True)
class Verdict:
    """All cells. A cell that does not repeat is not judged; a run in which most do not is INCONCLUSIVE."""

    cells: tuple[Cell, ...]

    @property
    def judged(self) -> tuple[Cell, ...]:
        """Those that repeat."""
        return tuple(cell for cell in self.cells if cell.repeats)

    @property
    def median_error(self) -> float:
        """Of the absolute errors of all judged cells, NaN without any."""
        return float(np.median([abs(cell.error) for cell in self.judged])) if self.judged else float("nan")

    @property
    def worst_error(self) -> float:
        """The largest absolute error of a judged cell, NaN without any."""
        return max((abs(cell.error) for cell in self.judged), default=float("nan"))

    @property
    def worst_of_all(self) -> float:
        """The largest absolute error of any cell, judged or not."""
        return max(abs(cell.error) for cell in self.cells)

    @property
    def split_half(self) -> float:
        """Median over all cells."""
        return float(np.median([abs(cell.split_half) for cell in self.cells]))

    @property
    def outcome(self) -> Standing:
        """In words."""
        if 2 * len(self.judged) <= len(self.cells):
            return "INCONCLUSIVE"
        if self.worst_error > GATE:
            return "above the gate"
        return "above the bar" if self.worst_error > BAR else "within the bar"

    @property
    def summary(self) -> str:
        """One line."""
        return (
            f"{self.outcome}: held-out error worst {self.worst_error:.1%}, median {self.median_error:.1%}, over "
            f"the {len(self.judged)} of {len(self.cells)} that repeat (bar {BAR:.0%}, gate {GATE:.0%}); worst of all "
            f"{self.worst_of_all:.1%}; halves of a pass's samples differ by {self.split_half:.1%} in the median"
        )

    @property
    def text(self) -> str:
        """A line a cell, then the summary."""
        head = "layer  kernel   rank  measured   predicted  error   halves differ"
        return "\n".join((head, *(_line(cell) for cell in self.cells), self.summary))

    def metrics(self) -> dict[str, dict[str, Any]]:
        """For `--json`; a value is None where nothing repeats."""
        judged = {"worst_error": self.worst_error, "median_error": self.median_error} if self.judged else {}
        values: dict[str, float | None] = {"worst_error": None, "median_error": None, **judged}
        values |= {
            "worst_error_of_all": self.worst_of_all,
            "split_half": self.split_half,
            "passes": len(self.cells),
            "passes_that_repeat": len(self.judged),
        }
        units = {"passes": "1", "passes_that_repeat": "1"}
        return {f"truth_{name}": {"value": v, "unit": units.get(name, "fraction")} for name, v in values.items()}


def _line(cell: Cell) -> str:
    mark = "" if cell.repeats else "  INCONCLUSIVE"
    times = f"{cell.measured * 1e3:8.3f} ms {cell.predicted * 1e3:8.3f} ms"
    place = f"{cell.name.routing.layer:<5}  {cell.name.kernel:<7}  {cell.rank:<4}"
    return f"{place} {times}  {cell.error:+6.1%}  {cell.split_half:+6.1%}{mark}"


def truth_loop(setting: Setting) -> Verdict:
    """Measure, fit, predict, compare: about a quarter of a minute on two idle cores."""
    return judge(setting, on_local_ranks(sample_rank, setting.world, setting))


def judge(setting: Setting, ranks: Sequence[Samples]) -> Verdict:
    """Costs of the stages on fitted routings against whole passes over held-out ones."""
    costs = fit(setting, ranks)
    cells = []
    for routing in setting.held_out:
        for kernel in KERNELS:
            for one in ranks:
                name = Name(routing, kernel, WHOLE)
                seconds = one.seconds[name]
                halves = low(seconds[::2]) / low(seconds[1::2]) - 1
                predicted = predict(costs, setting, routing, kernel, one.rank)
                cells.append(Cell(name, one.rank, low(seconds), predicted, halves))
    return Verdict(tuple(cells))
