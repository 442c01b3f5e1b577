"""Where the time went, in words: sentences made from the JSON document of a run alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from moesim.units import show_seconds

Document = Mapping[str, Any]

RUNGS: Final = {
    "ideal_compute_s": (
        "balanced compute",
        "computing, if every GPU had the mean number of rows and of experts reached",
    ),
    "imbalance_s": (
        "imbalance",
        "waiting for the GPUs that got more rows, or have more experts to read, than the mean",
    ),
    "exposed_comm_s": ("exposed communication", "transfers that no computation hides"),
    "contention_s": ("contention", "transfers that slow each other down on shared links"),
    "fault_s": ("faults", "slow or dead links and ranks, and what they keep waiting"),
    "bubble_s": ("pipeline bubble", "stages that have nothing to do"),
    "other_s": ("host and the rest", "launching, scheduling, and what belongs to no rung above"),
    "schedule_effect_s": ("schedule effect", "gained where one thing more to do lets something else end earlier"),
}
REMEDY: Final = {
    "ideal_compute_s": "The GPUs compute most of the time: precision, kernels or more GPUs change that, the network "
    "does not.",
    "imbalance_s": "Experts got unequal rows: redundant experts or another placement spread them (experts.redundant).",
    "exposed_comm_s": "Transfers show: overlap them (overlap.schedule), send fewer bytes (comm.dispatch_dtype), keep "
    "experts closer together (experts.placement).",
    "contention_s": "Links are shared by too many at a time: less oversubscription, or another all-to-all.",
    "fault_s": "Faults cost most: another way round them (faults.then: reroute), or repair.",
    "bubble_s": "Stages idle: more micro-batches or another pipeline schedule.",
    "other_s": "The host is the problem: CUDA graphs or larger batches.",
}  # fmt: skip


def rungs(document: Document) -> list[tuple[str, str, float | None, float]]:
    """(key, label, seconds or None where it was not played, share of the step) for each key of the breakdown."""
    total = step_seconds(document)
    return [
        (key, RUNGS[key][0] if key in RUNGS else key, seconds, (seconds or 0.0) / total if total else 0.0)
        for key, seconds in document["breakdown"].items()
    ]


def step_seconds(document: Document) -> float:
    """The step time; the sum of the breakdown in a document without that metric."""
    metric = document["metrics"].get("step_time_s")
    return float(metric["value"]) if metric else sum(value or 0.0 for value in document["breakdown"].values())


def words(document: Document) -> list[str]:
    """The headline, one sentence for each rung that matters, what was not played, and the largest loss's remedy."""
    played = [rung for rung in rungs(document) if rung[2] is not None]
    told = [rung for rung in played if rung[3] >= 0.005 or rung[3] <= -0.005]
    sentences = [f"A step takes {show_seconds(step_seconds(document))}.", *_band(document), *map(_sentence, told)]
    sentences += [_not_played(document, label) for _, label, seconds, _ in rungs(document) if seconds is None]
    losses = [rung for rung in told if rung[0] != "ideal_compute_s"]
    worst = max(losses, key=lambda rung: rung[3], default=None)
    key = worst[0] if worst and worst[3] >= 0.1 else "ideal_compute_s"
    return [*sentences, *([REMEDY[key]] if played else [])]


def _band(document: Document) -> list[str]:
    """How sure the step time is, and which family of costs decides that; nothing where no band is known."""
    band = document["provenance"].get("band")
    if not band:
        return []
    step = document["metrics"]["step_time_s"]
    widest = max(band["step_time_factors"].items(), key=lambda item: item[1][1] / item[1][0])[0]
    ends = f"{show_seconds(step['low'])} and {show_seconds(step['high'])}"
    return [
        f"With the known errors of the costs it lies between {ends} ({band['coverage']:.0%} band); {widest} decides."
    ]


def _sentence(rung: tuple[str, str, float | None, float]) -> str:
    key, label, seconds, share = rung
    meaning = f": {RUNGS[key][1]}" if key in RUNGS else ""
    return f"{show_seconds(seconds or 0.0)} ({share:.1%}) is {label}{meaning}."


def _not_played(document: Document, label: str) -> str:
    reason = document["provenance"].get("contention") or "not played"
    return f"{label.capitalize()} has no figure: {reason}."
