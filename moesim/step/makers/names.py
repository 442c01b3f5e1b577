"""Names of the tasks of a backward pass."""

from __future__ import annotations

from typing import Final

from moesim.schedules import Way

SUFFIX: Final = {
    Way.BACKWARD: "_backward", Way.BACKWARD_DATA: "_backward_data", Way.BACKWARD_WEIGHT: "_backward_weight",
}  # fmt: skip
