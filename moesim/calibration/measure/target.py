"""Target: the device that is measured; its clock, its cache, its graphs. One file a device class, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from moesim.calibration.measure.cpu import CpuTarget
from moesim.calibration.measure.cuda import CudaTarget
from moesim.errors import BadInput, unknown_name

Call = Callable[[], Any]
DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.float8_e4m3fn,
}  # fmt: skip


class Target(Protocol):
    """All times are seconds. `device_class` is what records call it, `backend` the one of torch.distributed, `sms`
    the multiprocessors that the device has, 0 where it has none.
    """

    device_class: str
    device: torch.device
    backend: str
    sms: int

    def seconds(self, call: Call, *, cold: bool, hold: Call | None) -> float:
        """One sample: evict the cache if `cold`, `hold` (communication: all ranks meet), then time the call."""

    def synchronize(self) -> None:
        """Return when all work that was launched is done."""

    def pause(self) -> None:
        """Occupy the device for a moment, so that what is launched next starts without waiting for the host."""

    def release(self) -> None:
        """Give back the memory of the last case."""

    def held(self) -> int:
        """Bytes of the tensors that are there, 0 where nobody counts them."""

    def waits(self, call: Call) -> bool:
        """Call it once: whether the host waits for the device inside."""

    def graph(self, calls: Sequence[Call]) -> Call | None:
        """The calls, one after another, as one captured graph; a replay returns what the last one does. None where the
        device has no graphs.
        """

    def clock(self) -> tuple[float, str]:
        """MHz now, 0 if unknown, and the reason why the device slows itself down, "" if it does not."""

    def identity(self) -> Mapping[str, str]:
        """device, driver, cuda, nccl and torch as records call them."""


TARGETS: dict[str, type[CpuTarget] | type[CudaTarget]] = {"cpu": CpuTarget, "cuda": CudaTarget}


def find_target(device_class: str) -> Target:
    """The target of that class. Raises BadInput for an unknown one, and where this machine has none."""
    if device_class not in TARGETS:
        raise unknown_name("device class", device_class, TARGETS)
    if device_class == "cuda" and not torch.cuda.is_available():
        raise BadInput(
            f"torch {torch.__version__} sees no GPU",
            way_out="a plan with device: cpu, such as cpu-smoke; or a torch built for this GPU's CUDA",
        )
    return TARGETS[device_class]()
