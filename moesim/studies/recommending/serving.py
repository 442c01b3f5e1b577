"""The screen of a serving space: an estimate of every candidate that can be built, the reason of every other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.errors import MoesimError
from moesim.hardware import load_cluster
from moesim.studies.recommending.finalists import Reached, Screen
from moesim.studies.recommending.screen import Estimate, Load, Pool, apart, together
from moesim.studies.recommending.space import Candidate
from moesim.studies.recommending.steps import Steps
from moesim.studies.serving import ServeLoaded, load_serving
from moesim.studies.serving.build import build_serving
from moesim.studies.serving.load import in_pool
from moesim.studies.serving.pool_sections import ROLES
from moesim.studies.sweeping.axes import override
from moesim.studies.sweeping.subject import Subject

PLACELESS = ("replicas", "scheduler.")  # keys that change no plan
COLUMNS = ("tokens_per_s_per_gpu", "tokens_per_s_per_user")  # goals; the third column is 1 / TTFT
Metrics = Mapping[str, Mapping[str, Any]]


def figures(metrics: Metrics, gpus: int) -> dict[str, float]:
    """What deployments are compared by, of a run's metrics: output tokens a second of a GPU; those that a user sees,
    the reciprocal of the mean TPOT; GPU hours of a million; and the share of all requests, refused ones too, that meet
    every limit.
    """
    value = {name: float(one["value"]) for name, one in metrics.items()}
    rate = value["output_throughput"] / gpus
    share = value["completed"] / (value["completed"] + value["failed"])
    good = value.get("request_goodput", value["request_throughput"]) / value["request_throughput"]
    return {
        COLUMNS[0]: rate,
        COLUMNS[1]: 1e3 / value["mean_tpot_ms"] if value.get("mean_tpot_ms") else 0.0,
        "gpu_hours_per_mtok": 1e6 / 3600 / rate,
        "slo_attainment": share * good,
    }


def reached(metrics: Metrics, gpus: int, attain: float) -> Reached:
    """The columns of the screen, of a run."""
    found = figures(metrics, gpus)
    wait = float(metrics["mean_ttft_ms"]["value"]) / 1e3
    values = np.array([found[COLUMNS[0]], found[COLUMNS[1]], 1 / max(wait, 1e-9)])
    return Reached(values, found["slo_attainment"] >= attain)


@dataclass(frozen=True)
class Screened:
    """Candidates that can be built, their estimates, and why others cannot."""

    candidates: tuple[Candidate, ...]
    estimates: tuple[Estimate, ...]
    refused: tuple[tuple[Candidate, MoesimError], ...]

    def screen(self, limits: Mapping[str, float]) -> Screen:
        """limits: seconds of a request."""
        rows = [
            (one.throughput / candidate.gpus, 1 / one.tpot, 1 / one.ttft)
            for candidate, one in zip(self.candidates, self.estimates, strict=True)
        ]
        floor = [0.0, *(1 / limits[name] if name in limits else 0.0 for name in ("tpot", "ttft"))]
        return Screen(np.array(rows), len(COLUMNS), np.array(floor))


def screen(subject: Subject, space: Sequence[Candidate], seed: int, tell: Callable[[str], None]) -> Screened:
    """An estimate of each candidate; plans are sealed once. Raises BadInput where no candidate can be built."""
    bench = Bench(subject, seed)
    able, estimates, refused = [], [], []
    for number, candidate in enumerate(space, start=1):
        tell(f"screening {number} of {len(space)} candidates")
        try:
            estimates.append(bench.estimate(candidate))
            able.append(candidate)
        except MoesimError as error:
            refused.append((candidate, error))
    if not able:
        raise refused[-1][1]
    return Screened(tuple(able), tuple(estimates), tuple(refused))


class Bench:
    """Plans that were sealed, by the keys that make them; what cannot be sealed is remembered too."""

    def __init__(self, subject: Subject, seed: int) -> None:
        self.subject, self.seed = subject, seed
        self._steps: dict[str, Steps] = {}
        self._refused: dict[str, MoesimError] = {}
        self._load: Load | None = None

    def estimate(self, candidate: Candidate) -> Estimate:
        """Raises BadInput, DoesNotFit."""
        loaded = load_serving(self.subject.base, [override(*pair) for pair in candidate.keys.items()])
        load = self._load = self._load or Load.of(loaded.scenario.requests.draw(self.seed)[0])
        plan = {key: value for key, value in candidate.keys.items() if not key.startswith(PLACELESS)}
        if loaded.scenario.pools is None:
            return together(self._pool(loaded, plan, load, loaded.scenario.replicas), load)
        pools = {"prefill": loaded.scenario.pools.prefill, "decode": loaded.scenario.pools.decode}
        built = []
        for role in ROLES:
            section = pools[role]
            world = section.parallel.tensor_parallel_size * section.parallel.data_parallel_size
            own = {**{k: v for k, v in plan.items() if k != "pools"}, role: section.model_dump(exclude={"replicas"})}
            alone = in_pool(loaded, role, -(-world // self.node(loaded)))
            built.append(self._pool(alone, own, load, section.replicas))
        return apart(built[0], built[1], load)

    def node(self, loaded: ServeLoaded) -> int:
        """GPUs of a node."""
        cluster = loaded.scenario.cluster
        return load_cluster(cluster.topology, **cluster.changes).gpus_per_node

    def _pool(self, loaded: ServeLoaded, plan: Mapping[str, Any], load: Load, replicas: int) -> Pool:
        """Raises what sealing it does: also where a larger token budget does not fit and a smaller one does."""
        settings, key = loaded.scenario.scheduler.settings(), json.dumps(plan, sort_keys=True)
        whole = f"{key} {settings.model_dump_json()}"
        if whole in self._refused:
            raise self._refused[whole]
        try:
            if key not in self._steps:
                self._steps[key] = Steps(build_serving(loaded, self.seed), load.context)
            return Pool(self._steps[key], settings, replicas, self._steps[key].tokens(settings))
        except MoesimError as error:
            self._refused[whole] = error
            raise
