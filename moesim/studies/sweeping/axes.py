"""An axis: a dotted key and its values, or the interval that they are drawn from."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from moesim import units, yamlfile
from moesim.errors import BadInput

INTERVAL: Final = re.compile(r"(log )?\s*(-?[0-9.eE+-]+)\s*\.\.\s*(-?[0-9.eE+-]+)")
EXAMPLE: Final = "'batch.tokens_per_gpu=64,128' or, drawn, 'network.efficiency=0.5..1'"
DIGITS: Final = 6  # significant ones of a drawn number: what is printed is what was run


@dataclass(frozen=True)
class Interval:
    """low .. high, whole numbers where both are; log: equal ratios are equally likely."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __str__(self) -> str:
        return f"{'log ' if self.log else ''}{self.low}..{self.high}"

    def at(self, share: float) -> int | float:
        """0 <= share < 1 -> a number of the interval."""
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        drawn = low * (high / low) ** share if self.log else low + (high - low) * share
        return min(int(drawn), int(self.high)) if self.whole else float(f"{drawn:.{DIGITS}g}")


@dataclass(frozen=True)
class Axis:
    """A key and the values that it takes, or the interval that they are drawn from."""

    key: str
    values: tuple[Any, ...] | Interval

    def at(self, share: float) -> Any:
        """0 <= share < 1 -> a value; every value of a list is equally likely."""
        if isinstance(self.values, Interval):
            return self.values.at(share)
        return self.values[int(share * len(self.values))]


def read_axis(text: str) -> Axis:
    """ "a.b=1,2,4", "a.b=0.5..1" or "a.b=log 1..64" -> an axis; one value makes an axis of one. Raises BadInput."""
    key, equals, listed = text.partition("=")
    if not equals or not all(key.split(".")):
        raise BadInput(f"--set {text!r} is not key=values", way_out=EXAMPLE)
    where = f"--set {key}"
    if (found := _interval(listed, where)) is not None:
        return Axis(key, found)
    parts = list(_parts(listed))
    if len(parts) > 1 and "" in parts:
        raise BadInput(f"{listed!r} has an empty value", where=where, way_out="null, where that is meant")
    return Axis(key, tuple(read_value(part, where) for part in parts))


def axis_of(key: str, given: Any, where: str) -> Axis:
    """The same of plain data: a list of values, an interval as text, or one value. Raises BadInput."""
    if isinstance(given, list):
        if not given:
            raise BadInput("lists no value", where=where, way_out="KEY=1,2,4 or KEY=0.5..1")
        return Axis(key, tuple(read_value(one, where) if isinstance(one, str) else one for one in given))
    found = _interval(given, where) if isinstance(given, str) else None
    return Axis(key, (given,) if found is None else found)


def override(key: str, value: Any) -> str:
    """What `--set` takes: the key and the value as YAML that reads back to the same."""
    return f"{key}={flow(value)}"


def flow(value: Any) -> str:
    """Plain data -> YAML in one line. A float always has a point: this project's YAML takes `1e-05` for text."""
    if isinstance(value, float):
        mantissa, exponent, power = repr(value).partition("e")
        return f"{mantissa}{'' if '.' in mantissa or not exponent else '.0'}{exponent}{power}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {flow(one)}" for name, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(flow, value))}]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./-]*", value) and value not in ("true", "false", "null"):
        return value
    return json.dumps(value, ensure_ascii=False)


def _interval(text: str, where: str) -> Interval | None:
    match = INTERVAL.fullmatch(text.strip())
    if match is None:
        return None
    low, high = (_number(part, where) for part in match.groups()[1:])
    if not low < high or (match[1] and low <= 0):
        raise BadInput(f"{text!r} is no interval", where=where, way_out="low..high, low below high, above 0 for log")
    return Interval(low, high, bool(match[1]))


def _number(text: str, where: str) -> int | float:
    try:
        number = float(text)
    except ValueError:
        raise BadInput(f"{text!r} is no number", where=where, way_out=EXAMPLE) from None
    if not math.isfinite(number):
        raise BadInput(f"{text!r} is not finite", where=where, way_out="numbers")
    return int(number) if re.fullmatch(r"-?\d+", text) else number


def read_value(text: str, where: str) -> Any:
    """As `moesim run --set` reads it."""
    count = units.counted(text)
    return yamlfile.parse_yaml(f"value: {text}", where).data["value"] if count is None else count


def _parts(text: str) -> Iterator[str]:
    """Divided at commas outside of brackets and quotes."""
    depth, quote, begun = 0, "", 0
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in "[{") - (letter in "]}")
            if letter == "," and not depth:
                yield text[begun:place].strip()
                begun = place + 1
    yield text[begun:].strip()


def one_each(axes: Sequence[Axis]) -> None:
    """Raises BadInput where a key stands twice."""
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise BadInput("is varied twice", where=f"--set {key}", way_out="one --set with all of its values")
