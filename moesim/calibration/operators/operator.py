"""Operator: what can be measured. One file an operator, and a line in the registry (`operators/__init__.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import torch

from moesim.calibration.measure.case import Case
from moesim.calibration.measure.peers import Peers
from moesim.calibration.measure.plan import PlanSection
from moesim.calibration.measure.target import DTYPES, Target

TOLERANCE: Final = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}  # of the largest value


class WrongResult(Exception):
    """A kernel computed something else than its reference."""


class Prepared(NamedTuple):
    """call: launches the operator once, on buffers that are there; check: raises WrongResult for what it returned;
    flops, bytes: of this rank; takes_part: False where this rank only stands by; within: what holds while it is called;
    before: runs ahead of each call, outside its time; columns: of records, known only now.
    """

    call: Callable[[], Any]
    check: Callable[[Any], None]
    flops: float = 0.0
    bytes: float = 0.0
    takes_part: bool = True
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    before: Callable[[], Any] | None = None
    columns: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Place:
    """Where a case is measured."""

    target: Target
    peers: Peers

    def random(self, *size: int, dtype: str) -> torch.Tensor:
        """Normal values, the same on every run of the case, other ones on every rank."""
        device = self.target.device
        generator = torch.Generator(device).manual_seed(1 + self.peers.rank)
        return torch.randn(*size, generator=generator, device=device, dtype=DTYPES[dtype])

    def empty(self, *size: int, dtype: str) -> torch.Tensor:
        """A buffer on the device."""
        return torch.empty(*size, dtype=DTYPES[dtype], device=self.target.device)


class Operator(NamedTuple):
    """kernel: as records call it; cases(plan, world): what a plan asks of it; prepare(case, place): buffers and call.

    collective: all ranks call it together; least_world: ranks it needs; refuses(target): why it cannot run there;
    backend: who runs it, as records call them, "" torch.distributed's; module: whose version is recorded, "" torch's;
    waits: the host waits for the device in it wherever it is called.
    """

    kernel: str
    cases: Callable[[PlanSection, int], Iterable[Case]]
    prepare: Callable[[Case, Place], Prepared]
    collective: bool = False
    least_world: int = 1
    refuses: Callable[[Target], str] = lambda target: ""
    graphs: bool = True
    backend: str = "torch"
    module: str = ""
    waits: bool = False


def expect_close(found: torch.Tensor, expected: torch.Tensor, *, limit: float = 0.0) -> None:
    """Raises WrongResult unless both agree to a share of the largest value: to what the dtype of `found` can hold."""
    if found.shape != expected.shape:
        raise WrongResult(f"shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    if not found.numel():
        return
    off = (found.float() - expected.float()).abs().max().item()
    largest = max(expected.float().abs().max().item(), 1e-6)
    limit = limit or TOLERANCE.get(found.dtype, TOLERANCE[torch.bfloat16])
    if not off <= limit * largest:
        raise WrongResult(f"off by {off / largest:.2g} of the largest value, {limit:g} allowed")


def expect_equal(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Raises WrongResult unless every value is the same."""
    if not torch.equal(found.cpu(), expected.cpu()):
        raise WrongResult("values differ from the reference")
