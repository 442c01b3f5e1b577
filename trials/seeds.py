"""One digest of what a run stores, whatever Python's hash seed, the number of threads, and the Python.

    python -m trials.seeds [--seeds 20] [--python PATH ...]

A run over two nodes (links, hot links, rows of every layer) in a process of its own for each hash seed, on one thread
and on two in turns, by each Python that is named and has moesim's dependencies; the one that runs this by default.
Prints how many digests there were of each stored file; exits with 1 where there is more than one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Final

RUN: Final = ("run", "demo-tiny", "--set", "cluster.nodes=2", "--set",
              "parallel={data_parallel_size: 16, expert_parallel_size: 16}", "--json", "--out")  # fmt: skip
THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS")
STORED: Final = ("result.json", "pictures.json", "scenario.yaml")


def digests(python: str, seed: int, threads: int) -> dict[str, str]:
    """Stored file, and what was printed -> sha256 of one run."""
    environment = os.environ | dict.fromkeys(THREADS, str(threads)) | {"PYTHONHASHSEED": str(seed)}
    with tempfile.TemporaryDirectory() as name:
        words = [python, "-m", "moesim", *RUN, f"{name}/run"]
        told = subprocess.run(words, env=environment, capture_output=True, check=True)
        found = {file: sha256((Path(name) / "run" / file).read_bytes()).hexdigest() for file in STORED}
    return found | {"--json": sha256(told.stdout).hexdigest()}


def main() -> int:
    """A line a file."""
    parser = argparse.ArgumentParser(prog="python -m trials.seeds")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--python", action="append", default=[])
    given = parser.parse_args()
    seen: dict[str, Counter[str]] = {}
    for python in given.python or [sys.executable]:
        for seed in range(given.seeds):
            for file, digest in digests(python, seed, 1 + seed % 2).items():
                seen.setdefault(file, Counter())[digest] += 1
    for file, found in seen.items():
        print(f"{file:14} {sum(found.values())} runs, {len(found)} digests: {', '.join(one[:12] for one in found)}")
    return int(any(len(found) > 1 for found in seen.values()))


if __name__ == "__main__":
    sys.exit(main())
