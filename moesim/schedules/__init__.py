"""Orders of work: which verb of which layer and micro-batch runs next on every rank. Integers only, no clock."""

from moesim.schedules.registry import REGISTRY, LayerSchedule, layer_schedule
from moesim.schedules.verbs import Step, Verb

__all__ = ["REGISTRY", "LayerSchedule", "Step", "Verb", "layer_schedule"]
