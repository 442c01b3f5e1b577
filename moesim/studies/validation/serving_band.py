"""The 80 % band of a served TPOT: how far predictions of the same engine were from measured rows of other systems.

Errors of kernel tables alone covered 41 % of the rows: what an engine does beside its kernels is most of what is left.
So the band is that of the model: exp(-w) to exp(w), w the 80 % quantile of |log(measured / predicted)| over shipped
rows of the engine whose flag is ok and that were predicted in the same way. Constants of a preset were fitted with the
rows of each shipped (model, system): its w is that of the engine's other ones, by the same constants. They never saw
any other (model, system): w is that of all shipped rows, each by constants that were fitted without its own (model,
system). `learned` makes the table from points; `moesim validate serving` prints it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from moesim.studies.validation.validation import Point

COVERAGE: Final = 0.8
ALL: Final = ""  # of an engine: nothing left out
WIDTHS: Final[Mapping[str, Mapping[str, float]]] = {  # engine -> (model, system), ALL for others -> w
    "sglang": {
        ALL: 0.221, "Qwen/Qwen3.5-397B-A17B b200_sxm": 0.177, "deepseek-ai/DeepSeek-R1 b200_sxm": 0.127,
        "zhipuai/GLM-5 b200_sxm": 0.158,
    },
    "trtllm": {
        ALL: 0.146, "Qwen/Qwen3-235B-A22B-FP8 h100_sxm": 0.162, "deepseek-ai/DeepSeek-R1 b200_sxm": 0.137,
        "openai/gpt-oss-120b b200_sxm": 0.139,
    },
    "vllm": {
        ALL: 0.145, "openai/gpt-oss-120b b200_sxm": 0.093, "openai/gpt-oss-120b h100_sxm": 0.113,
    },
}  # fmt: skip


def band_of(point: Point) -> tuple[float, float] | None:
    """Factors low, high on a predicted TPOT; None for an engine without shipped rows."""
    widths = WIDTHS.get(point.keys["backend"])
    if widths is None:
        return None
    width = widths.get(_who(point), widths[ALL])
    return math.exp(-width), math.exp(width)


def learned(fitted: Iterable[Point], left_out: Iterable[Point]) -> dict[str, dict[str, float]]:
    """WIDTHS as these points say, those of TPOT whose flag is ok: predicted with constants that were fitted with their
    (model, system), and without it.
    """
    rows, others = _by_engine(fitted), _by_engine(left_out)
    return {
        engine: {ALL: _width(others[engine], ALL)} | {who: width for who in sorted(set(map(_who, some)))
                                                      if (width := _width(some, who))}
        for engine, some in sorted(rows.items())
    }  # fmt: skip


def _by_engine(points: Iterable[Point]) -> dict[str, list[Point]]:
    rows: dict[str, list[Point]] = {}
    for point in points:
        if point.keys["metric"] == "tpot" and point.keys["flag"] == "ok":
            rows.setdefault(point.keys["backend"], []).append(point)
    return rows


def _who(point: Point) -> str:
    return f"{point.keys['model']} {point.keys['system']}"


def _width(points: Iterable[Point], left_out: str) -> float:
    """0 where no point remains."""
    off = [abs(math.log(one.measured / one.predicted)) for one in points if _who(one) != left_out]
    return round(float(np.quantile(off, COVERAGE)), 3) if off else 0.0
