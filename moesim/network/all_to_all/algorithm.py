"""What every expert all-to-all says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from moesim.errors import BadInput, unknown_name
from moesim.network.copies import Copies, Level, Matrix
from moesim.network.flows import Flows, Group

Stages = tuple[Flows, ...]  # a lane starts a stage when what the stage before brings to it has landed


@dataclass(frozen=True)
class AllToAll(ABC):
    """An algorithm: which flows carry a token's rows to its experts, and its results back.

    `deduplicates` says which copies are merged ("none", "device" or "node"); `phases` how many hops a row takes, which
    run together where the algorithm pipelines them and as stages where it does not; `message` what is sent at once, all
    rows for a "peer" or each "row" by itself. `kernels` names all whose constants a cost profile's `communication` has
    to give: start-up, cost of a message, SMs held, efficiency by tier. `travels`: a token stays where its first expert
    is; its copies are counted from there. `gathers`: every rank gets all rows, and its expert kernel skips those of
    others. `replicates`: every rank of a tensor group has all its tokens, and nothing is sent. `rail_first`: of several
    hops the one between nodes starts at a row's own GPU, and ends there on the way back. `reads`: the levels of Copies
    that its ways are made of. `meets`: ranks tell each other how many rows come before any leaves, so none does before
    the last rank is there. `header_bytes` go with each row on the way there. `notes` are what a result has to say of
    it.

    version: of the library; None is `usual`, or the newest of `versions`. path: how rows for a GPU of the same node go,
    None as the version does it ("nvlink", or "rdma" out of one NIC and in by another).
    """

    name: ClassVar[str] = ""
    kernels: ClassVar[tuple[str, ...]] = ("nccl",)
    versions: ClassVar[tuple[str, ...]] = ()
    usual: ClassVar[str] = ""
    paths: ClassVar[tuple[str, ...]] = ("nvlink",)
    deduplicates: ClassVar[Literal["none", "device", "node"]] = "none"
    phases: ClassVar[int] = 1
    rail_first: ClassVar[bool] = False
    message: ClassVar[Literal["peer", "row"]] = "peer"
    travels: ClassVar[bool] = False
    gathers: ClassVar[bool] = False
    replicates: ClassVar[bool] = False
    reads: ClassVar[tuple[Level, ...]] = ("pairs",)
    meets: ClassVar[bool] = False
    header_bytes: ClassVar[int] = 0
    notes: ClassVar[tuple[str, ...]] = ()

    version: str | None = None
    path: str | None = None

    @abstractmethod
    def hops(self, copies: Copies, group: Group) -> tuple[Matrix, ...]:
        """Rows int64[..., R, R] from lane to lane on the way to the experts, stage after stage.

        Leading axes are those of the copies, layers say. How many stages there are depends on the group alone.
        """

    def dispatch(self, copies: Copies, row_bytes: int, group: Group) -> Stages:
        """Rows of `row_bytes`, each with its header, from their lanes to the lanes of their experts."""
        each = row_bytes + self.header_bytes
        return tuple(Flows.between(group, rows * each) for rows in self.hops(copies, group))

    def combine(self, copies: Copies, row_bytes: int, group: Group) -> Stages:
        """Results of `row_bytes` back to the lanes of their tokens: last stage first, every flow the other way."""
        return tuple(
            Flows.between(group, rows * row_bytes).reversed(group) for rows in reversed(self.hops(copies, group))
        )

    def kernel(self, group: Group) -> str:
        """Whose constants hold in this group."""
        return self._versioned(self.kernels[0])

    def kernels_in(self, group: Group) -> tuple[str, ...]:
        """`kernel`, none where nobody sends: in a group of one."""
        return (self.kernel(group),) if len(group.devices) > 1 else ()

    def reserved_bytes(self, tokens: int, experts: int, width: int) -> int:
        """What buffers of a rank take before a row is sent, whatever arrives: the most tokens of a rank, slots of all
        experts, numbers of a row.
        """
        return 0

    def all_kernels(self) -> tuple[str, ...]:
        """The names under which a profile may know the constants of any group."""
        return tuple(self._versioned(kernel) for kernel in self.kernels)

    @property
    def usual_version(self) -> str:
        """The one that is meant where none is named, "" if there are none; its constants have the bare name."""
        return self.usual or (self.versions[-1] if self.versions else "")

    @property
    def same_node(self) -> str:
        """ "nvlink" or "rdma"."""
        return self.path or self.paths[0]

    def configured(self, version: str | None, path: str | None, where: str = "") -> AllToAll:
        """The same algorithm of another version or path. Raises BadInput with the known ones."""
        for what, value, known in (("version", version, self.versions), ("path", path, self.paths)):
            if value is not None and len(known) < 2:
                raise BadInput(f"{self.name} has no {what} to choose", where=where, way_out=f"leave {what} out")
            if value is not None and value not in known:
                raise unknown_name(f"{self.name} {what}", value, known, where=where)
        return replace(self, version=version, path=path)

    def _versioned(self, kernel: str) -> str:
        return kernel if (self.version or self.usual_version) == self.usual_version else f"{kernel}@{self.version}"
