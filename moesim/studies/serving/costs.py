"""What the tokens of a serving run cost, over the time in which the counted ones were served."""

from __future__ import annotations

from collections.abc import Sequence

from moesim.serving.metrics import Numbers
from moesim.studies.prices import HOUR, PricesSection
from moesim.studies.serving.pool_sections import ROLES


def costs(prices: PricesSection, paid: Sequence[float], found: Numbers) -> Numbers:
    """paid: GPU-seconds of all replicas, or of each pool; found: the run's metrics -> those per million tokens.

    A pool that computes prompts is charged to the tokens that came in, one that answers to those that went out; where
    the same GPUs do both, all of it to the tokens that went out, and to all tokens.
    """
    tokens = {"input": found["total_input"][0], "output": found["total_output"][0]}
    total = sum(paid)
    told: Numbers = {"gpu_hours": (total / HOUR, "GPU h")}
    if len(paid) > 1:
        for role, number, side in zip(ROLES, paid, tokens, strict=True):
            told[f"{role}_gpu_hours"] = (number / HOUR, "GPU h")
            told |= prices.per_million(number, tokens[side], f"{side}_")
    else:
        told |= prices.per_million(total, tokens["output"], "output_")
    return told | prices.per_million(total, tokens["input"] + tokens["output"], "total_")
