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
    def told(self) -> bool:
        """Whether the interval leaves zero out."""


def step_verdict(base: str, variant: str, metrics: Mapping[str, Told], seeds: int) -> str:
    """By its time."""
    step = metrics["step_time_s"]
    if not step.told:
        return nothing(base, variant, seeds)
    how = "faster" if step.value < 0 else "slower"
    return f"{variant} is {how} than {base} by {abs(step.value / step.base):.1%} of its step time, certain at 95 %."


def train_verdict(base: str, variant: str, metrics: Mapping[str, Told]) -> str:
    """By its time; nothing of a pipelined step is drawn, so that there is no interval."""
    parts = [(metrics["step_time_s"], "its step time")]
    parts += [(metrics["run_s"], "its run")] if "run_s" in metrics else []
    told = [
        f"{'faster' if one.value < 0 else 'slower'} by {abs(one.value / one.base):.1%} of {what}" for one, what in parts
    ]
    if not any(one.value for one, _ in parts):
        return f"{variant} takes exactly as long as {base}."
    return f"{variant} is {' and '.join(told)} than {base}; nothing is drawn, so there is no interval."


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
