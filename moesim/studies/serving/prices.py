"""What tokens cost: GPUs and energy at the user's prices, over the time in which the counted tokens were served."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from moesim.serving.metrics import Numbers
from moesim.studies.serving.pool_sections import ROLES
from moesim.yamlfile import Section

MILLION, HOUR, KILO = 1e6, 3600.0, 1e3


class PricesSection(Section):
    """In any one currency. Nothing is known about prices or power but what stands here."""

    gpu_hour: float | None = Field(None, gt=0, le=1e6, description="price of a GPU for an hour")
    gpu_watts: float | None = Field(
        None, gt=0, le=1e5, description="power of a GPU and its share of the server and its cooling, at all times"
    )
    kilowatt_hour: float = Field(0.0, ge=0, le=1e6, description="price of energy, on top of gpu_hour")


def costs(prices: PricesSection, gpus: Sequence[int], found: Numbers) -> Numbers:
    """gpus: of all replicas, or of each pool; found: the run's metrics -> those per million tokens.

    A pool that computes prompts is charged to the tokens that came in, one that answers to those that went out; where
    the same GPUs do both, all of it to the tokens that went out, and to all tokens.
    """
    hours = found["duration_s"][0] / HOUR
    tokens = {"input": found["total_input"][0], "output": found["total_output"][0]}
    total = sum(gpus) * hours
    told: Numbers = {"gpu_hours": (total, "GPU h")}
    if len(gpus) > 1:
        for role, number, side in zip(ROLES, gpus, tokens, strict=True):
            told[f"{role}_gpu_hours"] = (number * hours, "GPU h")
            told |= _per_million(prices, number * hours, tokens[side], side)
    else:
        told |= _per_million(prices, total, tokens["output"], "output")
    return told | _per_million(prices, total, tokens["input"] + tokens["output"], "total")


def _per_million(prices: PricesSection, gpu_hours: float, tokens: float, which: str) -> Numbers:
    """Price and energy of so many GPU hours over so many tokens."""
    each, told = MILLION / tokens, Numbers()
    energy = gpu_hours * (prices.gpu_watts or 0.0) / KILO
    if prices.gpu_hour:
        cost = gpu_hours * prices.gpu_hour + energy * prices.kilowatt_hour
        told[f"cost_per_million_{which}_tokens"] = (cost * each, "per Mtok")
    if prices.gpu_watts:
        told[f"energy_per_million_{which}_tokens"] = (energy * each, "kWh")
    return told
