"""One step: Batch x routing x placement -> Traffic -> TaskGraph. Pure: no clock, no random draw."""

from moesim.step.batch import Batch, Phase, uniform_batch
from moesim.step.lower import lower
from moesim.step.lowered import Lowered
from moesim.step.ops import LayerOps, Precision
from moesim.step.pace import Pace
from moesim.step.plan import Dispatch, StepPlan, slowdown
from moesim.step.traffic import Traffic
from moesim.step.work import CostLog

__all__ = [
    "Batch",
    "CostLog",
    "Dispatch",
    "LayerOps",
    "Lowered",
    "Pace",
    "Phase",
    "Precision",
    "StepPlan",
    "Traffic",
    "lower",
    "slowdown",
    "uniform_batch",
]
