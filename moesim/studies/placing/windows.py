"""Recorded tokens or counts -> what strategies see, and what their answers are judged on beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moesim.errors import BadInput, unknown_name
from moesim.models import MoEModel
from moesim.placement import Windows
from moesim.placement.different import NEAR, variation
from moesim.routing import RoutingTrace, TraceHeader
from moesim.routing.loads import LoadRecord
from moesim.routing.shape import digest_of
from moesim.routing.sources import transplant
from moesim.routing.synth.tokens import sample_tokens
from moesim.routing.trace import PHASES
from moesim.streams import stream
from moesim.studies.placing.options import HOLDOUT, LEAVE_ONE_OUT, WINDOW, Options
from moesim.studies.placing.recordings import Recorded, RecordedFile, joined, read_recorded

HELD_OUT, DRIFT = "held out", "drift"
FEWEST = 8  # windows that a short trace is cut into
ALONE = (
    "one recording of one window: nothing is held out, and nothing is known of its peaks; record different loads and "
    "give them together (--trace A,B,...)"
)
MOST_WINDOWS = 4096  # every strategy looks at each
DRAWN = 16_384  # tokens that are drawn where a step is played from counts


class Fold(NamedTuple):
    """One different load left out: its name, all others, and itself."""

    name: str
    train: Windows
    judged: Windows


@dataclass(frozen=True)
class Split:
    """train: for strategies; judged: name -> windows they never see; folds: the same by leaving one out, each planned
    for anew; notes: what these are. played: tokens of a step where windows are counts, drawn from their margins.
    """

    train: Windows
    judged: dict[str, Windows]
    window: int
    notes: tuple[str, ...] = ()
    folds: tuple[Fold, ...] = ()
    played: Windows | None = None

    @property
    def deciding(self) -> Windows:
        """The windows that the winner is picked on: those held out, else those after drift, else the training ones."""
        return self.judged.get(HELD_OUT, self.judged.get(DRIFT, self.train))

    @property
    def decided_by(self) -> str:
        """The name under which solutions hold the deciding value; that of the training windows where none is unseen."""
        return HELD_OUT if self.folds else self.deciding.name


def split_many(found: Sequence[RecordedFile], options: Options) -> Split:
    """Several recordings: one named is held out, or each different load in its turn. Raises BadInput."""
    if isinstance(options.holdout, float) and options.holdout:
        raise BadInput("a share of several recordings is not held out", where="--holdout",
                       way_out=f"the name of one, {LEAVE_ONE_OUT}, or 0")  # fmt: skip
    window = options.window or WINDOW
    notes = (_told(found),)
    if options.holdout == 0:
        return _with_drift(Split(joined(found, window), {}, window, notes), found[0].recorded.header, options)
    if options.holdout in (None, LEAVE_ONE_OUT):
        made = Split(joined(found, window), {}, window, notes, _folds(found, window))
        if not made.folds:
            made = replace(made, notes=(*notes, "all recordings are near copies: nothing can be held out"))
        return _with_drift(made, found[0].recorded.header, options)
    kept, out = _named(found, str(options.holdout))
    judged = {HELD_OUT: named(joined(out, window), HELD_OUT)}
    return _with_drift(Split(joined(kept, window), judged, window, notes), found[0].recorded.header, options)


def _named(found: Sequence[RecordedFile], name: str) -> tuple[list[RecordedFile], list[RecordedFile]]:
    """(the others, the named one); near copies of it are not planned on. Raises BadInput."""
    fits = [one for one in found if name in (one.name, Path(one.name).name, Path(one.name).stem)]
    if not fits:
        raise unknown_name("recording", name, [Path(one.name).stem for one in found], where="--holdout")
    kept = [one for one in found if one.kin != fits[0].kin]
    if not kept:
        raise BadInput(f"all other recordings are near copies of {name}", where="--holdout", way_out="--holdout 0")
    return kept, fits[:1]


def _folds(found: Sequence[RecordedFile], window: int) -> tuple[Fold, ...]:
    """One for each different load, where there are two or more."""
    kins = list(dict.fromkeys(one.kin for one in found))
    if len(kins) < 2:
        return ()
    parts = [([o for o in found if o.kin != kin], [o for o in found if o.kin == kin]) for kin in kins]
    return tuple(
        Fold(Path(out[0].name).stem, joined(kept, window), named(joined(out, window), HELD_OUT)) for kept, out in parts
    )


def drawn(windows: Windows, model: MoEModel, seed: int) -> Windows:
    """Tokens with the margins of counts, an assumption: different experts a token within the router's group limit,
    layers independent; windows with tokens as they are.
    """
    if windows.tokens is not None:
        return windows
    share = windows.load + (windows.load.sum(axis=1, keepdims=True) == 0)  # nothing counted: all alike
    tokens = [
        sample_tokens(
            row.astype(np.float64),
            model.top_k,
            model.num_groups,
            model.topk_groups,
            DRAWN,
            stream(seed, "margins", layer),
        )
        for layer, row in enumerate(share)
    ]
    return Windows.of_tokens(windows.name, np.stack(tokens), windows.counts.shape[2], WINDOW)


def _told(found: Sequence[RecordedFile]) -> str:
    """Which recordings there are, and which of them are near copies."""
    names = ", ".join(f"{Path(one.name).stem} ({one.phases})" for one in found)
    groups = [[Path(o.name).stem for o in found if o.kin == kin] for kin in dict.fromkeys(o.kin for o in found)]
    same = "; ".join(" = ".join(group) for group in groups if len(group) > 1)
    copies = f"; near copies weigh as one (total variation below {NEAR:.0%}): {same}" if same else ""
    loads = "1 load" if len(groups) == 1 else f"{len(groups)} different loads, each weighs as much"
    return f"{len(found)} recordings, {loads}: {names}{copies}"


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
    share = _share(whole, options)
    if not share:
        return _with_drift(Split(whole, {}, window), recorded.header, options)
    train, later = whole.hold_out(share)
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
    share = _share(whole, options)
    if not share:
        alone = "one recording of one window: nothing is held out, and nothing is known of its peaks; record different "
        return Split(
            whole, {}, 1, (f"{alone}loads and give them together (--trace A,B,...)",) if len(whole.counts) == 1 else ()
        )
    train, later = whole.hold_out(share)
    return Split(train, {HELD_OUT: later}, 1)


def _share(whole: Windows, options: Options) -> float:
    """The share to hold out; none of a single window unless it was asked for. Raises BadInput."""
    if isinstance(options.holdout, str):
        raise BadInput(f"{options.holdout!r} needs several recordings", where="--holdout", way_out="a share below 1")
    if options.holdout is None:
        return HOLDOUT if whole.num_windows > 1 else 0.0
    return options.holdout


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
    distance = {number: variation(made.train.load, part.counts()) for number, part in parts.items()}
    furthest = max(distance, key=lambda number: distance[number])
    domain = rows.header.domains[furthest]
    note = (
        f"drift: held-out tokens of domain {domain} alone; {distance[furthest]:.0%} of its load lies on other experts "
        "than in training (--drift TRACE for another)"
    )
    windows = named(Windows.of_trace(parts[furthest], made.window), DRIFT)
    return replace(made, judged={**made.judged, DRIFT: windows}, notes=(*made.notes, note))


def _with_drift(made: Split, header: TraceHeader, options: Options) -> Split:
    """Drift from another trace of the same shape. Raises BadInput."""
    if options.drift is None:
        return made
    other = read_recorded(options.drift, None if options.transplant else options.model)
    shape = (other.header.moe_layers, other.header.num_experts)
    if shape != (header.moe_layers, header.num_experts):
        raise BadInput(
            f"has {shape[0]} layers of {shape[1]} experts, {options.trace} {header.moe_layers} of {header.num_experts}",
            where=options.drift,
            way_out="--drift with a trace of the same model",
        )
    windows = Windows.of_loads(other) if isinstance(other, LoadRecord) else Windows.of_trace(other, made.window)
    note = f"drift: all of {options.drift}"
    return replace(made, judged={**made.judged, DRIFT: named(windows, DRIFT)}, notes=(*made.notes, note))
