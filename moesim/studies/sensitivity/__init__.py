"""Sensitivity: which inputs, the errors of costs among them, move a number."""

from moesim.studies.sensitivity.run import METHODS, Sensitivity, sensitivity

__all__ = ["METHODS", "Sensitivity", "sensitivity"]
