"""Settings of an engine as the numbers that a compiled loop reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from moesim.serving.balancer import REGISTRY, least_outstanding, round_robin
from moesim.serving.loop_queue import ASKED_FOR, LEAST_OUTSTANDING, ROUND_ROBIN, Engine
from moesim.serving.settings import Settings
from moesim.units import to_ps

POLICIES: Final = ("decode_first", "prefill_first", "whole_prompts")  # by their number in the kernel
RULES: Final[Mapping[object, int]] = {least_outstanding.choose: LEAST_OUTSTANDING, round_robin.choose: ROUND_ROBIN}
READABLE: Final = {
    "scheduling_policy": "fcfs",
    "prefill_schedule_interval": 1,
    "prefill_decode_interval": 0,
    "num_speculative_tokens": 0,
}  # what the kernel plays of these


def unplayed_keys(settings: Settings) -> list[str]:
    """Those that only the readable loop plays as they are."""
    return [key for key, neutral in READABLE.items() if getattr(settings, key) != neutral]


def engine_of(
    settings: Settings, layers: int, many: int, blocks: int, *, closed: bool, cache: bool = False, host: int = 0,
    balancer: str = "",
) -> Engine:  # fmt: skip
    """many: schedulers of a replica, of `blocks` each; host: ps of every step that its clock does not hold; cache: of
    shared prefixes; balancer: who sends requests to replicas, where there are several.
    """
    return Engine(
        many=many,
        blocks=blocks,
        policy=POLICIES.index(settings.policy),
        budget=settings.max_num_batched_tokens,
        size=settings.block_size,
        held=settings.reserved_output,
        ahead=int(settings.schedule_ahead),
        poll=settings.poll_interval,
        balance=settings.balance_timeout,
        gather=settings.balance_wait,
        host=host,
        slow=settings.prompt_slowdown,
        least=int(to_ps(settings.eager_time_per_layer)) * layers,
        graph_batch=settings.graph_batch,
        graph_tokens=settings.graph_tokens,
        front=int(to_ps(settings.frontend_time)),
        closed=int(closed),
        cache=int(cache),
        rule=RULES.get(REGISTRY[balancer], ASKED_FOR) if balancer else ASKED_FOR,
    )
