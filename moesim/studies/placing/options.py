"""What `moesim place` is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from moesim.errors import BadInput
from moesim.placement.formats import find_format

WINDOW: Final = 2048  # tokens: about what one decode step of a large deployment, or a short prompt, brings
HOLDOUT: Final = 0.3
LEAVE_ONE_OUT: Final = "leave-one-out"


@dataclass(frozen=True)
class Options:
    """trace: a shipped name, a Parquet file, or counts (.npz), several with commas, or a folder of them; topology and
    gpus: where experts shall stand.

    slots: of every GPU, or one number for each; otherwise experts + redundant are spread evenly. strategies: () for
    the usual ones. holdout: share of the last windows that no strategy sees; of several recordings the name of one, or
    leave-one-out (None: a share of 0.3, or leave-one-out). dispatch: None for what the engine of the format does.
    drift: another trace of the same model to judge on. phase: plan for its tokens only. previous: the placement that
    stands now, for max_moves and the cost of moving; its redundancy holds where none is asked for. speed: of each GPU,
    relative; expert_memory: bytes that a GPU has for experts; groups: of the router, which hierarchical EPLB keeps in
    a node (None: the model's). by_layer: `redundant` is a mean over layers; those that gain most have them. model,
    costs and changes (`a.b=value`, or a dict) describe the step whose time is simulated; simulate: None where that can
    be. format: of the file that will be written; what it cannot express is not picked.
    """

    trace: str
    topology: str
    gpus: int
    redundant: int = 0
    slots: Sequence[int] = ()
    strategies: Sequence[str] = ()
    objective: str = "makespan"
    dispatch: str | None = None
    load_cap: float | None = None
    holdout: float | str | None = None
    window: int | None = None
    drift: str | None = None
    phase: str | None = None
    previous: Path | None = None
    max_moves: int | None = None
    time_limit: float | None = None
    seed: int = 0
    model: str | None = None
    transplant: bool = False
    costs: str = "auto"
    changes: Sequence[str] | Mapping[str, Any] = ()
    simulate: bool | None = None
    format: str | None = None
    speed: Sequence[float] = ()
    expert_memory: int | None = None
    groups: int | None = None
    by_layer: bool = False

    def __post_init__(self) -> None:
        if self.by_layer and (self.slots or self.previous):
            other = "--slots" if self.slots else "--previous"
            raise BadInput(f"layers cannot be given slots beside {other}", where="--by-layer", way_out="one of them")
        if self.slots and self.redundant:
            raise BadInput("--slots and --redundant say the same twice", way_out="one of them")
        for name, value, usual in (("--load-cap", self.load_cap, "1.2"), ("--time-limit", self.time_limit, "60")):
            if value is not None and not value > 0:
                raise BadInput(f"{value:g} is not above 0", where=name, way_out=f"{name} {usual}")
        if len(self.speed) not in (0, self.gpus):
            raise BadInput(f"{len(self.speed)} speeds for {self.gpus} GPUs", where="--speed", way_out="one for each")

    @property
    def rule(self) -> str:
        """The dispatch over replicas: as asked, else the one of the format's engine, else even."""
        return self.dispatch or (find_format(self.format).dispatch if self.format else "even")
