"""Costs: shape -> seconds with provenance; profiles fitted to measured kernels, and the roofline."""

from moesim.costs.communication import CommunicationCost, Steps, communication_of
from moesim.costs.estimate import Basis, Estimate
from moesim.costs.load import error_draw, find_profile, load_costs, profile_of
from moesim.costs.model import CostModel
from moesim.costs.profile import Profile
from moesim.costs.profile_file import known_profiles
from moesim.costs.roofline import Roofline
from moesim.costs.tables import Tables

__all__ = [
    "Basis",
    "CommunicationCost",
    "CostModel",
    "Estimate",
    "Profile",
    "Roofline",
    "Steps",
    "Tables",
    "communication_of",
    "error_draw",
    "find_profile",
    "known_profiles",
    "load_costs",
    "profile_of",
]
