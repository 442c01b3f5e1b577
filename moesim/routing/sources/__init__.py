"""Where the routing of a simulated token comes from: a lookup by (seed, request, position, layer), never a draw."""

from __future__ import annotations

from moesim.routing.sources.balanced import Balanced
from moesim.routing.sources.none import NoExperts
from moesim.routing.sources.replay import Replay
from moesim.routing.sources.routed import Places, Routed
from moesim.routing.sources.sampled import Sampled
from moesim.routing.sources.source import RoutingSource, Rows
from moesim.routing.sources.transplant import Transplant, transplant

__all__ = [
    "Balanced",
    "NoExperts",
    "Places",
    "Replay",
    "Routed",
    "RoutingSource",
    "Rows",
    "Sampled",
    "Transplant",
    "transplant",
]
