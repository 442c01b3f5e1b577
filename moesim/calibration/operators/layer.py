"""One rank of a whole expert-parallel MoE layer: the truth that a composition of costs is checked against.

    tokens --permute--> send buffer --dispatch--> received --sort--> by expert --experts--> --unsort--> --combine-->
    back --merge--> tokens

Routing is given: which experts a token takes is not computed here. Splits are known on the host, as they are with a
recorded trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist

from moesim.calibration.operators.ffn import Experts
from moesim.calibration.operators.permute import gather, merge
from moesim.calibration.routed import Routed


class Stage(NamedTuple):
    """One kernel of the layer: name and function of the rows that the stage before left."""

    name: str
    run: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Layer:
    """order int64[T k]: choices of this rank's tokens by destination; sorting int64[R]: received rows by expert;
    spot int64[T, k]: where each choice comes back; splits: rows to and from every rank.
    """

    experts: Experts
    ffn: Callable[[torch.Tensor], torch.Tensor]
    order: torch.Tensor
    sorting: torch.Tensor
    unsorting: torch.Tensor
    spot: torch.Tensor
    weight: torch.Tensor
    out_splits: list[int]
    in_splits: list[int]

    @staticmethod
    def of(routed: Routed, rank: int, experts: Experts, weight: torch.Tensor, *, loop: bool) -> Layer:
        """The layer of one rank; weight [T, k] says how its tokens' rows are merged."""
        device = weight.device
        top_k = routed.expert.shape[2]
        order = torch.from_numpy(routed.expert[rank].reshape(-1)).argsort(stable=True)
        spot = _inverse(order).view(-1, top_k)
        sorting = _received_expert(routed, rank).argsort(stable=True)
        matrix = routed.split_matrix
        return Layer(
            experts,
            experts.loop if loop else experts.grouped,
            (order // top_k).to(device),
            sorting.to(device),
            _inverse(sorting).to(device),
            spot.to(device),
            weight,
            list(matrix[rank]),
            [source[rank] for source in matrix],
        )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What a pass does, in order."""
        return (
            Stage("permute", lambda tokens: gather(tokens, self.order)),
            Stage("dispatch", lambda rows: self._exchange(rows, self.in_splits, self.out_splits)),
            Stage("sort", lambda rows: gather(rows, self.sorting)),
            Stage("experts", self.ffn),
            Stage("unsort", lambda rows: gather(rows, self.unsorting)),
            Stage("combine", lambda rows: self._exchange(rows, self.out_splits, self.in_splits)),
            Stage("merge", lambda rows: merge(rows, self.spot, self.weight)),
        )

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """[T, hidden] -> [T, hidden]."""
        rows = tokens
        for stage in self.stages:
            rows = stage.run(rows)
        return rows

    @staticmethod
    def _exchange(rows: torch.Tensor, take: list[int], give: list[int]) -> torch.Tensor:
        received = rows.new_empty(sum(take), rows.shape[1])
        if dist.is_initialized():
            dist.all_to_all_single(received, rows, take, give)
        else:
            received.copy_(rows)
        return received


def _received_expert(routed: Routed, rank: int) -> torch.Tensor:
    """int64[R]: the local expert of each row as it arrives, source by source, in each sorted by expert."""
    local = routed.num_experts // routed.world
    mine = torch.from_numpy(routed.rows[:, rank * local : (rank + 1) * local])
    return torch.arange(local).repeat(routed.world).repeat_interleave(mine.reshape(-1))


def _inverse(order: torch.Tensor) -> torch.Tensor:
    found = torch.empty_like(order)
    found[order] = torch.arange(len(order))
    return found
