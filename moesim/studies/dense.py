"""Models without experts: keys of a scenario that say something of experts have nothing to act on, and are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

from moesim.errors import BadInput
from moesim.models import MoEModel
from moesim.studies.load import Loaded

OF_EXPERTS: Final[tuple[tuple[str, ...], ...]] = (
    ("experts",),
    ("comm", "dispatch"),
    ("comm", "dispatch_dtype"),
    ("comm", "combine_dtype"),
    ("comm", "version"),
    ("comm", "path"),
    ("routing",),
    ("parallel", "expert_parallel_size"),
    ("parallel", "expert_tensor_parallel_size"),
    ("precision", "experts"),
    ("overlap", "shared_expert"),
    ("training", "capacity_factor"),
)
UNCHANGED: Final[dict[tuple[str, ...], int]] = {
    ("parallel", "expert_parallel_size"): 1
}  # what a model without experts has anyway


class Keyed(Protocol):
    """A scenario of any mode, by its file."""

    @property
    def given(self) -> dict[str, Any]:
        """Keys that somebody wrote, with their values."""

    def where(self, key: str) -> str:
        """The place of a dotted key."""


def check_experts(loaded: Loaded, model: MoEModel) -> None:
    """Refuse keys of experts on a model that has none, and a model with experts whose routing nobody gave. Raises
    BadInput.
    """
    if model.routed:
        if loaded.scenario.routing is None:
            raise BadInput(
                f"{model.name} has experts, and the scenario does not say where its routing comes from",
                where=loaded.where("routing"),
                way_out="routing: {trace: NAME}, {sampled: NAME}, {balanced: true} or {router: NAME}",
            )
        return
    refuse_experts(loaded, model, "moe" in loaded.scenario.training.recompute)


def refuse_experts(loaded: Keyed, model: MoEModel, again: bool) -> None:
    """On a model that has none; again: they are to be recomputed. Raises BadInput."""
    for key in (*_given(loaded), *(["training.recompute"] if again else [])):
        raise BadInput(
            f"{model.name} has no experts: {key} has nothing to act on", where=loaded.where(key), way_out="leave it out"
        )


def _given(loaded: Keyed) -> Iterator[str]:
    """Keys of experts that the scenario sets, dotted."""
    for keys in OF_EXPERTS:
        held: object = loaded.given
        for key in keys:
            held = held.get(key) if isinstance(held, dict) else None
        if held is not None and held != UNCHANGED.get(keys):
            yield ".".join(keys)
