"""Where the time went, in words: sentences made from the JSON document of a run, and from changes that were played."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    "interference_s": ("interference", "computing slower while transfers are under way, and what waits for that"),
    "contention_s": ("contention", "transfers that slow each other down on shared links"),
    "fault_s": ("faults", "slow or dead links and ranks, and what they keep waiting"),
    "bubble_s": ("pipeline bubble", "stages that have nothing to do"),
    "other_s": ("host and the rest", "launching, scheduling, and what belongs to no rung above"),
    "schedule_effect_s": ("schedule effect", "gained where one thing more to do lets something else end earlier"),
}
MADE: Final = ("remedy", "risk")  # kinds of changes that somebody can make, or meet
WORTH: Final = 0.01  # of the rate: smaller changes are not worth a sentence of their own
PARTS: Final[Mapping[str, str]] = {
    "frontend_s": "to the scheduler", "stages_s": "in stages before", "queue_s": "in the queue", "prefill_s": "prefill",
    "handover_s": "until a decode step takes it in", "transfer_s": "KV on the way", "decode_s": "decode",
    "preempted_s": "preempted",
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
    """The headline, a sentence for each rung that matters, the operator that computes longest, what was not played."""
    played = [rung for rung in rungs(document) if rung[2] is not None]
    told = [rung for rung in played if rung[3] >= 0.005 or rung[3] <= -0.005]
    sentences = [f"A step takes {show_seconds(step_seconds(document))}.", *_band(document)]
    for rung in told:
        sentences += [_sentence(rung), *(_longest(document) if rung[0] == "ideal_compute_s" else [])]
    return [*sentences, *(_not_played(document, label) for _, label, seconds, _ in rungs(document) if seconds is None)]


def advice(document: Document, tried: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences about changes that were played (studies.advice): gains, losses, what is not possible."""
    base = _headline(document)[1]
    played = [(one, one["rate"] / base - 1) for one in tried if one["rate"] is not None and one["kind"] in MADE]
    remedies = [(one, gain) for one, gain in played if one["kind"] == "remedy"]
    sentences = list(_ideals(document, tried))
    sentences += [_tried(document, one, gain) for one, gain in remedies if abs(gain) >= WORTH]
    if remedies and all(gain < WORTH for _, gain in remedies):
        sentences.append(f"None of the {len(remedies)} changes that were tried gains {WORTH:.0%} or more of the rate.")
    little = [one["change"] for one, gain in remedies if abs(gain) < WORTH]
    sentences += [f"Tried, within {WORTH:.0%}: {'; '.join(little)}."] if little else []
    sentences += [_tried(document, one, gain) for one, gain in played if one["kind"] == "risk"]
    return sentences + [f"Not possible: {one['change']} ({one['refused']})." for one in tried if one["refused"]]


def _ideals(document: Document, tried: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What each cause costs: the same without it; then how far causes that were taken away together overlap."""
    whole, _, what = _headline(document)
    alone = {one["change"]: whole - one["step_s"] for one in tried if one["kind"] == "ideal" and not one["refused"]}
    for name, saved in sorted(alone.items(), key=lambda item: -item[1]):
        yield f"With {name}, {what} would be {_longer(-saved / whole)} ({show_seconds(whole - saved)})."
    for one in tried:
        if one["kind"] == "together" and not one["refused"]:
            yield _together(
                one["change"], whole - one["step_s"], [saved for name, saved in alone.items() if name in one["change"]]
            )


def _together(change: str, saved: float, singly: Sequence[float]) -> str:
    """Whether parts add up: what is saved by either is counted twice, what only all save not at all."""
    rest = saved - sum(singly)
    if saved < 0:
        return _together_longer(change, -saved, -sum(singly))
    head = f"With {change} at once it saves {show_seconds(saved)}"
    if abs(rest) < WORTH * max(abs(saved), 1e-12):
        return f"{head}, what they save alone: they do not interact."
    which = "that none of them saves alone" if rest > 0 else "less than alone: one hides behind another"
    return f"{head}, {show_seconds(abs(rest))} {which}."


def _together_longer(change: str, cost: float, singly: float) -> str:
    """What takes longer without its causes, which requests that meet other steps may."""
    more = f"{show_seconds(abs(cost - singly))} {'more' if cost > singly else 'less'} than they do one by one"
    apart = more if abs(cost - singly) >= WORTH * cost else "as they do one by one"
    return f"With {change} at once it takes {show_seconds(cost)} longer, {apart}."


def _headline(document: Document) -> tuple[float, float, str]:
    """Seconds that matter, tokens/s of a GPU, and whose seconds they are."""
    value = {name: one["value"] for name, one in document["metrics"].items()}
    if document["provenance"].get("kind") == "serve":
        rate = value["output_throughput"] / document["provenance"]["gpus"]
        return value["mean_e2el_ms"] / 1e3, rate, "the mean request"
    return step_seconds(document), value["tokens_per_s_per_gpu"], "the step"


def _longer(change: float) -> str:
    return f"{abs(change):.1%} {'longer' if change > 0 else 'shorter'}" if abs(change) >= 5e-4 else "as long"


def _tried(document: Document, one: Mapping[str, Any], gain: float) -> str:
    whole, _, what = _headline(document)
    step = one["step_s"] / whole - 1
    rate = f", {gain:+.1%} tokens/s a GPU" if abs((1 + gain) * (1 + step) - 1) > 1e-4 else ""
    return f"Played with {one['change']}: {what} is {_longer(step)} ({show_seconds(one['step_s'])}){rate}."


def _longest(document: Document) -> list[str]:
    """The operator that takes most of balanced compute, what binds it, and its kernel."""
    found = document["provenance"].get("operators") or []
    if not found:
        return []
    one = found[0]
    reached = {"memory": one["of_bandwidth"], "compute": one["of_peak_flops"]}.get(one["bound"])
    bound = (
        f"bound by {one['bound']} ({reached:.0%} of its peak)"
        if reached
        else "far from the peaks of memory and arithmetic (start-up, or its kernel)"
    )
    kernel = f", kernel {', '.join(one['kernels'])}" if one["kernels"] else ""
    return [f"The largest part of that is {one['label']}, {show_seconds(one['seconds'])}: {bound}{kernel}."]


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
