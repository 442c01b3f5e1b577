"""Units live at the border only: text such as "400 Gb/s" becomes SI here (s, bytes, B/s, FLOP/s), and back.

Bits are `b`, bytes are `B`, prefixes are decimal (k M G T P) or binary (Ki Mi Gi Ti); nothing is guessed. Event time is
integer picoseconds: float time loses ticks, 0.1 + 0.2 is not 0.3. int64 holds 106 days of them; the clock ends at half
of that (LAST_TICK), so that a sum of two times never wraps around, and what would come later is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_before_validator_function

from moesim.errors import BadInput, BrokenInvariant

PICOSECONDS_PER_SECOND: Final = 10**12
LAST_TICK: Final = (1 << 62) - 1
LAST_SECOND: Final = LAST_TICK / PICOSECONDS_PER_SECOND  # 53 days

_DECIMAL: Final = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY: Final = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_PREFIX: Final = {**_DECIMAL, **_BINARY}
_BITS: Final = {"b": 1 / 8, "bit": 1 / 8, "B": 1.0}

_SECONDS: Final = {
    "ps": 1e-12, "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0,
}  # fmt: skip
_BYTES: Final = {p + u: f * s for p, f in _PREFIX.items() for u, s in _BITS.items()}
_BANDWIDTH: Final = {f"{unit}/s": scale for unit, scale in _BYTES.items()}
_FLOPS: Final = {p + u: f for p, f in _DECIMAL.items() for u in ("FLOP/s", "FLOPS", "OP/s")}
_RATE: Final = {"/s": 1.0, "/min": 1 / 60.0, "/h": 1 / 3600.0}

_SHORT: Final = re.compile(r"([1-9]\d*(?:\.\d+)?)(?:([kKMG]|[KMG]i)|e([1-9]\d?))")
_QUANTITY: Final = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S*)\s*")


def _parse(value: Any, units: dict[str, float], what: str, example: str) -> float:
    if value == "0" or (value == 0 and not isinstance(value, bool)):
        return 0.0  # of whatever unit
    if isinstance(value, bool) or not isinstance(value, str):
        raise BadInput(f"{what} {value!r} has no unit", way_out=f"write it as '{example}'")
    match = _QUANTITY.fullmatch(value)
    if match is None or match[2] not in units:
        unit = match[2] if match else value
        raise BadInput(f"{what} {value!r}: {unit!r} is not a unit of {what}", way_out=f"write it as '{example}'")
    return finite(float(match[1]) * units[match[2]], what, value)


def finite(number: float, what: str, value: object) -> float:
    """The number itself if it is finite and not negative; raises BadInput otherwise."""
    if not math.isfinite(number) or number < 0:
        raise BadInput(f"{what} {value!r} must be finite and not negative")
    return number


def seconds(value: Any) -> float:
    """Text such as "31 us" -> 3.1e-05 s."""
    return _parse(value, _SECONDS, "duration", "31 us")


def byte_count(value: Any) -> int:
    """Text such as "80 GB" -> 80000000000 bytes; "228 KiB" -> 233472 bytes."""
    return round(_parse(value, _BYTES, "size", "80 GB"))


def bandwidth(value: Any) -> float:
    """Text such as "400 Gb/s" -> 5e10 B/s (bits); "450 GB/s" -> 4.5e11 B/s (bytes)."""
    return _parse(value, _BANDWIDTH, "bandwidth", "400 Gb/s' or '50 GB/s")


def flops(value: Any) -> float:
    """Text such as "989 TFLOP/s" -> 9.89e14 FLOP/s."""
    return _parse(value, _FLOPS, "compute rate", "989 TFLOP/s")


def counted(text: str) -> int | None:
    """Text such as "32k" -> 32000, "32Ki" -> 32768, "1e3" -> 1000; None where it is no short way to write a count."""
    match = _SHORT.fullmatch(text)
    if match is None:
        return None
    number = Decimal(match[1]) * (10 ** int(match[3]) if match[3] else Decimal(_PREFIX[match[2]]))
    return int(number) if number == int(number) else None


def rate(value: Any) -> float:
    """Text such as "40/s" -> 40.0 per second."""
    return _parse(value, _RATE, "rate", "40/s")


@dataclass(frozen=True, eq=False)  # an annotation has to be hashable
class _Quantity:
    """How pydantic reads a quantity (BadInput becomes the ValueError that it wants), and what its JSON Schema says."""

    parse: Callable[[Any], Any]
    units: Mapping[str, float]
    example: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(self._read, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Text: a number and one of the units."""
        names = "|".join(re.escape(unit) for unit in self.units)
        pattern = rf"^0$|^\s*\+?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*({names})\s*$"
        return {"type": "string", "pattern": pattern, "examples": [self.example]}

    def _read(self, value: Any) -> Any:
        try:
            return self.parse(value)
        except BadInput as error:
            raise ValueError(str(error)) from None


Seconds = Annotated[float, _Quantity(seconds, _SECONDS, "31 us")]
ByteCount = Annotated[int, _Quantity(byte_count, _BYTES, "80 GB")]
Bandwidth = Annotated[float, _Quantity(bandwidth, _BANDWIDTH, "400 Gb/s")]
Flops = Annotated[float, _Quantity(flops, _FLOPS, "989 TFLOP/s")]
Rate = Annotated[float, _Quantity(rate, _RATE, "40/s")]


def to_ps(time: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """[...] seconds -> [...] int64 picoseconds, rounded once. Raises BrokenInvariant on NaN or a negative value,
    BadInput beyond the clock's range.

    SimPy accepts a NaN delay and lets its clock run backwards, so every duration passes through here.
    """
    values = np.asarray(time, dtype=np.float64)
    least, most = (ends.reduce(values, axis=None, initial=0.0) for ends in (np.minimum, np.maximum))  # NaN if one is
    if not least >= 0:
        raise BrokenInvariant("a duration is negative or NaN")
    if most >= LAST_SECOND:
        raise beyond_clock(f"one duration alone is {float(values.max()):.3g} s")
    return np.rint(values * PICOSECONDS_PER_SECOND).astype(np.int64)


def beyond_clock(what: str, way_out: str = "larger rates, or smaller sizes") -> BadInput:
    """The error for a time that the clock cannot tell; `what` names the culprit."""
    return BadInput(f"{what}: beyond the range of the clock, {LAST_SECOND / 86400:.0f} days", way_out=way_out)


def from_ps(ticks: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """[...] int64 picoseconds -> [...] seconds."""
    return np.asarray(ticks, dtype=np.int64) / PICOSECONDS_PER_SECOND


def _scaled(value: float, steps: list[tuple[float, str]], digits: int) -> str:
    scale, unit = next(((s, u) for s, u in steps if abs(value) >= s), steps[-1])
    return f"{value / scale:.{digits}g} {unit}"


def show_seconds(value: float, digits: int = 4) -> str:
    """3.1e-05 -> "31 us"."""
    return _scaled(value, [(1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")], digits) if value else "0 s"


def show_bytes(value: float, digits: int = 4) -> str:
    """8e10 -> "80 GB"."""
    return _scaled(value, [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")], digits) if value else "0 B"


def show_bandwidth(value: float, digits: int = 4) -> str:
    """5e10 -> "50 GB/s"."""
    return show_bytes(value, digits) + "/s"
