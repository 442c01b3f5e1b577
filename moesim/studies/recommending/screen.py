"""The screen: what arithmetic says of a deployment before anything is simulated.

Steady state by Little's law: a scheduler that decodes for B requests, in steps of s seconds, answers B / (O s) of them
a second, and as many prompts come into its steps. B follows from the load. Steps are priced by the plan's own clock at
the mean request; queues, bursts, the spread of lengths and preemption are left to the simulation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from moesim.serving import Requests, Settings
from moesim.studies.recommending.steps import Steps
from moesim.units import from_ps

HALVINGS: Final = 30  # of an interval: a millionth of a thousand requests


class Estimate(NamedTuple):
    """throughput: output tokens a second of the whole system; tpot, ttft: seconds, means."""

    throughput: float
    tpot: float
    ttft: float


@dataclass(frozen=True)
class Load:
    """Means of the requests: prompt and answer, in tokens; clients of a closed loop, or else requests a second."""

    number: int
    prompt: float
    output: float
    clients: int
    rate: float

    @classmethod
    def of(cls, requests: Requests) -> Load:
        """Of a seed's requests; those that come at once have no rate: they are all clients."""
        span, number = float(from_ps(int(requests.arrival[-1] - requests.arrival[0]))), len(requests)
        means = float(requests.prompt.mean()), float(requests.output.mean())
        if requests.concurrency or not span:
            return cls(number, *means, min(requests.concurrency or number, number), math.inf)
        return cls(number, *means, 0, number / span)

    @property
    def context(self) -> int:
        """Of a request half way through."""
        return round(self.prompt + self.output / 2)

    def room(self, tokens: int) -> float:
        """Requests whose KV `tokens` hold, half of the answer there on average."""
        return tokens / (self.prompt + self.output / 2)


@dataclass(frozen=True)
class Pool:
    """Alike replicas: a plan's steps, an engine's settings, how many; KV tokens of a scheduler."""

    steps: Steps
    settings: Settings
    replicas: int
    tokens: int

    @property
    def schedulers(self) -> int:
        """Of all replicas."""
        return self.replicas * self.steps.data


def together(pool: Pool, load: Load) -> Estimate:
    """Replicas that compute prompts and answer."""
    most = min(pool.settings.max_num_seqs, load.room(pool.tokens))
    most = min(most, pool.settings.max_num_batched_tokens / (1 + load.prompt / load.output))
    prompt = _prompt(pool, load)

    def step(batch: float) -> float:
        return _mixed(pool, load, batch)

    return _settled(load, pool.schedulers, most, step, prompt, math.inf)


def apart(prefill: Pool, decode: Pool, load: Load) -> Estimate:
    """A pool that computes prompts, whose KV moves at once, and one that answers."""
    most = min(decode.settings.max_num_seqs, load.room(decode.tokens))
    tokens = min(load.prompt, prefill.settings.max_num_batched_tokens)
    step = prefill.steps.seconds(0, prefill.steps.data, tokens)
    fastest = prefill.schedulers * tokens / load.prompt / step
    return _settled(load, decode.schedulers, most, decode.steps.seconds, _prompt(prefill, load), fastest)


def _settled(
    load: Load, schedulers: int, most: float, step: Callable[[float], float], prompt: float, fastest: float
) -> Estimate:  # fmt: skip
    """The batch at which as many requests come as go; fastest: requests a second that prompts allow."""

    def rate(batch: float) -> float:
        return schedulers * batch / (max(load.output - 1, 1) * step(batch))

    def too_many(batch: float) -> bool:
        if load.clients:
            return batch * schedulers + rate(batch) * prompt > load.clients or rate(batch) > fastest
        return rate(batch) > min(load.rate, fastest)

    batch = _where(too_many, max(most, 1e-3))
    seconds, served = step(batch), min(rate(batch), fastest)
    answer = prompt + seconds * (load.output - 1)
    waiting = max(load.clients - batch * schedulers - served * prompt, 0.0) / served if load.clients else 0.0
    if not load.clients and served < 0.98 * load.rate:  # more come than go: the queue grows to the end
        waiting = load.number / 2 * (1 / served - 1 / load.rate)
    lasts = load.number / min(served, load.rate) + answer * (0.5 if load.clients else 1.0)
    return Estimate(load.number * load.output / lasts, seconds, prompt + waiting)


def _where(too_many: Callable[[float], bool], most: float) -> float:
    """The largest batch that is not too many, between 0 and `most`."""
    if not too_many(most):
        return most
    low, high = 0.0, most
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if too_many(middle) else (middle, high)
    return high


def _mixed(pool: Pool, load: Load, batch: float) -> float:
    """Mean seconds from one token of a request to the next, where each scheduler decodes for `batch` of them.

    Prompts that come with a step are as many as answers that end with one. Where a policy mixes them into decodes, a
    step has some or none; where it computes them alone, decodes wait that long.
    """
    steps, data = pool.steps, pool.steps.data
    come = data * batch / load.output  # prompts a step of a replica
    alone = steps.seconds(batch)
    if pool.settings.policy != "decode_first":
        width = min(data, max(1, round(come)))
        tokens = min(pool.settings.max_num_batched_tokens, max(load.prompt, come * load.prompt / width))
        return alone + come * load.prompt / (width * tokens) * steps.seconds(0, width, tokens)
    room = max(pool.settings.max_num_batched_tokens - batch, 1.0)
    pieces = max(1.0, load.prompt / room)  # steps that a prompt is cut into
    share = 1 - math.exp(-come * pieces)
    width = min(data, max(1, round(come * pieces / share)))
    tokens = min(room, come * load.prompt / share / width)
    return alone + share * max(steps.seconds(batch, width, tokens) - alone, 0.0)


def _prompt(pool: Pool, load: Load) -> float:
    """Seconds from sending to the first token where nobody waits: half of a step that runs, then its own."""
    tokens = min(load.prompt, pool.settings.max_num_batched_tokens)
    own = pool.steps.seconds(0, 1, tokens)
    return own * (load.prompt / tokens + 0.5)
