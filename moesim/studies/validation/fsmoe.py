"""FSMoE's four schedules from the operation times of its Table 2, against the speed-ups of its Table 5 and section 6.4.

One number is fitted, on testbed A's FSMoE: how much longer transfers inside and between nodes take while both run.
Testbed B and the models see it as it is. Published are means over 1,458 layers and over whole models; predicted are the
means over the two layers of each testbed whose operations are published.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from moesim.studies.validation.rows import Row, number
from moesim.studies.validation.validation import Point
from moesim.training.expert_streams import POLICIES, Operations, Policy, layer_seconds

FITTED, OTHER, MODELS = "A", "B", "models"
MOST: Final = 3.0  # interference beyond it means that nothing is won by running both: 2 already does
NEAR: Final = 0.005
READING: Final = (
    "FSMoE: all of Table 2's all-gather and reduce-scatter lie between dispatch and combine; without a stream of "
    "their own they share that of the all-to-alls, Tutel's and No-IIO's; gradients go behind the last dispatch and "
    "beside the dense backward pass; start-ups are those of its Figure 5. This reading was chosen among about a "
    "hundred (streams, shares of tensor parallelism, beliefs of the policy) with the published figures of both "
    "testbeds in view: B is held out from the fit, not from that choice"
)


class Table:
    """Operations by testbed and model, start-ups by testbed; seconds."""

    def __init__(self, operations: Sequence[Row], starts: Sequence[Row]) -> None:
        self._ms = {
            (row["testbed"], row["model"], row["direction"], row["operation"]): number(row, "ms") for row in operations
        }
        self._starts = {(row["testbed"], row["operation"]): number(row, "alpha_ms") for row in starts}
        self._models = list(dict.fromkeys(row["model"] for row in operations))

    def speedups(self, testbed: str, interference: float, policies: Sequence[Policy] = POLICIES[1:]) -> list[float]:
        """Over Tutel, mean over models."""
        found = []
        for model in self._models:
            of = [self._seconds(testbed, model, policy, interference) for policy in (POLICIES[0], *policies)]
            found.append([of[0] / seconds for seconds in of[1:]])
        return [sum(each) / len(found) for each in zip(*found, strict=True)]

    def _seconds(self, testbed: str, model: str, policy: Policy, interference: float) -> float:
        forward, backward = (self._pass(testbed, model, direction) for direction in ("forward", "backward"))
        return layer_seconds(policy, (forward, backward), self._start_ups(testbed), interference)

    def _pass(self, testbed: str, model: str, direction: str) -> Operations:
        ms = {name: self._ms.get((testbed, model, direction, name), 0.0) / 1e3 for name in
              ("alltoall_total", "allgather", "experts", "reducescatter", "grad_allreduce", "attention", "routing",
               "order")}  # fmt: skip
        dense = ms["attention"] + ms["routing"] + ms["order"]
        return Operations(
            ms["alltoall_total"], ms["allgather"], ms["experts"], ms["reducescatter"], dense, ms["grad_allreduce"]
        )

    def _start_ups(self, testbed: str) -> Operations:
        of = {name: self._starts[testbed, name] / 1e3 for name in
              ("alltoall", "allgather", "gemm", "reducescatter", "allreduce")}  # fmt: skip
        return Operations(2 * of["alltoall"], of["allgather"], of["gemm"], of["reducescatter"], 0.0, of["allreduce"])


def fitted(table: Table, published: float) -> float:
    """The interference with which FSMoE is as fast over Tutel as on the testbed that it is fitted on: more of it is
    never faster, so by halving.
    """
    low, high = 1.0, MOST
    while high - low > NEAR:
        middle = (low + high) / 2
        found = table.speedups(FITTED, middle, POLICIES[-1:])[0]
        low, high = (middle, high) if found > published else (low, middle)
    return (low + high) / 2


def points(table: Table, published: Sequence[Row]) -> tuple[list[Point], dict[str, str]]:
    """Of every schedule on both testbeds and of models, and what is said of the fit."""
    known = {(row["testbed"], row["schedule"]): number(row, "speedup") for row in published}
    factor = fitted(table, known[FITTED, POLICIES[-1].name])
    with_it, without = (_all(table, one) for one in (factor, 1.0))
    names = [policy.name for policy in POLICIES[1:]]
    found = [
        Point({"paper": "FSMoE", "of": _words(of), "case": f"{name} over Tutel"}, "1", known[of, name], predicted)
        for of in with_it for name, predicted in zip(names, with_it[of], strict=True)
    ]  # fmt: skip
    return found, {"fsmoe_reading": READING, "fsmoe": _told(factor, names, known, with_it, without)}


def _all(table: Table, factor: float) -> dict[str, list[float]]:
    each = {of: table.speedups(of, factor) for of in (FITTED, OTHER)}
    return {**each, MODELS: [sum(pair) / 2 for pair in zip(*each.values(), strict=True)]}


def _words(of: str) -> str:
    return {FITTED: "testbed A, fitted", OTHER: "testbed B", MODELS: "models"}[of]


def _told(
    factor: float, names: Sequence[str], known: Mapping[tuple[str, str], float], with_it: Mapping[str, list[float]],
    without: Mapping[str, list[float]],
) -> str:  # fmt: skip
    def error(of: str, predicted: Sequence[float]) -> str:
        return f"{sum(abs(math.log(p / known[of, n])) for n, p in zip(names, predicted, strict=True)) / len(names):.2%}"

    same = [known[FITTED, name] for name in names]
    parts = [
        f"interference {factor:.3f}, fitted on testbed A; mean absolute log error: "
        + ", ".join(f"{_words(of)} {error(of, with_it[of])}" for of in with_it),
        "without interference: " + ", ".join(f"{of} {error(of, without[of])}" for of in without),
        f"trivial predictors: B as published on A {error(OTHER, same)}, models as published on A {error(MODELS, same)}",
    ]
    ordered = all(one[0] > 1 and sorted(one) == one for one in (with_it[FITTED], with_it[OTHER]))
    parts.append(f"Tutel < Improved < No-IIO < FSMoE on both testbeds: {'yes' if ordered else 'no'}")
    return "; ".join(parts)
