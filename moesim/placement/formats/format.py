"""What a format of placements is: a reader and a writer, and what its file does not say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput, placed
from moesim.layout import Placement
from moesim.placement.formats.source import Source

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Frame:
    """What a file does not say itself; None: read it off, or refuse where that cannot be done.

    ranks: GPUs that share the experts; experts of a layer; moe_layers: model layers that have experts, of all
    `total_layers`.
    """

    ranks: int | None = None
    experts: int | None = None
    moe_layers: tuple[int, ...] | None = None
    total_layers: int | None = None


@dataclass(frozen=True)
class Written:
    """The bytes of a file, and what a reader of it has to know."""

    content: bytes
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """`write(placement, frame, suffix)` -> Written and its inverse `read(source, frame)`; both raise BadInput.

    suffixes: of its files, the usual one first. `recognise(source)` tells whether a file looks like this format.
    even: whether its engine gives every rank equally many slots. dispatch: the rule by which its engine picks one of an
    expert's replicas (placement/dispatch), "even" where it has none of its own.
    """

    name: str
    about: str
    suffixes: tuple[str, ...]
    recognise: Callable[[Source], bool]
    read: Callable[[Source, Frame], Placement]
    write: Callable[[Placement, Frame, str], Written]
    even: bool = True
    dispatch: str = "even"


def even_placement(rows: Ints, frame: Frame, where: str) -> Placement:
    """int64[layers, slots] experts, equally many slots on every rank of the frame. Raises BadInput naming the cell."""
    if frame.ranks is None:
        raise BadInput("does not say how many GPUs it is for", where=where, way_out="say it (--gpus N)")
    slots = rows.shape[1]
    wanted = frame.ranks
    if slots % wanted:
        fits = [ranks for ranks in range(1, slots + 1) if slots % ranks == 0]
        near = ", ".join(map(str, sorted(fits, key=lambda ranks: abs(ranks - wanted))[:3]))
        raise BadInput(f"{slots} slots do not divide over {frame.ranks} GPUs", where=where, way_out=f"{near} GPUs")
    rank = np.arange(slots, dtype=np.int32) // (slots // frame.ranks)
    return sealed(rows, np.broadcast_to(rank, rows.shape), frame, frame.ranks, where)


def sealed(experts: Ints, ranks: npt.NDArray[np.int32], frame: Frame, num_ranks: int, where: str) -> Placement:
    """A Placement, whose own refusals name the file. The number of experts is the frame's, or read off the ids."""
    if frame.moe_layers is not None and len(experts) != len(frame.moe_layers):
        raise BadInput(
            f"holds {len(experts)} layers, the model has {len(frame.moe_layers)} with experts", where=where,
            way_out="the model that it was made for, or the file without rows of other layers",
        )  # fmt: skip
    if frame.ranks is not None and frame.ranks != num_ranks:
        raise BadInput(f"is for {num_ranks} GPUs, not {frame.ranks}", where=where, way_out=f"{num_ranks} GPUs")
    number = frame.experts or int(experts.max(initial=0)) + 1
    with placed(where):
        return Placement(experts.astype(np.int32), np.ascontiguousarray(ranks), number, num_ranks)


def check_even(placement: Placement, engine: str) -> None:
    """Raises BadInput where ranks own different numbers of slots: the engine numbers slots by equal ranks."""
    owned = placement.owned
    wrong = np.argwhere(owned != placement.num_slots / placement.num_ranks)
    if len(wrong):
        layer, rank = wrong[0]
        raise BadInput(
            f"{engine} gives every GPU equally many slots in every layer; here GPU {rank} has {owned[layer, rank]} of "
            f"{owned[layer].sum()} in layer {layer}",
            way_out="a format that can say it (omniinfer), or equally many slots on every GPU",
        )


def check_once_per_rank(placement: Placement, engine: str) -> None:
    """Raises BadInput where a rank holds an expert twice: the engine looks a rank's slot up by expert."""
    for layer in range(placement.num_layers):
        cell = placement.slot_rank[layer].astype(np.int64) * placement.num_experts + placement.slot_expert[layer]
        found, count = np.unique(cell[placement.filled[layer]], return_counts=True)
        if (count > 1).any():
            rank, expert = divmod(int(found[np.argmax(count > 1)]), placement.num_experts)
            raise BadInput(
                f"{engine} holds an expert at most once a GPU; here GPU {rank} has expert {expert} of layer {layer} "
                "twice",
                way_out="a strategy that keeps replicas apart (not eplb), or another format",
            )
