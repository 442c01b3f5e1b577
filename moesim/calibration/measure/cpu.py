"""The device class cpu: one torch thread of one process; its records make a profile of their own.

Compute is timed in CPU seconds of the process, which another process on the same core does not stretch;
communication in wall seconds, since its waiting is what one wants to know.
"""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

_CPUINFO = Path("/proc/cpuinfo")
_L2 = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
DEFAULT_L2 = 2 << 20  # bytes, where the system does not say
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
SAMPLE_FLOOR = 1e-9  # seconds: the clocks' resolution; a record's time is positive


class CpuTarget:
    """See Target."""

    device_class, backend, sms = "cpu", "gloo", 0

    def __init__(self) -> None:
        torch.set_num_threads(1)
        keep_memory()
        self.device = torch.device("cpu")
        self._scratch = torch.ones(2 * _l2_bytes() // 4, dtype=torch.float32)

    def seconds(self, call: Callable[[], Any], *, cold: bool, hold: Callable[[], Any] | None) -> float:
        """See Target; a held call is timed by the wall clock."""
        if cold:
            self._scratch.add_(1.0)
        if hold is None:
            return cpu_seconds(call)
        hold()
        start = time.perf_counter()
        call()
        return max(time.perf_counter() - start, SAMPLE_FLOOR)

    def synchronize(self) -> None:
        """Nothing runs behind the caller's back."""

    def pause(self) -> None:
        """Nothing is launched ahead."""

    def release(self) -> None:
        """The allocator gives it back by itself."""

    def held(self) -> int:
        """Nobody counts them."""
        return 0

    def waits(self, call: Callable[[], Any]) -> bool:
        """Host and device are one."""
        call()
        return False

    def graph(self, calls: Sequence[Callable[[], Any]]) -> None:
        """A CPU has no graphs."""
        del calls

    def clock(self) -> tuple[float, str]:
        """The fastest core's MHz as the kernel reports it."""
        return max((float(value) for value in _cpuinfo("cpu MHz")), default=0.0), ""

    def identity(self) -> Mapping[str, str]:
        """See Target."""
        return {"device": self._name, "driver": "", "cuda": "", "nccl": "", "torch": torch.__version__}

    @cached_property
    def _name(self) -> str:
        model = next(iter(_cpuinfo("model name")), platform.processor() or platform.machine())
        return f"{model}, {torch.backends.cpu.get_cpu_capability()}, 1 thread"


def keep_memory() -> None:
    """glibc keeps freed memory, as CUDA's caching allocator does: a sample pays for no pages that the kernel hands out.

    Source: mallopt(3). Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def cpu_seconds(call: Callable[[], Any]) -> float:
    """CPU seconds that all threads of this process spend during the call."""
    start = time.process_time()
    call()
    return max(time.process_time() - start, SAMPLE_FLOOR)


def _cpuinfo(name: str) -> list[str]:
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(name)]


def _l2_bytes() -> int:
    text = _L2.read_text().strip() if _L2.exists() else ""
    return int(text[:-1]) << 10 if text.endswith("K") else DEFAULT_L2
