"""A pipelined step whose layers and micro-batches all have routing of their own, on 2,048 and on more GPUs.

    python -m benchmarks.training

CPU seconds (user + system) of one step after a small one of the same patterns has compiled what it needs: tokens
looked up, patterns built, 55,680 routed all-to-alls of the layers (or those and half as many again that recomputed
experts need) played, DualPipe's overlap on. Each size in a process of its own, for its memory; the exponent is that of
the CPU seconds over the GPUs.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time

from benchmarks.memory import peak_bytes
from moesim.routing import Sampled
from moesim.routing.sources.sequences import Sequences
from moesim.studies.training import load_training
from moesim.studies.training.job import job_of
from moesim.studies.training.tokens import SEQUENCES
from moesim.training import Job, routed_step

SCENARIO, STATISTICS = "dsv3-train-2048", "prefill_in4096"
KEPT = "training.recompute=[mla_up_proj]"  # experts are not computed again: 55,680, whose rows would not fit in HBM
RUNS = (  # GPUs, changes, bars of seconds and GB
    (2048, (KEPT,), (10, 2)), (2048, (), None), (4096, (), None), (8192, (), None), (16384, (), (120, 8)),
)  # fmt: skip


def job(gpus: int, *changes: str) -> Job:
    """The shipped scenario on so many GPUs: more replicas, so more islands of each stage."""
    return job_of(load_training(SCENARIO, (f"cluster.nodes={gpus // 8}", f"parallel.data_parallel_size={gpus // 16}",
                                           *changes)))  # fmt: skip


def step(gpus: int, *changes: str) -> None:
    """One line: CPU seconds, GB, all-to-alls and the step."""
    small = job(2048, "batch.micro_batches=32", *changes)
    routed_step(small, Sequences(Sampled(STATISTICS, small.model, 0), 1), 1)
    one = job(gpus, *changes)
    begin = time.process_time()
    found = routed_step(one, Sequences(Sampled(STATISTICS, one.model, 0), SEQUENCES))
    taken, memory = time.process_time() - begin, peak_bytes() / 1e9
    print(f"{taken:.2f} {memory:.2f} {found.alltoalls} {found.seconds:.2f}")


def main() -> None:
    """Print each figure beside its bar."""
    seconds = {}
    for gpus, changes, bars in RUNS:
        call = [sys.executable, "-c", f"from benchmarks import training; training.step({gpus}, *{changes!r})"]
        words = subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()
        taken, memory, played, lasts = words
        seconds[gpus] = float(taken)
        told = f"   (bars {bars[0]} s, {bars[1]} GB)" if bars else ""
        print(
            f"{gpus:,} GPUs: {int(played):,} all-to-alls, a step of {lasts} s: {taken} s of CPU, {memory} GB{told}",
            flush=True,
        )
    (first, few), *_, (last, many) = seconds.items()
    print(f"CPU seconds grow with GPUs to the power of {math.log(many / few) / math.log(last / first):.2f}")


if __name__ == "__main__":
    main()
