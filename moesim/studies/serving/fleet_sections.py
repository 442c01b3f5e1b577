"""The `faults:` of a serving scenario: replicas that die and return, with a GPU or a node of theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal

from pydantic import Field, model_validator

from moesim.errors import BadInput
from moesim.serving.fleet import FAR, Outage
from moesim.units import Seconds, to_ps
from moesim.yamlfile import Section

LATEST: Final = 4e6  # s: clocks count picoseconds in 62 bits


class OutageSection(Section):
    """Something dies: every replica that has a part in it is gone, with its KV cache, until it is repaired."""

    at: Seconds = Field(le=LATEST, description="after the start of the run")
    until: Seconds | None = Field(
        None, le=LATEST, description="when its replicas serve again, weights loaded; default: never"
    )
    replica: int | None = Field(None, ge=0, description="which replica dies, from 0")
    gpu: int | None = Field(None, ge=0, description="the GPU that dies; replicas have theirs one after the other")
    node: int | None = Field(None, ge=0, description="the node that dies, with all of its GPUs")
    then: Literal["retry", "lose"] = Field(
        "retry",
        description="its requests are computed anew by other replicas, and keep the tokens that are out; or are lost",
    )
    retry_after: Seconds = Field(
        0.0, le=LATEST, description="from the death of a replica to its requests' coming to another one"
    )

    @model_validator(mode="after")
    def _one_target(self) -> OutageSection:
        if sum(target is not None for target in (self.replica, self.gpu, self.node)) != 1:
            raise ValueError("give one of replica, gpu and node")
        if self.until is not None and self.until <= self.at:
            raise ValueError("until has to come after at")
        if self.retry_after and self.then == "lose":
            raise ValueError("retry_after needs then: retry")
        return self


def outages_of(
    sections: Sequence[OutageSection], replicas: int, world: int, node: int, gpus: int
) -> tuple[Outage, ...]:  # fmt: skip
    """Of replicas of `world` GPUs, on a cluster of `gpus` in nodes of `node`. Raises BadInput where nothing dies."""
    return tuple(
        Outage(struck, int(to_ps(one.at)), FAR if one.until is None else int(to_ps(one.until)), one.then == "retry",
               int(to_ps(one.retry_after)))
        for number, one in enumerate(sections)
        for struck in _struck(one, f"faults[{number}]", replicas, world, node, gpus)
    )  # fmt: skip


def _struck(one: OutageSection, where: str, replicas: int, world: int, node: int, gpus: int) -> Iterator[int]:
    """The replicas that have a part in what dies."""
    if one.replica is not None:
        if one.replica >= replicas:
            raise BadInput(f"no replica {one.replica}, there are {replicas}", where=f"{where}.replica",
                           way_out=f"0 to {replicas - 1}")  # fmt: skip
        yield one.replica
        return
    key, first, many = ("gpu", one.gpu, 1) if one.gpu is not None else ("node", (one.node or 0) * node, node)
    assert first is not None
    used = max(replicas * world, gpus)
    if first >= used:
        raise BadInput(f"no {key} {first // many}, the last is {(used - 1) // many}", where=f"{where}.{key}",
                       way_out=f"0 to {(used - 1) // many}")  # fmt: skip
    struck = range(first // world, min((first + many - 1) // world + 1, replicas))
    if not struck:
        raise BadInput(f"{key} {first // many} is no replica's", where=f"{where}.{key}",
                       way_out=f"replicas have GPUs 0 to {replicas * world - 1}")  # fmt: skip
    yield from struck
