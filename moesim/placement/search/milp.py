"""Mixed-integer programs: the one place that speaks to PuLP, written for PuLP 3.3 and 4 alike.

A Program is arrays. PuLP says "Optimal" also where a solver merely hit its time limit, and a solver may return values
outside their limits (coin-or/pulp issue 711), so words are not believed: every bound and row is checked again on the
values that came back, and optimal means that the solver's own dual bound meets them.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput

Floats = npt.NDArray[np.float64]
TOLERANCE, CLOSE = 1e-6, 1e-6  # of rows, relative to their size; of an objective that counts as proved
SOLVERS = {"highs": "HiGHS", "cbc": "COIN_CMD"}


class Row(NamedTuple):
    """least <= sum of weight x column <= most."""

    columns: Sequence[int]
    weights: Sequence[float]
    least: float
    most: float


@dataclass
class Program:
    """Minimise the sum of cost x column; columns lie in 0 .. upper, whole where `whole`."""

    cost: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def columns(self, *shape: int, upper: float = 1.0, whole: bool = True) -> npt.NDArray[np.int64]:
        """int64[shape]: new columns without cost."""
        count, first = int(np.prod(shape)), len(self.cost)
        self.cost += [0.0] * count
        self.upper += [upper] * count
        self.whole += [whole] * count
        return np.arange(first, first + count).reshape(shape)

    def row(
        self, columns: npt.ArrayLike, weights: npt.ArrayLike, *, least: float = -np.inf, most: float = np.inf
    ) -> None:  # fmt: skip
        """One row; weights are broadcast over the columns."""
        where = np.asarray(columns).ravel()
        weight = np.broadcast_to(np.asarray(weights, dtype=np.float64), where.shape)
        self.rows.append(Row(where.tolist(), weight.tolist(), float(least), float(most)))

    def value(self, values: Floats) -> float:
        """The objective."""
        return float(np.dot(self.cost, values))

    def broken(self, values: Floats) -> str:
        """The first limit that values break, "" where they keep all."""
        upper, whole = np.array(self.upper), np.array(self.whole, dtype=bool)
        outside = (values < -TOLERANCE) | (values > upper * (1 + TOLERANCE) + TOLERANCE)
        outside |= whole & (np.abs(values - np.round(values)) > TOLERANCE)
        if outside.any():
            column = int(outside.argmax())
            return f"column {column} is {values[column]:g}"
        for number, row in enumerate(self.rows):
            terms = np.array(row.weights) * values[row.columns]
            slack = TOLERANCE * max(float(np.abs(terms).sum()), 1.0)
            if not row.least - slack <= terms.sum() <= row.most + slack:
                return f"row {number} is {terms.sum():g}, not in {row.least:g} .. {row.most:g}"
        return ""


class Solved(NamedTuple):
    """values that keep all limits, or None; a dual bound, -inf where there is none; whether the two meet; a remark."""

    values: Floats | None
    bound: float
    optimal: bool
    remark: str = ""


def solve(
    program: Program, seconds: float, solver: str = "highs", stop: Callable[[], bool] = lambda: False
) -> Solved:  # fmt: skip
    """At most `seconds` of wall clock, less where `stop` says so. Raises BadInput where the solver is not installed."""
    import pulp

    name = SOLVERS[solver]
    model, columns = _model(pulp, program)
    begun, seen = time.monotonic(), [-np.inf]
    try:
        engine = _engine(pulp, name, seconds, stop, seen)
        with _stdout_to_stderr():
            answer = model.solve(engine)
    except pulp.PulpError as error:
        return Solved(None, -np.inf, False, f"{solver} failed: {error}")
    found = [column.varValue for column in columns]
    bound = max(seen[0], _dual_bound(model, answer))
    if (
        name != "HiGHS" and getattr(model, "sol_status", None) == 1 and None not in found
    ):  # 1: proved, 2: a limit was hit
        bound = program.value(np.array(found, dtype=np.float64))
    return _checked(program, found, bound, solver, time.monotonic() - begun >= seconds)


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """HiGHS prints a banner whatever its options say; stdout belongs to the answer (`--json`)."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


def _model(pulp: Any, program: Program) -> tuple[Any, list[Any]]:
    model = pulp.LpProblem("placement", pulp.LpMinimize)
    columns = [
        model.add_variable(f"x{n}", 0, upper if np.isfinite(upper) else None, "Integer" if whole else "Continuous")
        for n, (upper, whole) in enumerate(zip(program.upper, program.whole, strict=True))
    ]
    model += pulp.LpAffineExpression([(columns[n], cost) for n, cost in enumerate(program.cost) if cost])
    for row in program.rows:
        total = [(columns[n], weight) for n, weight in zip(row.columns, row.weights, strict=True) if weight]
        if row.least == row.most:
            model += pulp.LpAffineExpression(total) == row.most
            continue
        if np.isfinite(row.least):
            model += pulp.LpAffineExpression(total) >= row.least
        if np.isfinite(row.most):
            model += pulp.LpAffineExpression(total) <= row.most
    return model, columns


def _engine(pulp: Any, name: str, seconds: float, stop: Callable[[], bool], seen: list[float]) -> Any:
    if name not in pulp.listSolvers(onlyAvailable=True):
        raise BadInput(f"solver {name} is not installed", way_out="pip install highspy, or the package coinor-cbc")
    if name != "HiGHS":
        return pulp.getSolver(name, msg=False, timeLimit=seconds)
    from highspy import cb

    def watch(kind: Any, message: str, out: Any, back: Any, user: Any) -> None:
        """Called by the solver between nodes, on the thread that called it: Python handles its signals here."""
        seen[0] = max(seen[0], out.mip_dual_bound) if abs(out.mip_dual_bound) < 1e29 else seen[0]
        back.user_interrupt = stop()

    class Watched(pulp.HiGHS):  # type: ignore[misc]
        """PuLP would hand callbacks over before it turns the log off."""

        def callSolver(self, model: Any) -> None:
            model.solverModel.setCallback(watch, None)
            model.solverModel.startCallback(cb.HighsCallbackType.kCallbackMipInterrupt)
            super().callSolver(model)

    return Watched(msg=False, timeLimit=seconds, threads=1, gapRel=CLOSE / 10)


def _dual_bound(model: Any, answer: Any) -> float:
    """HiGHS's, of PuLP 3's model or PuLP 4's statistics; -inf from solvers that tell PuLP none."""
    told = getattr(answer, "best_bound", None)
    if told is None and hasattr(getattr(model, "solverModel", None), "getInfo"):
        told = model.solverModel.getInfo().mip_dual_bound
    return float(told) if told is not None and np.isfinite(told) and abs(told) < 1e29 else -np.inf


def _checked(program: Program, found: list[float | None], bound: float, solver: str, late: bool) -> Solved:
    nothing = f"{solver} found nothing better{' within its time limit' if late else ''}"
    if any(value is None for value in found):
        return Solved(None, bound, False, nothing)
    values = np.array(found, dtype=np.float64)
    whole = np.array(program.whole, dtype=bool)
    near = np.where(whole & (np.abs(values - np.round(values)) <= TOLERANCE), np.round(values), values)
    broken = program.broken(near)
    if broken and not any(found):  # what HiGHS leaves where it has no values
        return Solved(None, bound, False, nothing)
    if broken:
        return Solved(None, bound, False, f"{solver} returned values that break the limits: {broken}")
    value = program.value(near)
    optimal = value - bound <= CLOSE * max(abs(value), 1.0)
    return Solved(near, bound, optimal, "" if optimal else f"{solver} stopped before a proof")
