"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from moesim.report.drawing import panels_of
from moesim.studies import Comparison

CHANGED = ", changed"  # behind the name of a variant that has the name of its base


def compare_page(found: Comparison, command: str, scenarios: Mapping[str, str]) -> str:
    """The verdict, what moved as a waterfall, every number of both; command and scenarios: what plays it again."""
    base, variant = found.names
    names = [base, variant if variant != base else base + CHANGED]
    drawn = {
        "document": found.to_json(), "names": names, "command": command,
        "parts": {key: asdict(one) if one else None for key, one in found.breakdown.items()}, "scenarios": scenarios,
    }  # fmt: skip
    title = f"moesim compare: {base}, {names[1]}"
    return panels_of(title, drawn, "compare.js")
