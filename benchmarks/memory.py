"""The most memory that a process had."""

from __future__ import annotations

from pathlib import Path


def peak_bytes() -> int:
    """Since this program began. `getrusage` also counts what the process had before it became this program: that of the
    parent, if a benchmark starts another.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")
