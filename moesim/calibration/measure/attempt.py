"""One case: prepare, check once, warm up, sample, look at the clocks; on all ranks together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import torch
import torch.distributed as dist

from moesim.calibration.measure.case import Case
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.measure.sampler import collect, warm_up
from moesim.calibration.operators import OPERATORS
from moesim.calibration.operators.operator import Place, Prepared, WrongResult
from moesim.calibration.records import OK
from moesim.errors import TryAgain

LOST: Final = "the device is lost: "
WAITS: Final = "host sync: the host waits for the device inside the call"
CALLS: Final = 10  # in one graph: its launch, some us, is shared by so many
SETS_BYTES: Final = 8 << 30  # of the operands of all calls of a graph


class Timed(NamedTuple):
    """What a sample is the time of, and how many calls of the operator that is."""

    call: Callable[[], Any]
    calls: int


@dataclass(frozen=True)
class Taken:
    """Samples in seconds of this rank, MHz before and after, and what a record says of them; none if it stood by.
    columns: of the record, known only now.
    """

    samples: list[float]
    clock_before: float
    clock_after: float
    label: str
    columns: Mapping[str, Any]


class Failed(Exception):
    """The case has no records; the text says why and on which rank."""


def attempt(case: Case, place: Place, plan: PlanSection, budget: float) -> Taken:
    """Measure one case for about `budget` seconds. Raises Failed on all ranks where one of them fails.

    A case during which the clock falls is taken once more; if it falls again, its label says so.
    """
    place.target.release()
    before = place.target.held()
    prepared: Prepared = _agreed(lambda: OPERATORS[case.operator].prepare(case, place), place)
    footprint = place.target.held() - before
    with prepared.within():
        _agreed(lambda: _check(prepared.call, prepared, place), place)
        waits = place.peers.any(_agreed(lambda: _waits(case, prepared, place), place))
        timed: Timed = _agreed(lambda: _to_time(case, prepared, place, plan, footprint), place)
        taken: Taken = _agreed(lambda: _take(case, prepared, timed, place, plan, budget), place)
        if place.peers.any(taken.label.startswith("throttled")):
            taken = _agreed(lambda: _take(case, prepared, timed, place, plan, budget), place)
    return replace(taken, label=WAITS) if waits and taken.label == OK else taken


def _check(call: Callable[[], Any], prepared: Prepared, place: Place) -> None:
    """The result is right before any time is taken."""
    if prepared.before:
        prepared.before()
    result = call()
    place.target.synchronize()
    prepared.check(result)


def _waits(case: Case, prepared: Prepared, place: Place) -> bool:
    """Whether a kernel that should run ahead of the host makes it wait, as torch's grouped GEMM does on devices that it
    has no kernel for: what such a loop takes says nothing of a grouped kernel.
    """
    if OPERATORS[case.operator].waits:
        return False
    if prepared.before:
        prepared.before()
    return place.target.waits(prepared.call)


def _to_time(case: Case, prepared: Prepared, place: Place, plan: PlanSection, footprint: int) -> Timed:
    """footprint: bytes that `prepared` holds on this rank.

    A graph holds several calls. Where the cache is evicted before a sample each of them has operands of its own, so
    that it finds them as cold as the first does; large ones take long enough beside a graph's launch for fewer calls.
    """
    if case.mode == "eager":
        return Timed(prepared.call, 1)
    fitting = min(place.peers.gather(SETS_BYTES // max(footprint, 1)))
    sets = [prepared] * CALLS
    if plan.sampling.cold:
        own = min(max(fitting, 1), CALLS) - 1
        sets = [prepared, *(OPERATORS[case.operator].prepare(case, place) for _ in range(own))]
    captured = place.target.graph([one.call for one in sets])
    if captured is None:
        raise RuntimeError(f"{place.target.device_class} has no graphs")
    _check(captured, sets[-1], place)
    return Timed(captured, len(sets))


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


def _take(case: Case, prepared: Prepared, timed: Timed, place: Place, plan: PlanSection, budget: float) -> Taken:
    target, rules = place.target, plan.sampling
    meets = OPERATORS[case.operator].collective and place.peers.world > 1
    ahead = [step for step in (prepared.before, _meeting(place) if meets else None) if step]

    def hold() -> None:
        for step in ahead:
            step()

    def whole() -> None:
        if prepared.before:
            prepared.before()
        timed.call()

    warm_up(whole, target.synchronize, min(rules.warm_up, budget), place.peers)
    before, _ = target.clock()
    held = hold if ahead else None
    taken = collect(lambda: target.seconds(timed.call, cold=rules.cold, hold=held), rules, budget, place.peers)
    after, slowed = target.clock()
    if after < before * (1 - plan.clock_drop):
        slowed = f"{before:.0f} to {after:.0f} MHz{' by ' + slowed if slowed else ''}"
    label = f"throttled: {slowed}" if slowed else case.label or OK
    samples = [seconds / timed.calls for seconds in taken] if prepared.takes_part else []
    return Taken(samples, before, after, label, {**prepared.columns, "calls": timed.calls})


def _meeting(place: Place) -> Callable[[], None]:
    """Before each sample of a collective: the hosts meet, the device pauses, then the devices meet in its stream."""
    token = torch.zeros(1, device=place.target.device)

    def hold() -> None:
        place.peers.barrier()
        place.target.pause()
        dist.all_reduce(token)

    return hold
