"""Placement runs: recorded expert load in, a certified placement out, picked by simulated step time."""

from moesim.studies.placing.options import Options
from moesim.studies.placing.outcome import Outcome
from moesim.studies.placing.run import place, rebalance, search

__all__ = ["Options", "Outcome", "place", "rebalance", "search"]
