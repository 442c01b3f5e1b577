"""Recommend: Qwen3-235B (FP8) on 16 H100 with limits, searched and exhaustively.

    python -m benchmarks.recommend [--exhaustive]

Wall clock and CPU seconds of a whole process that searches with two workers into an empty store; kernels are compiled
before. Bars: 60 s on two idle cores; a front within 2 % of the hypervolume of simulating every candidate, which takes
some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

SCENARIO = {
    "moesim": 1, "name": "qwen3-235b", "mode": "serve", "model": "Qwen/Qwen3-235B-A22B-FP8",
    "cluster": {"topology": "dgx-h100", "nodes": 2}, "comm": {"dispatch": "deepep_low_latency"},
    "routing": {"trace": "tiny-moe", "transplant": True, "renew": "never"},
    "requests": {
        "number": 200, "arrivals": {"closed_loop": {"concurrency": 64}},
        "input_length": {"lognormal": {"mean": 1024, "cv": 0.8}},
        "output_length": {"lognormal": {"mean": 128, "cv": 0.8}},
    },
    "scheduler": {"preset": "vllm_dp_ep", "max_num_seqs": 256}, "slo": {"ttft": "2 s", "tpot": "50 ms"},
}  # fmt: skip


def searched(folder: str, *words: str) -> tuple[dict[str, Any], float, float]:
    """(document, wall, CPU seconds) of a process and its workers."""
    path = Path(folder, "scenario.yaml")
    path.write_text(yaml.safe_dump(SCENARIO))
    command = [sys.executable, "-m", "moesim", "recommend", str(path), "--jobs", "2", "--json", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    begun, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return json.loads(done.stdout), time.perf_counter() - begun, spent


def main() -> None:
    """Print each figure beside its bar."""
    parser = argparse.ArgumentParser(description="recommend")
    parser.add_argument("--exhaustive", action="store_true")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        searched(
            folder, "--gpus", "4", "--out", "first", "--simulate", "1", "--set", "slo={}"
        )  # compiles what is not there yet
        found, wall, spent = searched(folder, "--out", "search")
        count = {name: one["value"] for name, one in found["metrics"].items()}
        print(f"{count['candidates']} candidates, {count['simulated']} simulated, {count['front_points']} on the front")
        print(f"search: {wall:.1f} s, {spent:.1f} s CPU of all processes   (bar 60 s on two idle cores)")
        if given.exhaustive:
            found, wall, spent = searched(folder, "--out", "search", "--exhaustive")
            share = found["metrics"]["share_of_exhaustive"]["value"]
            print(f"front: {share:.2%} of the exhaustive hypervolume   (bar 98 %); the rest took {spent:.1f} s CPU")


if __name__ == "__main__":
    main()
