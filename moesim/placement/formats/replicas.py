"""The three tables of DeepSeek's EPLB, which vLLM holds under other names: slot -> expert, expert -> slots, counts."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.layout import Placement
from moesim.placement.formats.format import Frame, Written, check_even, even_placement
from moesim.placement.formats.source import Source, mapping_text, table, take
from moesim.routing.arrays import write_npz

CUBE: Final = "a list for each layer, in it one for each expert: its slots, -1 for none"


@dataclass(frozen=True)
class Names:
    """What one engine calls them: [layers, slots], [layers, experts, most replicas] (-1 padded), [layers, experts]."""

    slot_expert: str
    expert_slots: str
    replicas: str


def read_tables(source: Source, names: Names, frame: Frame) -> Placement:
    """Slot -> expert decides; the other two, where they are there, have to agree. Raises BadInput naming the table."""
    key = f"{source.path} {names.slot_expert}"
    rows = table(take(source, names.slot_expert), key)
    counts = source.data.get(names.replicas)
    if counts is not None and frame.experts is None:
        frame = Frame(frame.ranks, _width(counts, f"{source.path} {names.replicas}"), frame.moe_layers)
    placement = even_placement(rows, frame, key)
    if counts is not None:
        where = f"{source.path} {names.replicas}"
        _agree(table(counts, where), placement.replicas, where, names.slot_expert)
    if source.data.get(names.expert_slots) is not None:
        where = f"{source.path} {names.expert_slots}"
        _agree_slots(_cube(source.data[names.expert_slots], where), placement, where, names.slot_expert)
    return placement


def write_tables(placement: Placement, names: Names, engine: str) -> dict[str, Any]:
    """The tables by name. Raises BadInput where ranks are uneven."""
    check_even(placement, engine)
    return {
        names.slot_expert: placement.slot_expert.astype(np.int64),
        names.expert_slots: placement.expert_slots.astype(np.int64),
        names.replicas: placement.replicas,
    }


def as_file(tables: dict[str, Any], suffix: str, notes: tuple[str, ...] = ()) -> Written:
    """An npz where the suffix says so, else JSON."""
    if suffix != ".npz":
        return Written(mapping_text(tables), notes)
    stream = io.BytesIO()
    write_npz(stream, **tables)
    return Written(stream.getvalue(), notes)


def _width(counts: Any, where: str) -> int:
    return int(table(counts, where).shape[1])


def _cube(value: Any, where: str) -> npt.NDArray[np.int64]:
    if isinstance(value, np.ndarray) and value.ndim == 3 and value.dtype.kind in "iu":
        return value.astype(np.int64)
    if not isinstance(value, list) or not value:
        raise BadInput("is not [layers, experts, replicas]", where=where, way_out=CUBE)
    layers = [table(layer, f"{where}[{number}]") for number, layer in enumerate(value)]
    if len({layer.shape for layer in layers}) != 1:
        raise BadInput("is not [layers, experts, replicas]", where=where, way_out=CUBE)
    return np.stack(layers)


def _agree(found: npt.NDArray[np.int64], meant: npt.NDArray[np.int64], where: str, key: str) -> None:
    if found.shape != meant.shape:
        raise BadInput(f"is {list(found.shape)}, {key} says {list(meant.shape)}", where=where, way_out=_alone(key))
    wrong = np.argwhere(found != meant)
    if len(wrong):
        layer, expert = wrong[0]
        raise BadInput(
            f"layer {layer}: expert {expert} has {found[layer, expert]} replicas, {key} says {meant[layer, expert]}",
            where=where,
            way_out=_alone(key),
        )


def _alone(key: str) -> str:
    return f"tables of one placement; {key} alone says all of it"


def _agree_slots(found: npt.NDArray[np.int64], placement: Placement, where: str, key: str) -> None:
    """Every number that is not padding is a slot of that expert, and none is missing, in any order."""
    if found.shape[:2] != placement.replicas.shape:
        shape = list(placement.replicas.shape)
        raise BadInput(f"is {list(found.shape)}, {key} says {shape}", where=where, way_out=_alone(key))
    width = placement.expert_slots.shape[2]
    listed = -np.sort(-found, axis=2)
    meant = -np.sort(-placement.expert_slots.astype(np.int64), axis=2)
    padded = np.full((*listed.shape[:2], max(width, listed.shape[2])), -1)
    padded[:, :, : listed.shape[2]] = listed
    same = (padded[:, :, :width] == meant).all(axis=2) & (padded[:, :, width:] < 0).all(axis=2)
    if not same.all():
        layer, expert = np.argwhere(~same)[0]
        what = f"layer {layer}: the slots of expert {expert} are not those of {key}"
        raise BadInput(what, where=where, way_out=_alone(key))
