"""As many replicas as unanswered requests need, with `target` of them each (Ray Serve's target_ongoing_requests)."""

from __future__ import annotations

from moesim.serving.autoscaler.look import Look


def wanted(look: Look, target: float) -> float:
    """Replicas, not rounded."""
    return look.requests / target
