"""The `faults:` and `autoscale:` of a serving scenario: replicas that die and return, that are started and let go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

from pydantic import Field, model_validator

from moesim.errors import BadInput, pick
from moesim.serving.autoscaler import REGISTRY
from moesim.serving.fleet import FAR, Outage
from moesim.serving.scaling import Scaling
from moesim.units import Seconds, to_ps
from moesim.yamlfile import Section

Role = Literal["prefill", "decode"]
LATEST: Final = 4e6  # s: clocks count picoseconds in 62 bits
SHORTEST: Final = 1e-3  # s between two looks: an hour has 3.6 million of them


class OutageSection(Section):
    """Something dies: every replica that has a part in it is gone, with its KV cache, until it is repaired."""

    at: Seconds = Field(le=LATEST, description="after the start of the run")
    until: Seconds | None = Field(
        None, le=LATEST, description="when its replicas serve again, weights loaded; default: never"
    )
    replica: int | None = Field(None, ge=0, description="which replica dies, from 0")
    pool: Role | None = Field(None, description="with pools: of which one `replica` is the number, from 0")
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
        if self.pool and self.replica is None:
            raise ValueError("pool goes with replica: a gpu or node is the cluster's")
        if self.until is not None and self.until <= self.at:
            raise ValueError("until has to come after at")
        if self.retry_after and self.then == "lose":
            raise ValueError("retry_after needs then: retry")
        return self


class AutoscaleSection(Section):
    """How many replicas there are: looked at every so often; as many as `replicas` says are there to begin with."""

    policy: str = Field("queue", description="how many are wanted; see `moesim list autoscalers`")
    target: float = Field(
        gt=0, le=1e6, description="of a replica; queue: unanswered requests, utilisation: share of its KV blocks"
    )
    min_replicas: int = Field(1, ge=1, le=4096, description="never fewer, as far as they live")
    max_replicas: int = Field(ge=1, le=4096, description="never more")
    startup_time: Seconds = Field(le=LATEST, description="from the decision until a new replica serves, weights loaded")
    interval: Seconds = Field(15.0, gt=0, le=LATEST, description="from one look to the next (Kubernetes: 15 s)")
    scale_down_after: Seconds = Field(
        300.0, le=LATEST, description="the most that was wanted within this time is kept (Kubernetes: 300 s)"
    )

    def check(self, replicas: int, lead: str = "") -> None:
        """Raises BadInput where the replicas to begin with, the policy or its target cannot be; lead: of the key."""
        own = f"{lead}autoscale"
        pick("policy", self.policy, REGISTRY, where=f"{own}.policy")
        if self.policy == "utilisation" and self.target > 1:
            raise BadInput(f"a share of {self.target:g}", where=f"{own}.target", way_out="at most 1")
        if self.interval < SHORTEST:
            raise BadInput("a look more often than every millisecond", where=f"{own}.interval", way_out="15 s")
        if self.min_replicas > self.max_replicas:
            raise BadInput(f"at least {self.min_replicas} replicas and at most {self.max_replicas}",
                           where=f"{own}.min_replicas", way_out=f"at most {self.max_replicas}")  # fmt: skip
        if not self.min_replicas <= replicas <= self.max_replicas:
            raise BadInput(
                f"begins with {replicas} (`replicas`), not within {self.min_replicas} to {self.max_replicas}",
                where=own, way_out="replicas, min_replicas and max_replicas in order",
            )  # fmt: skip

    def scaling(self, first: int) -> Scaling:
        """The same in ps; first: replicas to begin with."""
        times = (int(to_ps(time)) for time in (self.interval, self.startup_time, self.scale_down_after))
        return Scaling(self.policy, self.target, self.min_replicas, self.max_replicas, first, *times)


def outages_of(
    sections: Sequence[OutageSection], pools: Mapping[Role | None, Sequence[range]], node: int, gpus: int
) -> tuple[Outage, ...]:  # fmt: skip
    """pools: GPUs of each replica, by role or None where there is one kind, on a cluster of `gpus` in nodes of `node`.
    Raises BadInput where nothing dies.
    """
    places = [place for pool in pools.values() for place in pool]
    return tuple(
        Outage(struck, int(to_ps(one.at)), FAR if one.until is None else int(to_ps(one.until)), one.then == "retry",
               int(to_ps(one.retry_after)))
        for number, one in enumerate(sections)
        for struck in (_struck(one, f"faults[{number}]", places, node, gpus) if one.replica is None
                       else [_named(one, one.replica, f"faults[{number}]", pools)])
    )  # fmt: skip


def _named(one: OutageSection, replica: int, where: str, pools: Mapping[Role | None, Sequence[range]]) -> int:
    """The number of a replica among those of all pools."""
    if one.pool not in pools:
        raise (
            BadInput("there are no pools", where=f"{where}.pool", way_out="leave it out") if one.pool else
            BadInput("a replica of which pool?", where=f"{where}.replica",
                     way_out=f"pool: {' or pool: '.join(map(str, pools))}, from 0 in each")
        )  # fmt: skip
    roles, many = list(pools), len(pools[one.pool])
    if replica >= many:
        those = f"{one.pool} replica" if one.pool else "replica"
        raise BadInput(f"no {those} {replica}, there are at most {many}", where=f"{where}.replica",
                       way_out=f"0 to {many - 1}, or a gpu or node where their number varies")  # fmt: skip
    return sum(len(pools[role]) for role in roles[: roles.index(one.pool)]) + replica


def _struck(one: OutageSection, where: str, places: Sequence[range], node: int, gpus: int) -> Iterator[int]:
    """The replicas that have a part in what dies."""
    key, first, many = ("gpu", one.gpu, 1) if one.gpu is not None else ("node", (one.node or 0) * node, node)
    assert first is not None
    used = max(places[-1].stop, gpus)
    if first >= used:
        raise BadInput(f"no {key} {first // many}, the last is {(used - 1) // many}", where=f"{where}.{key}",
                       way_out=f"0 to {(used - 1) // many}")  # fmt: skip
    struck = [number for number, place in enumerate(places) if place.start < first + many and first < place.stop]
    if not struck:
        raise BadInput(f"{key} {first // many} is no replica's", where=f"{where}.{key}",
                       way_out=f"replicas have GPUs 0 to {places[-1].stop - 1}")  # fmt: skip
    yield from struck
