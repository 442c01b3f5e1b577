"""One case: prepare, check once, warm up, sample, look at the clocks; on all ranks together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from moesim.calibration.measure.case import Case
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.measure.sampler import collect, warm_up
from moesim.calibration.operators import OPERATORS
from moesim.calibration.operators.operator import Place, Prepared, WrongResult
from moesim.calibration.records import OK
from moesim.errors import TryAgain

LOST = "the device is lost: "


@dataclass(frozen=True)
class Taken:
    """Samples in seconds of this rank, MHz before and after, and what a record says of them; none if it stood by."""

    samples: list[float]
    clock_before: float
    clock_after: float
    label: str


class Failed(Exception):
    """The case has no records; the text says why and on which rank."""


def attempt(case: Case, place: Place, plan: PlanSection, budget: float) -> Taken:
    """Measure one case for about `budget` seconds. Raises Failed on all ranks where one of them fails.

    A case during which the clock falls is taken once more; if it falls again, its label says so.
    """
    place.target.release()
    prepared: Prepared = _agreed(lambda: OPERATORS[case.operator].prepare(case, place), place)
    _agreed(lambda: _check(prepared.call, prepared, place), place)
    call = _agreed(lambda: _to_time(case, prepared, place), place)
    taken: Taken = _agreed(lambda: _take(case, prepared, call, place, plan, budget), place)
    if place.peers.any(taken.label.startswith("throttled")):
        taken = _agreed(lambda: _take(case, prepared, call, place, plan, budget), place)
    return taken


def _check(call: Callable[[], Any], prepared: Prepared, place: Place) -> None:
    """The result is right before any time is taken."""
    result = call()
    place.target.synchronize()
    prepared.check(result)


def _to_time(case: Case, prepared: Prepared, place: Place) -> Callable[[], Any]:
    if case.mode == "eager":
        return prepared.call
    captured = place.target.graph(prepared.call)
    if captured is None:
        raise RuntimeError(f"{place.target.device_class} has no graphs")
    _check(captured, prepared, place)
    return captured


def _agreed(step: Callable[[], Any], place: Place) -> Any:
    """What the step returns. Raises Failed on every rank where it failed on one of them, whatever a kernel's library
    raises for a shape or device that it does not have; TryAgain where one rank lost its device.
    """
    reason, found = "", None
    try:
        found = step()
    except Exception as error:
        reason = _reason(error)
    said = [(rank, other) for rank, other in enumerate(place.peers.gather(reason)) if other]
    for rank, other in sorted(said, key=lambda pair: not pair[1].startswith(LOST)):
        text = f"rank {rank}: {other}" if place.peers.world > 1 else other
        if other.startswith(LOST):
            raise TryAgain(text, way_out="the same command: finished cases are kept, this one is left out")
        raise Failed(text)
    return found


def _reason(error: Exception) -> str:
    """One line; it begins with LOST after an error that a CUDA context or a process group does not survive."""
    line = (str(error).splitlines() or [""])[0][:300] or type(error).__name__
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in line:
        return f"out of memory: {line}"
    if "CUDA error" in line or isinstance(error, dist.DistError):
        return f"{LOST}{line}"
    return f"wrong result: {line}" if isinstance(error, WrongResult) else line


def _take(
    case: Case, prepared: Prepared, call: Callable[[], Any], place: Place, plan: PlanSection, budget: float
) -> Taken:
    target, rules = place.target, plan.sampling
    meets = OPERATORS[case.operator].collective and place.peers.world > 1
    hold = _meeting(place) if meets else None
    warm_up(call, target.synchronize, min(rules.warm_up, budget), place.peers)
    before, _ = target.clock()
    samples = collect(lambda: target.seconds(call, cold=rules.cold, hold=hold), rules, budget, place.peers)
    after, slowed = target.clock()
    if after < before * (1 - plan.clock_drop):
        slowed = f"{before:.0f} to {after:.0f} MHz{' by ' + slowed if slowed else ''}"
    label = f"throttled: {slowed}" if slowed else case.label or OK
    return Taken(samples if prepared.takes_part else [], before, after, label)


def _meeting(place: Place) -> Callable[[], None]:
    """Before each sample of a collective: the hosts meet, the device pauses, then the devices meet in its stream."""
    token = torch.zeros(1, device=place.target.device)

    def hold() -> None:
        place.peers.barrier()
        place.target.pause()
        dist.all_reduce(token)

    return hold
