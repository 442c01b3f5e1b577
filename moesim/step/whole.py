"""Whole matrices: Muon makes the momentum of a weight matrix orthogonal, which takes all of it.

Matrices lie end to end in a buffer of which each rank of a shard group keeps an equal part. A rank gathers in bf16 what
it lacks of those that it has a part of, makes each of them orthogonal and goes on with its own part: ranks that share
a matrix do the same work. With parts of many matrices hardly any is shared, with matrices of many parts each rank
gathers a whole one. Projections that are one GEMM are one matrix, and of a tensor group's each rank takes its part for
a whole one (Megatron-LM's default, "blockwise").

Newton-Schulz, five times over X of s rows and l columns, s <= l, in bf16: A = X X'; B = b A + c A A; X = a X + B X,
sums in the GEMMs' epilogues: 4 s s l + 2 s s s FLOPs. Before them X is divided by its norm.

Sources: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); Liu et al., "Muon is Scalable
for LLM Training" (2025), section 2.3 and algorithm 1: all matrices but embedding and output head, routers' too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.layout import UNQUANTISED, Held, Part, Shards
from moesim.layout.shards import OPTIMIZER, Split
from moesim.network import Coflow, Collective, Fabric, Group, groups
from moesim.network.collectives import lane_flows
from moesim.step.ops import LayerOps
from moesim.step.work import Floats, Work

ITERATIONS: Final = 5
GATHERED: Final = "_matrix_gather"  # how names of transfers end
BF16: Final = 2
NOTE: Final = (
    "muon: a projection that is one GEMM is one matrix, a rank's part of a tensor group's a whole one; momentum is "
    "gathered before anything of it is made orthogonal, and every rank is as long at that as the one with most"
)
NORM_BYTES: Final = 3 * BF16  # of each number: read for the norm, then read and written to be divided by it
Ints = npt.NDArray[np.int64]
Shape = tuple[int, int]


@dataclass(frozen=True)
class Cut:
    """shapes int64[M, 2] of matrices end to end, cut into `parts` equal parts: part[i] has own[i] numbers of
    matrix[i], int64[I] each, in order of both.
    """

    shapes: Ints
    parts: int
    part: Ints
    matrix: Ints
    own: Ints

    @classmethod
    def of(cls, matrices: Iterable[Part], parts: int) -> Cut:
        """The matrices of all layers."""
        each = [(gemm.n, gemm.k) for one in matrices for _ in range(one.layers) for gemm in one.gemms]
        shapes = np.array(each, dtype=np.int64).reshape(-1, 2)
        ends = np.cumsum(shapes.prod(axis=1))
        starts, total = ends - shapes.prod(axis=1), int(ends[-1]) if len(ends) else 0
        begin = np.arange(parts) * -(-total // parts)
        end = np.minimum(begin + -(-total // parts), total)
        first, last = np.searchsorted(ends, begin, side="right"), np.searchsorted(starts, end, side="left")
        count = np.maximum(last - first, 0)
        part = np.repeat(np.arange(parts), count)
        matrix = np.repeat(first - (np.cumsum(count) - count), count) + np.arange(count.sum())
        own = np.minimum(ends[matrix], end[part]) - np.maximum(starts[matrix], begin[part])
        return cls(shapes, parts, part, matrix, own)

    @cached_property
    def flops(self) -> Floats:
        """float64[parts]: of the iterations over all matrices that a part has some of."""
        short, long = self.shapes.min(axis=1).astype(float), self.shapes.max(axis=1).astype(float)
        each = ITERATIONS * (4 * short * short * long + 2 * short**3)
        return np.bincount(self.part, each[self.matrix], self.parts).astype(np.float64)

    def shapes_of(self, part: int) -> Counter[Shape]:
        """Matrices that a part has some of, whole ones, the shorter side first."""
        touched = self.shapes[self.matrix[self.part == part]]
        return Counter(zip(touched.min(axis=1).tolist(), touched.max(axis=1).tolist(), strict=True))

    @cached_property
    def sent(self) -> tuple[Ints, Ints, Ints]:
        """Parts int64[F] send to parts int64[F] so many bytes: around a ring of those that share a matrix each hands on
        all but what the next one has.
        """
        row = np.arange(len(self.matrix))
        nearest = np.minimum(row + 1, len(row) - 1)
        shared = (self.matrix[nearest] == self.matrix) & (nearest > row)
        following = np.where(shared, nearest, np.searchsorted(self.matrix, self.matrix))
        size = BF16 * (self.shapes.prod(axis=1)[self.matrix] - self.own[following])
        away = following != row
        return self.part[away], self.part[following][away], size[away]

    @cached_property
    def most(self) -> int:
        """Parts of the matrix that has most."""
        return int(np.bincount(self.matrix).max(initial=1))


class Shared(NamedTuple):
    """Matrices that lie over the ranks of each shard group in the same way."""

    name: str
    cut: Cut
    stride: int

    def part_of(self, ranks: npt.NDArray[np.int32]) -> Ints:
        """int32[R] -> int64[R]."""
        return np.asarray((ranks // self.stride) % self.cut.parts, dtype=np.int64)

    def gathered(self, fabric: Fabric, world: int) -> Coflow:
        """All shard groups at once."""
        group = Group(fabric.cluster, np.arange(world, dtype=np.int32))
        lanes, (source, destination, size) = groups(world, self.cut.parts, self.stride), self.cut.sent
        flows = lane_flows(group, lanes[:, source].ravel(), lanes[:, destination].ravel(), np.tile(size, len(lanes)))
        node = group.node_of_lane[lanes]
        leaves = (node[:, source] != node[:, destination]).any()
        between = min(len(np.unique(node[0])), self.cut.most) - 1 if leaves else 0
        ranks = self.cut.most - between
        return fabric.collective(
            Collective("all_gather", ranks, ranks - 1, flows, crossings=between, algorithm="ring"), group
        )  # fmt: skip


class Whole:
    """All matrices of a rank, on ranks that share them as `shards` says."""

    def __init__(self, held: Held, shards: Shards, world: int) -> None:
        self._world = world
        self._kinds = [
            Shared(name, Cut.of(parts, split.shard if shards.stage >= OPTIMIZER else 1), split.stride)
            for name, split, parts in _kinds(held, shards)
        ]

    def gathered(self, fabric: Fabric) -> Iterator[tuple[str, Coflow]]:
        """What is moved before, one after the other."""
        for one in self._kinds:
            if len(one.cut.sent[0]):
                yield f"{one.name}{GATHERED}", one.gathered(fabric, self._world)

    @property
    def sent_bytes(self) -> float:
        """Of the rank that sends most."""
        found = np.zeros(self._world)
        for one in self._kinds:
            source, _, size = one.cut.sent
            found += np.bincount(source, size, one.cut.parts)[one.part_of(self._ranks)]
        return float(found.max())

    def newton_schulz(self, ops: LayerOps) -> Work:
        """On every rank as much as on the one with most FLOPs, for which all others wait."""
        flops = sum(one.cut.flops[one.part_of(self._ranks)] for one in self._kinds)
        most = self._ranks[[int(np.argmax(flops))]]
        shapes = sum((one.cut.shapes_of(int(one.part_of(most)[0])) for one in self._kinds), Counter[Shape]())
        work = (_orthogonal(ops, self._world, shape).times(number) for shape, number in sorted(shapes.items()))
        return sum(work, Work())

    @property
    def _ranks(self) -> npt.NDArray[np.int32]:
        return np.arange(self._world, dtype=np.int32)


def _kinds(held: Held, shards: Shards) -> Iterator[tuple[str, Split, tuple[Part, ...]]]:
    yield "dense", shards.dense, held.matrices
    yield "expert", shards.expert, (held.experts,)


def _orthogonal(ops: LayerOps, ranks: int, shape: Shape) -> Work:
    """One matrix on each of so many ranks."""
    short, long = shape
    rows = np.full(ranks, short)
    gemms = ((short, long), (short, short), (long, short))  # n, k of X X', A A, B X
    once = ops.log.work([ops.costs.gemm(rows, n, k, UNQUANTISED) for n, k in gemms])
    return once.times(ITERATIONS) + ops.update(ranks, NORM_BYTES * short * long)
