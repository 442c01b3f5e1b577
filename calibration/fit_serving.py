"""Fit the constants of each engine's preset to the shipped rows of served models, and print how well they hold.

    python calibration/fit_serving.py [ENGINE ...]

Four constants an engine (`serving_loops.Constants`), of all rows whose flag is ok and whose concurrency is at most
MOST_CLIENTS, by coordinate descent on GRID from each of STARTS and from the preset as it is, the best of which counts:
the mean absolute errors of TTFT and TPOT are added up, the latter twice, as it can be half as large. Then the same
without the rows of each (model, system), from there: LEFT_OUT of `serving_loops.py`. Nothing is written: presets and
LEFT_OUT are edited by hand, with what is printed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache

from moesim import shipped
from moesim.errors import MoesimError
from moesim.studies.validation.rows import Row, number, read_rows
from moesim.studies.validation.serving import COLUMNS, DATA
from moesim.studies.validation.serving_loops import Asked, Constants, played

MOST_CLIENTS = 64  # more of them take most of the time and say the same
GRID = Constants(
    (0, 0.2e-3, 0.4e-3, 0.6e-3, 0.8e-3, 1e-3, 1.25e-3, 1.5e-3, 2e-3, 2.5e-3, 3e-3, 3.5e-3, 4e-3),  # type: ignore[arg-type]
    (0, 0.15e-3, 0.3e-3, 0.6e-3, 1e-3, 1.5e-3, 2e-3, 3e-3),  # type: ignore[arg-type]
    (0, 3e-3, 6e-3, 10e-3, 15e-3, 20e-3, 30e-3, 45e-3, 60e-3, 80e-3, 100e-3),  # type: ignore[arg-type]
    (1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2, 2.2, 2.5),  # type: ignore[arg-type]
)
STARTS = (Constants(0.6e-3, 0.3e-3, 10e-3, 1.3), Constants(2.5e-3, 1e-3, 45e-3, 1.8))


def rows_of(engine: str) -> list[Row]:
    """Those that are fitted to, and can be served."""
    every = [row for _, row in read_rows(shipped.shipped(*DATA), COLUMNS)]
    some = [row for row in every if row["backend"] == engine and row["flag"] == "ok"]
    return [row for row in some if number(row, "concurrency") <= MOST_CLIENTS and _served(row)]


def _served(row: Row) -> bool:
    try:
        played(Asked.of(row), Constants.of(row["backend"]))
    except MoesimError:
        return False
    return True


def error_of(row: Row) -> Callable[[Constants], float]:
    """Of TTFT, and twice of TPOT, by constants; each is played once."""
    asked, first, later = Asked.of(row), number(row, "silicon_ttft_ms"), number(row, "silicon_tpot_ms")

    @cache
    def error(constants: Constants) -> float:
        ttft, tpot = played(asked, constants)
        return abs(ttft / first - 1) + 2 * abs(tpot / later - 1)

    return error


def fit(rows: Sequence[Callable[[Constants], float]], start: Constants) -> tuple[Constants, float]:
    """The least mean error of the rows that single steps on the grid lead to."""
    best = start
    least = sum(error(best) for error in rows) / len(rows)
    moved = True
    while moved:
        moved = False
        for place, values in enumerate(GRID):
            near = sorted(values, key=lambda value: abs(value - best[place]))[:3]  # type: ignore[attr-defined]
            for value in near:
                other = Constants(*best[:place], value, *best[place + 1 :])
                found = sum(error(other) for error in rows) / len(rows)
                if found < least - 1e-6:
                    best, least, moved = other, found, True
    return best, least


def main(engines: Sequence[str]) -> None:
    """Print constants of engines, of all rows and with each (model, system) left out."""
    for engine in engines:
        rows = {row["id"]: row for row in rows_of(engine)}
        errors = {name: error_of(row) for name, row in rows.items()}
        starts = (Constants.of(engine), *STARTS)  # where prompts and API time make up for each other descents end early
        best, least = min((fit(list(errors.values()), start) for start in starts), key=lambda found: found[1])
        print(f"{engine}: {len(rows)} rows, {best}, mean of TTFT's error and twice TPOT's {least:.3f}", flush=True)
        for who in sorted({Asked.of(row).who for row in rows.values()}):
            others = [errors[name] for name, row in rows.items() if Asked.of(row).who != who]
            if others:
                print(f'    "{who}": {tuple(fit(others, best)[0])},', flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["sglang", "trtllm", "vllm"])
