"""What moved between two runs that are compared: parts of the time, the fullest link, tokens found in caches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from moesim.studies.verdict import Told
from moesim.units import show_seconds

NAMES: Final = {  # of parts that do not speak for themselves
    "ideal_compute_s": "balanced compute", "exposed_comm_s": "exposed communication", "bubble_s": "pipeline bubble",
    "other_s": "host and the rest", "frontend_s": "the way to the scheduler", "queue_s": "the queue",
    "stages_s": "stages before the model", "handover_s": "time until a decode step takes it in",
    "transfer_s": "KV on the way", "preempted_s": "time preempted",
    "compute_s": "computing", "exposed_alltoall_s": "exposed all-to-alls",
    "waiting_group_s": "waiting for others in all-to-alls",
    "exposed_tensor_parallel_s": "transfers of tensor and context groups",
    "exposed_sharding_s": "sharded layers gathered and reduced", "gradient_sync_s": "gradients and parameters",
}  # fmt: skip
SHOWN: Final = 2  # parts that are named
WORTH: Final = 0.1  # of the largest: less is not worth a name
HITS, FULLEST = "prefix_cache_hit_rate", "hottest_link_utilisation"


def moved(
    parts: Mapping[str, Told | None], metrics: Mapping[str, Told], sides: Sequence[Sequence[Mapping[str, Any]]]
) -> str:  # fmt: skip
    """A sentence of differences that are certain, " Most moved: ..."; "" where none is. sides: documents of both."""
    certain = {key: one for key, one in parts.items() if one is not None and one.told}
    largest = sorted(certain.items(), key=lambda pair: -abs(pair[1].value))[:SHOWN]
    said = [f"{_name(key)} {_signed(one.value)}" for key, one in largest
            if abs(one.value) >= WORTH * abs(largest[0][1].value)]  # fmt: skip
    if (hits := metrics.get(HITS)) is not None and hits.told:
        said.append(f"prompts' tokens found in caches {hits.base:.1%} to {hits.variant:.1%}")
    if (link := _link(metrics.get(FULLEST), sides)) and said:
        said.append(link)
    return f" Most moved: {', '.join(said)}." if said else ""


def _name(key: str) -> str:
    return NAMES.get(key, key.removesuffix("_s").replace("_", " "))


def _signed(seconds: float) -> str:
    return f"{'+' if seconds > 0 else '-'}{show_seconds(abs(seconds))}"


def _link(used: Told | None, sides: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """The link that is the fullest one for most seeds, of both sides."""
    names = [_fullest(side) for side in sides]
    if used is None or not used.told or None in names:
        return ""
    if names[0] == names[1]:
        return f"the fullest link, {names[0]}, {used.base:.1%} to {used.variant:.1%} used"
    return f"the fullest link {names[0]} at {used.base:.1%} to {names[1]} at {used.variant:.1%}"


def _fullest(documents: Sequence[Mapping[str, Any]]) -> str | None:
    spots = [one["provenance"].get("congestion", {}).get("hot_spots") for one in documents]
    found = Counter(some[0]["link"] for some in spots if some)
    return max(found, key=lambda name: (found[name], name)) if found else None
