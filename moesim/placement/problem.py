"""PlacementProblem: which experts shall stand where, for which load, within which limits, and what counts as better.

Load arrives in windows. A rank owns slots, the same number in every layer; a slot holds one expert; an expert with
several slots has replicas, over which a dispatch rule spreads its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.hardware import Cluster
from moesim.layout import Placement
from moesim.placement import dispatch, objectives
from moesim.placement.clock import StepClock
from moesim.placement.dispatch import ways
from moesim.placement.dispatch.rule import DispatchRule
from moesim.placement.levels import rail_of_rank
from moesim.placement.objectives.objective import Objective
from moesim.placement.objectives.overlap import Prices
from moesim.placement.solution import Bound
from moesim.placement.windows import Windows

MAKESPAN, EVENLY = objectives.find("makespan"), dispatch.find("even")
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Memory(NamedTuple):
    """Bytes of one expert's weights in one layer, and the bytes that each rank has for experts of all layers."""

    expert_bytes: int
    rank_bytes: int


@dataclass(frozen=True, eq=False)
class PlacementProblem:
    """train Windows; node_of_rank int[ranks]; slots_of_rank int[ranks], uneven allowed; layer_slots int[layers, ranks]
    where layers differ too (placement/by_layer.py), else empty: slots_of_rank are the most of any layer then.

    load_cap: most load of a rank over the mean, on the total of
    `train`. previous: where experts stand now; move_budget: most slots, over all layers, that may need new weights.
    speed: relative speed of each rank [ranks], ones by default. clock: how `step_time` is played. groups: expert groups
    of the router, which hierarchical EPLB keeps together. Raises BadInput. Limits that contradict are refused by
    `solve` (placement/limits.py).
    """

    train: Windows
    node_of_rank: Ints
    slots_of_rank: Ints
    objective: Objective = MAKESPAN
    dispatch: DispatchRule = EVENLY
    load_cap: float | None = None
    previous: Placement | None = None
    move_budget: int | None = None
    speed: Floats = field(default_factory=lambda: np.empty(0))
    memory: Memory | None = None
    clock: StepClock | None = field(default=None, repr=False)
    groups: int = 1
    layer_slots: Ints = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))
    found: dict[str, Bound] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.speed.size:
            object.__setattr__(self, "speed", np.ones(len(self.node_of_rank)))
        self._check_shapes()

    @staticmethod
    def on(
        cluster: Cluster, train: Windows, *, ranks: int | None = None, slots: int | Sequence[int] | None = None,
        redundant: int = 0, objective: Objective = MAKESPAN, dispatch: DispatchRule = EVENLY,
        load_cap: float | None = None, previous: Placement | None = None, move_budget: int | None = None,
        speed: npt.ArrayLike = (),
        memory: Memory | None = None, clock: StepClock | None = None, groups: int = 1,
        layer_slots: Ints | None = None,
    ) -> PlacementProblem:  # fmt: skip
        """Ranks 0 .. ranks - 1 of a cluster (default: all). Slots of a rank are given, or experts + redundant are
        spread as evenly as they divide. Raises BadInput.
        """
        count = cluster.num_devices if ranks is None else ranks
        if not 1 <= count <= cluster.num_devices:
            raise BadInput(f"{count} ranks on {cluster.name}, which has {cluster.num_devices} GPUs")
        owned = _spread(train.counts.shape[2] + redundant, count) if slots is None else np.asarray(slots)
        if owned.shape not in ((), (1,), (count,)):
            raise BadInput(f"slots {list(owned.shape)} for {count} ranks", way_out="one number, or one for each rank")
        return PlacementProblem(
            train, cluster.node_of[:count].astype(np.int64), np.broadcast_to(owned, (count,)).astype(np.int64),
            objective, dispatch, load_cap, previous, move_budget, np.asarray(speed, dtype=np.float64), memory, clock,
            groups, np.empty((0, 0), dtype=np.int64) if layer_slots is None else layer_slots,
        )  # fmt: skip

    def _check_shapes(self) -> None:
        ranks = len(self.node_of_rank)
        for name, values in (("slots", self.slots_of_rank), ("speeds", self.speed)):
            if values.shape != (ranks,):
                raise BadInput(f"{len(values)} {name} for {ranks} ranks")
        if self.layer_slots.size and self.layer_slots.shape != (self.layers, ranks):
            raise BadInput(f"slots {list(self.layer_slots.shape)} for {self.layers} layers and {ranks} ranks")
        if (self.slots_of_rank < 0).any() or not (self.speed > 0).all():
            raise BadInput("a rank has a negative number of slots, or a speed that is not above 0")
        held = self.previous
        if held and (held.num_layers, held.num_experts, held.num_ranks) != (self.layers, self.experts, ranks):
            raise BadInput(
                f"the previous placement has {held.num_layers} layers, {held.num_experts} experts and "
                f"{held.num_ranks} ranks, the problem {self.layers}, {self.experts} and {ranks}"
            )
        if self.move_budget is not None and held is None:
            raise BadInput("a move budget needs the previous placement", way_out="give both or neither")

    @property
    def layers(self) -> int:
        """Layers that have experts."""
        return int(self.train.counts.shape[1])

    @property
    def experts(self) -> int:
        """Experts of a layer."""
        return int(self.train.counts.shape[2])

    @property
    def ranks(self) -> int:
        """Ranks that hold experts."""
        return len(self.node_of_rank)

    @property
    def nodes(self) -> int:
        """Nodes of those ranks."""
        return int(self.node_of_rank.max()) + 1

    @property
    def slots(self) -> int:
        """Slots of a layer."""
        return int(self.slots_of_rank.sum())

    @property
    def most_replicas(self) -> int:
        """That an expert can have, on a rank each, while every other expert has one."""
        return min(self.slots - self.experts + 1, self.ranks)

    @property
    def owned(self) -> Ints:
        """int64[layers, ranks]: slots of each rank in each layer."""
        alike = np.broadcast_to(self.slots_of_rank, (self.layers, self.ranks))
        return self.layer_slots if self.layer_slots.size else alike

    @cached_property
    def slot_rank(self) -> npt.NDArray[np.int32]:
        """int32[slots]: the rank that owns each slot; the same in every layer."""
        return np.repeat(np.arange(self.ranks, dtype=np.int32), self.slots_of_rank)

    @cached_property
    def ptr(self) -> Ints:
        """int64[ranks + 1]: slots of rank g are ptr[g] .. ptr[g + 1] - 1."""
        return np.concatenate([[0], np.cumsum(self.slots_of_rank)])

    @property
    def way(self) -> int:
        """How replicas share while a placement is searched (dispatch/ways.py)."""
        return self.dispatch.way

    @property
    def apart(self) -> Ints:
        """int64[ranks]: ranks of one number had better not hold the same expert: nodes where near replicas are
        preferred, else each rank for itself."""
        return self.node_of_rank if self.way in (ways.NEAREST, ways.FIRST) else np.arange(self.ranks)

    @cached_property
    def relief(self) -> Floats:
        """float64[ranks + 1]: share of the busiest of k replicas that stand on as many nodes as they can."""
        seat = rail_of_rank(self.node_of_rank)
        spread = np.lexsort((self.node_of_rank, seat)).astype(np.int64)  # the first rank of each node, the second ...
        busiest = np.ones(self.ranks + 1)
        for count in range(1, self.ranks + 1):
            owner, share = np.sort(spread[:count]), np.zeros(count)
            ways.share_out(np.arange(count), owner, self.node_of_rank, self.way, share)
            busiest[count] = share.max()
        return busiest

    @cached_property
    def load(self) -> Ints:
        """int64[layers, experts]: choices of each expert, all windows of `train` together."""
        return self.train.load

    @cached_property
    def prices(self) -> Prices:
        """What balance and ports cost in seconds, from the step under the placement in order (objective overlap)."""
        assert self.clock is not None
        in_order = self.place(np.tile(np.arange(self.slots) % self.experts, (self.layers, 1)))
        return Prices.of(self, self.clock, in_order, self.train)

    def with_train(self, train: Windows) -> PlacementProblem:
        """The same limits for another load."""
        return replace(self, train=train)

    def place(self, slot_expert: npt.ArrayLike) -> Placement:
        """int[layers, slots], slots in the order of `slot_rank` -> Placement. Raises BadInput for a missing expert."""
        table = np.asarray(slot_expert, dtype=np.int32)
        return Placement(table, np.broadcast_to(self.slot_rank, table.shape), self.experts, self.ranks)

    def place_ranks(self, rank_of_expert: npt.ArrayLike) -> Placement:
        """int[layers, experts] rank of each expert -> Placement without replicas; each rank must fill its slots."""
        return self.place(np.argsort(np.asarray(rank_of_expert), axis=1, kind="stable"))


def _spread(slots: int, ranks: int) -> Ints:
    """As even as they divide, the first ranks one more."""
    return slots // ranks + (np.arange(ranks) < slots % ranks).astype(np.int64)
