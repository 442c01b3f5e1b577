"""Recorded tokens or counts -> what strategies see, and what their answers are judged on beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.models import MoEModel
from moesim.placement import Windows
from moesim.routing import RoutingTrace, TraceHeader, read_trace
from moesim.routing.loads import LoadRecord, read_loads
from moesim.routing.shape import digest_of
from moesim.routing.sources import transplant
from moesim.routing.trace import PHASES
from moesim.studies.placing.options import WINDOW, Options
from moesim.studies.routing import trace_path

HELD_OUT, DRIFT = "held out", "drift"
FEWEST = 8  # windows that a short trace is cut into
MOST_WINDOWS = 4096  # every strategy looks at each
Counts = npt.NDArray[np.int64]
Recorded = RoutingTrace | LoadRecord


@dataclass(frozen=True)
class Split:
    """train: for strategies; judged: name -> windows they never see; notes: what these are."""

    train: Windows
    judged: dict[str, Windows]
    window: int
    notes: tuple[str, ...] = ()

    @property
    def deciding(self) -> Windows:
        """The windows that the winner is picked on: those held out, or the training ones where none are."""
        return self.judged.get(HELD_OUT, self.train)


def read_recorded(name: str) -> Recorded:
    """A trace, or counts in an .npz. Raises BadInput."""
    return read_loads(Path(name)) if Path(name).suffix == ".npz" else read_trace(trace_path(name))


def on_model(recorded: Recorded, model: MoEModel | None, options: Options) -> Recorded:
    """The same, or carried over to the model where that is asked for. Raises BadInput where shapes differ."""
    header = recorded.header
    if model is None or header.digest == digest_of(model):
        return recorded
    shape = (header.moe_layers, header.num_experts)
    if isinstance(recorded, LoadRecord) or not options.transplant:
        if shape == (len(model.moe_layers), model.num_experts) and header.model == "unknown":
            return recorded
        raise BadInput(
            f"is of {header.model} ({shape[0]} layers of {shape[1]} experts), not of {model.name} "
            f"({len(model.moe_layers)} of {model.num_experts})",
            where=options.trace,
            way_out="its own model, or --transplant for a trace with tokens",
        )
    return transplant(recorded, model, options.seed)


def split(recorded: Recorded, options: Options) -> Split:
    """Train, held-out and drift windows; prefill and decode apart where both are there. Raises BadInput."""
    if isinstance(recorded, LoadRecord):
        return _with_drift(_split_counts(recorded, options), recorded.header, options)
    if options.phase is not None:
        recorded = _phase(recorded, options.phase, options.trace)
    window = options.window or max(min(WINDOW, recorded.tokens // FEWEST), 1)
    if recorded.tokens > MOST_WINDOWS * window:
        way_out = f"--window {-(-recorded.tokens // MOST_WINDOWS)} or more"
        raise BadInput(
            f"{recorded.tokens // window} windows, at most {MOST_WINDOWS}", where="--window", way_out=way_out
        )
    whole = Windows.of_trace(recorded, window)
    if not options.holdout:
        return _with_drift(Split(whole, {}, window), recorded.header, options)
    train, later = whole.hold_out(options.holdout)
    rows = recorded.window(recorded.tokens - _tokens(later), recorded.tokens)
    judged = {HELD_OUT: later, **_by_phase(rows, window)}
    made = Split(train, judged, window)
    return _with_drift(made, recorded.header, options) if options.drift else _with_domain(made, rows)


def _split_counts(record: LoadRecord, options: Options) -> Split:
    if options.phase is not None:
        raise BadInput("counts do not say which phase they are of", where=options.trace, way_out="no --phase")
    if options.window is not None:
        raise BadInput("counts come step by step, a step is a window", where=options.trace, way_out="no --window")
    if not record.counts.any():
        raise BadInput("all counts are 0", where=options.trace, way_out="record while the engine serves requests")
    whole = Windows.of_loads(record)
    if not options.holdout:
        return Split(whole, {}, 1)
    train, later = whole.hold_out(options.holdout)
    return Split(train, {HELD_OUT: later}, 1)


def _phase(trace: RoutingTrace, phase: str, where: str) -> RoutingTrace:
    chosen = trace.phase == PHASES.index(phase)
    if not chosen.any():
        there = ", ".join(PHASES[number] for number in np.unique(trace.phase))
        raise BadInput(f"has no tokens of {phase}", where=where, way_out=f"--phase {there}")
    return trace.take(chosen)


def _tokens(windows: Windows) -> int:
    assert windows.edges is not None
    return int(windows.edges[-1])


def _by_phase(rows: RoutingTrace, window: int) -> dict[str, Windows]:
    """Held-out tokens of each phase, where there are several."""
    present = np.unique(rows.phase)
    if len(present) < 2:
        return {}
    names = {f"{HELD_OUT}, {PHASES[number]}": rows.take(rows.phase == number) for number in present}
    return {name: named(Windows.of_trace(part, window), name) for name, part in names.items()}


def named(windows: Windows, name: str) -> Windows:
    """The same under another name."""
    return replace(windows, name=name)


def _with_domain(made: Split, rows: RoutingTrace) -> Split:
    """Drift where no other trace is given: all requests come from the one domain whose load differs most."""
    parts = {number: rows.take(rows.domain == number) for number in np.unique(rows.domain)}
    parts = {number: part for number, part in parts.items() if part.tokens >= made.window}
    if len(rows.header.domains) < 2 or not parts:
        return made
    distance = {number: _variation(made.train.load, part.counts()) for number, part in parts.items()}
    furthest = max(distance, key=lambda number: distance[number])
    domain = rows.header.domains[furthest]
    note = (
        f"drift: held-out tokens of domain {domain} alone; {distance[furthest]:.0%} of its load lies on other experts "
        "than in training (--drift TRACE for another)"
    )
    windows = named(Windows.of_trace(parts[furthest], made.window), DRIFT)
    return replace(made, judged={**made.judged, DRIFT: windows}, notes=(*made.notes, note))


def _variation(load: Counts, other: Counts) -> float:
    """Total variation between the shares of experts, mean over layers."""
    shares = [table / np.maximum(table.sum(axis=1, keepdims=True), 1) for table in (load, other)]
    return float(np.abs(shares[0] - shares[1]).sum(axis=1).mean() / 2)


def _with_drift(made: Split, header: TraceHeader, options: Options) -> Split:
    """Drift from another trace of the same shape. Raises BadInput."""
    if options.drift is None:
        return made
    other = read_recorded(options.drift)
    shape = (other.header.moe_layers, other.header.num_experts)
    if shape != (header.moe_layers, header.num_experts):
        raise BadInput(
            f"has {shape[0]} layers of {shape[1]} experts, {options.trace} {header.moe_layers} of {header.num_experts}",
            where=options.drift,
        )
    windows = Windows.of_loads(other) if isinstance(other, LoadRecord) else Windows.of_trace(other, made.window)
    note = f"drift: all of {options.drift}"
    return replace(made, judged={**made.judged, DRIFT: named(windows, DRIFT)}, notes=(*made.notes, note))
