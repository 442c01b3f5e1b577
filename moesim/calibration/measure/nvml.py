"""NVML in this process: what the driver says of one GPU, without a child process for each question.

Source: NVML's API reference, and the package nvidia-ml-py, which is its module pynvml.
"""

from __future__ import annotations

import importlib
from typing import Any


class Nvml:
    """The GPU of that UUID ("GPU-..."); where the package or the driver is missing, nothing is known."""

    def __init__(self, uuid: str) -> None:
        self._library, self._gpu = _opened(uuid)

    def clock(self) -> tuple[float, int]:
        """MHz of the SMs now, and the bits of the reasons for which they are slowed; (0, 0) where not known."""
        if self._gpu is None:
            return 0.0, 0
        try:
            megahertz = float(self._library.nvmlDeviceGetClockInfo(self._gpu, self._library.NVML_CLOCK_SM))
            return megahertz, int(self._library.nvmlDeviceGetCurrentClocksThrottleReasons(self._gpu))
        except self._library.NVMLError:
            return 0.0, 0

    def driver(self) -> str:
        """Its version, "" where not known."""
        if self._gpu is None:
            return ""
        version = self._library.nvmlSystemGetDriverVersion()
        return version.decode() if isinstance(version, bytes) else str(version)


def _opened(uuid: str) -> tuple[Any, Any]:
    """The library and the GPU's handle, None both where one is missing."""
    try:
        library = importlib.import_module("pynvml")
    except ImportError:
        return None, None
    try:
        library.nvmlInit()
        return library, library.nvmlDeviceGetHandleByUUID(uuid)
    except library.NVMLError:
        return None, None
