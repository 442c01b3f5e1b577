"""The `stages:` of a serving scenario: what requests, or tokens, go through beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from moesim.errors import BadInput
from moesim.serving.requests import MOST_TOKENS
from moesim.studies.scenario import ModelSource
from moesim.units import Seconds
from moesim.yamlfile import Section

LONGEST = 1e3  # s of a request or step
MOST_DEVICES = 4096
REPLICA: Literal["replica"] = "replica"


class StageSection(Section):
    """An encoder, a retriever, a model that routes: `seconds` that somebody measured, or a model that is priced."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$", description="shown in metrics: stage_NAME_...")
    where: Literal["before", "per_token"] = Field(
        "before", description="before: every request goes through it once; per_token: all tokens of a step, together"
    )
    seconds: Seconds | None = Field(None, le=LONGEST, description="it takes: of a request, or per_token of a step")
    model: ModelSource | None = Field(
        None, description="or a model without experts, shipped or described, by the prices of the scenario"
    )
    input_length: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = Field(
        None, description="before, model: tokens that it reads of a request; default: the prompt"
    )
    output_length: int = Field(
        0, ge=0, le=4096, description="before, model: tokens that it writes, one after the other; 0: it only reads"
    )
    bidirectional: bool = Field(
        False, description="before, model that only reads: a token attends to all of them, as in an encoder"
    )
    passes: int = Field(1, ge=1, le=1000, description="times that it runs, one after the other")
    resident: int = Field(
        1, ge=1, le=1000, description="model: alike ones in memory, of which each pass runs one, as of routed encoders"
    )
    devices: Annotated[int, Field(ge=1, le=MOST_DEVICES)] | Literal["replica"] | None = Field(
        None, description="of its own, GPUs where it has a model; or `replica`: steps wait for it, on GPUs of the "
        "replica; default: 1, per_token: replica",
    )  # fmt: skip
    tensor_parallel_size: int = Field(
        1, ge=1, le=64, description="own devices that share a model's width; the others serve other requests"
    )

    @model_validator(mode="after")
    def _can_run(self) -> StageSection:
        if (self.seconds is None) == (self.model is None):
            raise ValueError("give either seconds or model")
        if self.where == "per_token" and self.devices not in (None, REPLICA):
            raise ValueError("per_token is work of steps, on the replicas' GPUs: devices: replica, or leave it out")
        if idle := [key for key in self._without_effect if key in self.model_fields_set]:
            raise ValueError(f"{idle[0]} has nothing to act on: leave it out")
        if self.model is not None and self.servers * self.tensor_parallel_size != self.own:
            raise ValueError(f"devices {self.own} are no multiple of tensor_parallel_size {self.tensor_parallel_size}")
        return self

    @property
    def _without_effect(self) -> set[str]:
        """Keys that do not go with the others."""
        reads = {"input_length", "output_length", "bidirectional"}
        found = reads | {"resident", "tensor_parallel_size"} if self.model is None else set()
        found |= reads if self.where == "per_token" else set()
        found |= {"bidirectional"} if self.output_length else set()
        return found | ({"tensor_parallel_size"} if not self.own else set())

    @property
    def own(self) -> int:
        """Devices of its own; 0: it runs on the replicas'."""
        if self.devices == REPLICA or (self.devices is None and self.where == "per_token"):
            return 0
        return self.devices or 1

    @property
    def servers(self) -> int:
        """Requests that are served at a time, on devices of its own."""
        return self.own // self.tensor_parallel_size

    @property
    def gpus(self) -> int:
        """Of its own: whatever has no model needs none."""
        return self.own if self.model is not None else 0


def check_stages(stages: Sequence[StageSection]) -> None:
    """Raises BadInput for a name that two have."""
    seen: set[str] = set()
    for number, one in enumerate(stages):
        if one.name in seen:
            where = f"stages[{number}].name"
            raise BadInput(f"{one.name} is the name of another stage", where=where, way_out="another one")
        seen.add(one.name)
