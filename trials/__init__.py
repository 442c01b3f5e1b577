"""Trials: laws that hold for any scenario, tried on many random ones. Each prints its counts."""
