"""Look: what a rule of autoscaling may know of the replicas."""

from __future__ import annotations

from typing import NamedTuple


class Look(NamedTuple):
    """requests: unanswered, at the router too; kv: of each replica that serves, the share of its KV blocks in use."""

    requests: int
    kv: tuple[float, ...]
