"""Structure: the tasks of one island's step, told apart by what fills them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moesim.schedules import Node, Part, Verb
from moesim.step.lowered import Lowered
from moesim.step.plan import StepPlan

Int64s = npt.NDArray[np.int64]
MIXED = ("attention", "attention_prepare", "attention_core")  # tasks that ask which mixer their layer has
EXPERTS, DISPATCH, COMBINE = "experts", "dispatch", "combine"


@dataclass(frozen=True)
class Structure:
    """Tasks, numbered on the island, by what they have in common.

    priced: (name, part, stretch, mixer), the same in every layer with that mixer; experts: (part, stretch); exchanges:
    (dispatch or combine, part), with their stages one after the other; shares: (all_gather or reduce_scatter, part)
    among those who share an expert; rings: (name, part) in tensor groups. layer int64[tasks]: which of the layers with
    experts each is in.
    """

    count: int
    layer: Int64s
    priced: dict[tuple[str, Part, float, int], Int64s] = field(default_factory=dict)
    experts: dict[tuple[Part, float], Int64s] = field(default_factory=dict)
    exchanges: dict[tuple[str, Part], Int64s] = field(default_factory=dict)
    shares: dict[tuple[str, Part], Int64s] = field(default_factory=dict)
    rings: dict[tuple[str, Part], Int64s] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: StepPlan, lowered: Lowered) -> Structure:
        """Of the first island; the others have the same tasks."""
        graph, count = lowered.graph, lowered.graph.num_tasks // len(plan.layout.islands())
        index = np.full(plan.model.num_layers + 1, -1, dtype=np.int64)  # the last is "no layer"
        index[list(plan.model.moe_layers)] = np.arange(len(plan.model.moe_layers))
        found = cls(count, index[graph.layer[:count]])
        for table, key, tasks in _sorted(plan, lowered, count):
            getattr(found, table)[key] = np.array(tasks, dtype=np.int64)
        return found

    @cached_property
    def routed(self) -> set[Part]:
        """Parts whose routing is looked up."""
        found = {part for part, _ in self.experts}
        return found.union(part for _, part in (*self.exchanges, *self.shares))

    @cached_property
    def parts(self) -> set[Part]:
        """All that the schedule cuts."""
        return self.routed.union((part for _, part, *_ in self.priced), (part for _, part in self.rings))


def _sorted(plan: StepPlan, lowered: Lowered, count: int) -> Iterator[tuple[str, tuple[object, ...], list[int]]]:
    """The table, the key and the tasks of each kind."""
    kinds: dict[tuple[str, tuple[object, ...]], list[int]] = {}
    for task in range(count):
        name, node, moves = lowered.graph.name[task], lowered.nodes[task], lowered.graph.coflow[task] >= 0
        kinds.setdefault(_kind(plan, name, node, moves=bool(moves)), []).append(task)
    for (table, key), tasks in kinds.items():
        yield table, key, tasks


def _kind(plan: StepPlan, name: str, node: Node, *, moves: bool) -> tuple[str, tuple[object, ...]]:
    if name in (DISPATCH, COMBINE):
        return "exchanges", (name, node.part)
    if name == EXPERTS:
        return "experts", (node.part, plan.stretch(node))
    if not moves:
        mixer = plan.ops.at(node.layer).number if name in MIXED else 0
        return "priced", (name, node.part, plan.stretch(node), mixer)
    if node.verb == Verb.DISPATCH or (node.verb == Verb.COMBINE and plan.ops.spread.residual == "sliced"):
        return "shares", (name, node.part)
    return "rings", (name, node.part)
