"""Requests of a recording, at their own times."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from moesim.errors import BadInput
from moesim.serving.readers import Table, read_requests
from moesim.yamlfile import Section


class Replay(Section):
    """Times, and lengths where the scenario gives none."""

    file: str = Field(description="shipped requests (see `moesim list requests`) or a file")
    format: str | None = Field(None, description="reader; default: by the file's columns")
    speed: float = Field(1.0, gt=0, le=1e6, description="2 plays it in half the time")

    def table(self) -> Table:
        """The recording, sped up. Raises BadInput where it has no times."""
        found = read_requests(self.file, self.format)
        if found.arrival is None:
            way_out = "poisson with input_length: {dataset: ...} draws its lengths"
            raise BadInput(f"{self.file} holds lengths, no times", way_out=way_out)
        arrival = (found.arrival / self.speed).round().astype(found.arrival.dtype)
        return replace(found, arrival=arrival)
