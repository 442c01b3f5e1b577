"""What a paired comparison comes to, in one sentence: a step by its time, served requests by what their users see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

SERVED: Final = {
    "mean_ttft_ms": "TTFT",
    "mean_tpot_ms": "TPOT",
    "output_throughput": "output",
    "request_goodput": "goodput",
}


class Told(Protocol):
    """A mean paired difference."""

    @property
    def value(self) -> float:
        """Variant less base."""

    @property
    def base(self) -> float:
        """The base's mean."""

    @property
    def variant(self) -> float:
        """The variant's mean."""

    @property
    def told(self) -> bool:
        """Whether the interval leaves zero out."""


def step_verdict(base: str, variant: str, metrics: Mapping[str, Told], seeds: int) -> str:
    """By its time."""
    step = metrics["step_time_s"]
    if not step.told:
        return nothing(base, variant, seeds)
    return f"{variant} is {_faster(step, base)}, certain at 95 %."


def train_verdict(
    base: str, variant: str, metrics: Mapping[str, Told], expected: tuple[float, ...], trials: int
) -> str:  # fmt: skip
    """By its time; nothing of a pipelined step is drawn, so that there is no interval. expected: seconds of both runs
    in closed form, empty where one has none: trials with few failures are too few for a verdict of their own.
    """
    step = metrics["step_time_s"]
    told = f"{variant} is {_faster(step, base)}; nothing is drawn, so there is no interval."
    told = told if step.value else f"A step of {variant} takes exactly as long as one of {base}."
    if not expected:
        return told
    more, drawn = expected[1] - expected[0], metrics["run_s"]
    run = f"{_how(more)} by {abs(more / expected[0]):.1%}" if more else "as long"
    return f"{told} Its run is {run} by Daly's formula; {trials} trial(s), paired, say {drawn.value / drawn.base:+.1%}."


def _faster(step: Told, base: str) -> str:
    return f"{_how(step.value)} than {base} by {abs(step.value / step.base):.1%} of its step time"


def _how(more: float) -> str:
    return "faster" if more < 0 else "slower"


def serve_verdict(base: str, variant: str, metrics: Mapping[str, Told], seeds: int) -> str:
    """By mean latencies and rates, those whose difference is certain."""
    known = {label: metrics[name] for name, label in SERVED.items() if name in metrics}
    certain = {label: one for label, one in known.items() if one.told and one.base}
    if not certain:
        return nothing(base, variant, seeds)
    parts = ", ".join(f"{label} {one.value / one.base:+.1%}" for label, one in certain.items())
    rest = [label for label in known if label not in certain]
    open_ = f"; no difference of {', '.join(rest)} can be told" if rest else ""
    return f"{variant} against {base}: {parts}, certain at 95 % over {seeds} paired seeds{open_}."


def nothing(base: str, variant: str, seeds: int) -> str:
    """No interval leaves zero out."""
    return f"No difference between {base} and {variant} can be told at 95 % from {seeds} paired seeds."
