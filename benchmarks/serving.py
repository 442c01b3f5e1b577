"""Simulated requests per CPU second: 5,000 requests of 512 in and 128 out on 4 replicas of Qwen3-235B, EP8.

    python -m benchmarks.serving [requests [seeds]]

Poisson arrivals at 80 % of what the replicas serve when everything comes at once, recorded routing carried over. CPU
seconds of this process for the loop alone: plans are built, the recording is carried over to the model and kernels are
loaded before; the clock has answered for 200 requests.
With seeds: by how much every metric of renewed steps differs from that of exact ones, in the mean over so many draws,
with its standard error; and beside it exact steps whose tokens are looked up under another seed. Replicas step out of
beat by the smallest difference, so that two such runs are two draws of one queue.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np

from moesim.routing.sources.replay import Recorded
from moesim.serving import Requests, Served, serve
from moesim.serving.compiled_loop import FEWEST
from moesim.serving.metrics import numbers
from moesim.studies.serving import load_serving
from moesim.studies.serving.build import ServeBuilt, build_serving
from moesim.units import to_ps

REQUESTS, WARM, INPUT, OUTPUT, SHARE = 5000, 200, 512, 128, 0.8
BARS = {"1": 1000, "16": 7000, "never": 15000}  # routing.renew -> requests per CPU second
OVERRIDES = ("model=Qwen/Qwen3-235B-A22B", "precision={weights: fp8, experts: fp8}", "replicas=4")
COMPARED = ("mean_ttft_ms", "mean_tpot_ms", "p99_itl_ms", "output_throughput")


def built_with(renew: str, seed: int = 0) -> ServeBuilt:
    """The system, its routing looked up anew every `renew` uses, its recording carried over."""
    built = build_serving(load_serving("qwen3-serve", [*OVERRIDES, f"routing.renew={renew}"]), seed)
    assert isinstance(built.plan.routing, Recorded)
    recording = built.plan.routing.recording
    recording.table(np.arange(len(recording.table())))
    return built


def asked(number: int, rate: float, seed: int = 0) -> Requests:
    """`number` requests at `rate` a second; all at once where it is 0."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, number) if rate else np.zeros(number)
    return Requests(to_ps(np.cumsum(gaps)), np.full(number, INPUT), np.full(number, OUTPUT))


def timed(built: ServeBuilt, requests: Requests) -> tuple[Served, float]:
    """What happened, and the CPU seconds it took. FEWEST requests on a clock of their own load the compiled loop."""
    other, clock = built.clock(), built.clock()
    serve(asked(FEWEST, 0.0), lambda book: built.replicas(book, other))
    serve(replace(requests, arrival=requests.arrival[:WARM], prompt=requests.prompt[:WARM],
                  output=requests.output[:WARM]), lambda book: built.replicas(book, clock))  # fmt: skip
    begin = time.process_time()
    served = serve(requests, lambda book: built.replicas(book, clock))
    return served, time.process_time() - begin


def main() -> None:
    """Print every bar with its figure."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    capacity = numbers(timed(built_with("16"), asked(min(number, 1000), 0.0))[0], 0, {})["request_throughput"][0]
    requests = asked(number, SHARE * capacity)
    print(f"{capacity:.1f} requests/s are served at most; {number} come at {SHARE * capacity:.1f}/s")
    exact: dict[str, float] = {}
    for renew, bar in BARS.items():
        served, seconds = timed(built_with(renew), requests)
        found = {name: numbers(served, 0, {})[name][0] for name in COMPARED}
        exact = exact or found
        off = ", ".join(f"{name} {found[name] / exact[name] - 1:+.2%}" for name in COMPARED)
        steps = sum(replica.steps for replica in served.replicas)
        rate = f"{number / seconds:,.0f} requests per CPU second   (bar {bar:,})"
        print(f"routing.renew {renew}: {rate}; {steps} steps, {off}")
    if len(sys.argv) > 2:
        for name, pair in (("renewed", ("16", 0)), ("exact under another seed", ("1", 1))):
            apart = deviations(number, SHARE * capacity, int(sys.argv[2]), *pair)
            worst = sorted(apart.items(), key=lambda one: -abs(one[1][0]))[:6]
            said = ", ".join(f"{one} {mean:+.2%} +- {error:.2%}" for one, (mean, error) in worst)
            print(f"{name} over exact, furthest off: {said}")


def deviations(number: int, rate: float, seeds: int, renew: str, other: int) -> dict[str, tuple[float, float]]:
    """Metric -> mean over seeds of the other over exact, less 1, and its standard error."""
    systems = [built_with("1"), built_with(renew, other)]
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        exact, changed = (numbers(timed(built, asked(number, rate, seed))[0], 0, {}) for built in systems)
        for name, (value, _) in exact.items():
            if value:
                found.setdefault(name, []).append(changed[name][0] / value - 1)
    return {name: (float(np.mean(one)), float(np.std(one) / max(seeds - 1, 1) ** 0.5)) for name, one in found.items()}


if __name__ == "__main__":
    main()
