"""What tokens cost: GPUs and energy at the user's prices."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from moesim.errors import BadInput
from moesim.yamlfile import Section

MILLION, HOUR, KILO = 1e6, 3600.0, 1e3
PAID: Final = (
    "prices and power are the scenario's; GPUs are paid and draw that power all the time, idle ones too: assumed"
)


class PricesSection(Section):
    """In any one currency. Nothing is known about prices or power but what stands here."""

    gpu_hour: float | None = Field(None, gt=0, le=1e6, description="price of a GPU for an hour")
    gpu_watts: float | None = Field(
        None, gt=0, le=1e5, description="power of a GPU and its share of the server and its cooling, at all times"
    )
    kilowatt_hour: float = Field(0.0, ge=0, le=1e6, description="price of energy, on top of gpu_hour")

    def check(self) -> None:
        """Raises BadInput for keys that nothing listens to."""
        if self.gpu_hour is None and self.gpu_watts is None:
            raise BadInput("nothing to reckon with", where="prices", way_out="gpu_hour, gpu_watts or both")
        if self.kilowatt_hour and not (self.gpu_hour and self.gpu_watts):
            raise BadInput(
                "acts where gpu_hour and gpu_watts are given", where="prices.kilowatt_hour",
                way_out="give both, or leave it out",
            )  # fmt: skip

    def per_million(self, gpu_seconds: float, tokens: float, which: str = "") -> dict[str, tuple[float, str]]:
        """Price and energy of a million tokens, where so many took so many seconds of a GPU; which: "output_", ..."""
        hours = gpu_seconds / HOUR * MILLION / tokens
        energy, told = hours * (self.gpu_watts or 0.0) / KILO, dict[str, tuple[float, str]]()
        if self.gpu_hour:
            told[f"cost_per_million_{which}tokens"] = (hours * self.gpu_hour + energy * self.kilowatt_hour, "per Mtok")
        if self.gpu_watts:
            told[f"energy_per_million_{which}tokens"] = (energy, "kWh")
        return told
