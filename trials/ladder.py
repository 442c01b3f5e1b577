"""No part of a step is negative: the rungs of the ladder are lower bounds of each other, whatever the scenario.

    python -m trials.ladder [--number 1000] [--seed 0] [--shipped]

Prints how many random scenarios were played and refused, how many had a negative part, how often `schedule_effect_s`
(the part with a sign) was not 0 and how large it was at most, and how far the parts were from the step time.
Exits with 1 where a part is negative or parts do not add up. `--shipped` plays the shipped scenarios too.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from moesim import shipped
from moesim.errors import MoesimError
from moesim.studies import Result, load, run
from moesim.studies.load import Loaded, load_data
from moesim.studies.parts import EFFECT
from moesim.studies.serving import is_serving
from moesim.studies.training import is_training
from trials.scenarios import Draw

CLOSE = 1e-12  # s: the clock's tick; parts are whole ticks
FAULTY = 8  # every eighth scenario has a fault
KINDS = ("imbalance_s", "exposed_comm_s", "contention_s", "fault_s", "other_s")


@dataclass
class Tally:
    """What was seen: counts, the worst of each kind, and what broke the law."""

    count: Counter[str] = field(default_factory=Counter)
    largest_effect: float = 0.0
    largest_gap: float = 0.0
    broken: list[str] = field(default_factory=list)

    def see(self, label: str, result: Result) -> None:
        """One played scenario."""
        step = result.metrics["step_time_s"].value
        played = {name: seconds for name, seconds in result.breakdown.items() if seconds is not None}
        negative = [name for name, seconds in played.items() if seconds < 0 and name != EFFECT]
        gap = abs(math.fsum(played.values()) - step)
        effect = abs(played[EFFECT]) / step
        self.count.update(["played", f"player {result.provenance['player']}", *(k for k in KINDS if played.get(k))])
        self.count.update({"negative part": bool(negative), f"{EFFECT} not 0": effect > 0})
        self.largest_effect, self.largest_gap = max(self.largest_effect, effect), max(self.largest_gap, gap)
        if negative or gap > CLOSE:
            self.broken.append(f"{label}: negative {negative or 'none'}, parts miss the step by {gap:.3g} s")

    def lines(self) -> Iterator[str]:
        """What the trial prints."""
        yield from (f"{name:<28} {number}" for name, number in sorted(self.count.items()))
        yield f"{'largest ' + EFFECT:<28} {self.largest_effect:.2%} of its step"
        yield f"{'largest gap of the parts':<28} {self.largest_gap:.1e} s"
        yield from self.broken


def drawn(seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(label, scenario document), without end."""
    draw, number = Draw(seed), 0
    while True:
        made = draw.faulty() if number % FAULTY == FAULTY - 1 else draw.scenario()
        yield f"scenario {number} of seed {seed}", made
        number += 1


def try_random(tally: Tally, number: int, seed: int) -> None:
    """Play until `number` scenarios were played; those that are refused count apart."""
    for label, made in drawn(seed):
        if tally.count["played"] >= number:
            return
        try:
            result = run(load_data(made, label), seed=seed)
        except MoesimError:
            tally.count["refused"] += 1
        else:
            tally.see(label, result)


def try_shipped(tally: Tally, names: Iterable[str]) -> None:
    """Play shipped scenarios as they are."""
    for name in names:
        loaded: Loaded = load(name)
        tally.see(name, run(loaded))


def main() -> int:
    """0 where the law held."""
    parser = argparse.ArgumentParser(description="No part of a step is negative.")
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shipped", action="store_true")
    asked = parser.parse_args()
    tally = Tally()
    try_random(tally, asked.number, asked.seed)
    print(*tally.lines(), sep="\n")
    ours = Tally()
    if asked.shipped:
        names = shipped.names("workloads/scenarios", ".yaml")
        try_shipped(ours, [name for name in names if not is_serving(name) and not is_training(name)])
        print("shipped scenarios", *ours.lines(), sep="\n")
    return 1 if tally.broken or ours.broken else 0


if __name__ == "__main__":
    sys.exit(main())
