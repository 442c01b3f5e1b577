"""Experts that live in host memory: which a cache holds, what is fetched ahead, and how long a token waits.

A trace alone answers: passes.py (which experts each decoded pass uses, and who is batched with whom), evict.py (who
leaves), predict.py (who is fetched before it is asked for), play.py (link, slots and clock).
"""

from moesim.routing.offload.evict import EVICTION
from moesim.routing.offload.passes import COMPOSE, Passes, passes_of
from moesim.routing.offload.play import Machine, Played, play, spread_slots
from moesim.routing.offload.predict import PREDICTORS, find_predictor

__all__ = [
    "COMPOSE",
    "EVICTION",
    "PREDICTORS",
    "Machine",
    "Passes",
    "Played",
    "find_predictor",
    "passes_of",
    "play",
    "spread_slots",
]
