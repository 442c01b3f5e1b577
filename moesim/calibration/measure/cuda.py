"""The device class cuda: all that this room says in CUDA's own words stands here and in the two operators for it.

Sources: torch.cuda (Event, CUDAGraph, graph, get_device_properties) and torch.distributed in PyTorch's documentation;
NVML's documentation for the bits of the throttle reasons.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from moesim.calibration.measure.nvml import Nvml
from moesim.calibration.measure.peers import local_rank

MIN_FLUSH = 256 << 20  # bytes written to evict the L2, at least
PAUSE_CYCLES = 400_000  # about 0.2 ms of an SM: longer than the host needs to launch what follows
SYNCHRONIZING = "called a synchronizing CUDA operation"  # torch's words
WARM_CALLS = 3  # before a capture, on a side stream, as torch.cuda.graph asks for
# not 0x04, the power cap: large GEMMs run at it all the time, and a fall of the clock shows
SLOWDOWNS = {
    0x08: "hardware slowdown", 0x20: "software thermal slowdown", 0x40: "hardware thermal slowdown",
    0x80: "power brake",
}  # fmt: skip


class CudaTarget:
    """See Target. The GPU is the one that LOCAL_RANK names, as torchrun sets it."""

    device_class, backend = "cuda", "nccl"

    def __init__(self) -> None:
        self.device = torch.device("cuda", local_rank())
        torch.cuda.set_device(self.device)
        self._properties = torch.cuda.get_device_properties(self.device)
        self.sms = int(self._properties.multi_processor_count)
        size = max(2 * self._properties.L2_cache_size, MIN_FLUSH)
        self._nvml = Nvml(f"GPU-{self._properties.uuid}")
        self._scratch = torch.empty(size // 4, dtype=torch.int32, device=self.device)

    def seconds(self, call: Callable[[], Any], *, cold: bool, hold: Callable[[], Any] | None) -> float:
        """See Target: a pair of events around the call, on the current stream."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        if cold:
            self._scratch.zero_()
        if hold is not None:
            hold()
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e-3  # milliseconds

    def synchronize(self) -> None:
        """See Target."""
        torch.cuda.synchronize(self.device)

    def pause(self) -> None:
        """See Target; `_sleep` spins on the device for that many cycles."""
        torch.cuda._sleep(PAUSE_CYCLES)

    def release(self) -> None:
        """See Target."""
        torch.cuda.empty_cache()

    def held(self) -> int:
        """See Target."""
        return int(torch.cuda.memory_allocated(self.device))

    def waits(self, call: Callable[[], Any]) -> bool:
        """See Target: torch warns of each operation that synchronizes (torch.cuda.set_sync_debug_mode)."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                call()
            finally:
                torch.cuda.set_sync_debug_mode(before)
        return any(SYNCHRONIZING in str(one.message) for one in said)

    def graph(self, calls: Sequence[Callable[[], Any]]) -> Callable[[], Any]:
        """See Target. Raises RuntimeError where a call cannot be captured."""
        try:
            return self._captured(calls)
        except RuntimeError as error:
            raise RuntimeError(f"cannot be captured as a graph: {str(error).splitlines()[0]}") from None

    def _captured(self, calls: Sequence[Callable[[], Any]]) -> Callable[[], Any]:
        """Warm-up and capture share one side stream; NCCL's watchdog thread must not break the capture."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for call in [*calls, *[calls[0]] * WARM_CALLS][: max(WARM_CALLS, len(calls))]:
                call()
        torch.cuda.current_stream().wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured, stream=side, capture_error_mode="thread_local"):
            result = [call() for call in calls][-1]

        def replay() -> Any:
            captured.replay()
            return result

        return replay

    def clock(self) -> tuple[float, str]:
        """See Target."""
        megahertz, reasons = self._nvml.clock()
        return megahertz, slowdowns(reasons)

    def identity(self) -> Mapping[str, str]:
        """See Target."""
        nccl = torch.cuda.nccl.version() if torch.distributed.is_nccl_available() else ()
        return {
            "device": self._properties.name,
            "driver": self._nvml.driver(),
            "cuda": torch.version.cuda or "",
            "nccl": ".".join(map(str, nccl)),
            "torch": torch.__version__,
        }


def slowdowns(bits: int) -> str:
    """NVML's bit mask -> the reasons that mean a slower device, "" for none."""
    return ", ".join(name for bit, name in SLOWDOWNS.items() if bits & bit)
