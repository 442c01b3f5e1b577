"""As many replicas as would use a share `target` of their KV blocks each (Kubernetes' formula on vLLM's KV usage)."""

from __future__ import annotations

from moesim.serving.autoscaler.look import Look


def wanted(look: Look, target: float) -> float:
    """Replicas, not rounded."""
    return sum(look.kv) / target
