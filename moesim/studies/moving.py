"""Keys of a policy by which experts move, of served replicas and of training runs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from pydantic import Field

from moesim.errors import BadInput, DoesNotFit
from moesim.placement import PlacementProblem, Windows, strategies
from moesim.placement.online import Policy
from moesim.placement.solve import plan
from moesim.yamlfile import Section


class MovingSection(Section):
    """Who plans where experts go, and what keeps them where they are."""

    strategy: str = Field("eplb", description="who plans; see `moesim list 'placement strategies'`")
    hysteresis: float = Field(0.0, ge=0, lt=1, description="least gain of the plan on the window that is worth moving")
    max_moved: float | None = Field(None, gt=0, le=1, description="share of all slots that a look may move at most")

    def policy(self, where: str, seed: int, *, redundant: bool) -> Policy:
        """One that looks at each window and plans on it alone; redundant: some slots are. Raises BadInput for a
        strategy that is not known, or that has no answer where loads are all that is seen.
        """
        key = f"{where}.strategy"
        strategies.find(self.strategy, where=key)
        lacking = _lacking(self.strategy, redundant)
        if lacking:
            able = [name for name in strategies.REGISTRY if not _lacking(name, redundant)]
            what = f"{self.strategy} has no answer where loads are all that is seen: {lacking}"
            raise BadInput(what, where=key, way_out=f"one of {', '.join(able)}")
        return Policy(1, 1, self.hysteresis, self.max_moved, self.strategy, seed)


@cache
def _lacking(strategy: str, redundant: bool) -> str:
    """Why it has no answer where loads alone are known, found by asking it for two layers of four experts on two ranks,
    with a redundant slot each or none; "": it has one.
    """
    counts = np.array([[[1, 2, 3, 4], [4, 3, 2, 1]]], dtype=np.int64)
    problem = PlacementProblem(Windows("loads", counts), np.zeros(2, np.int64), np.full(2, 2 + redundant))
    row = np.resize(np.arange(4, dtype=np.int32), (2, problem.slots))
    try:
        plan(replace(problem, previous=problem.place(row)), strategy)
    except (BadInput, DoesNotFit) as error:
        return error.what
    return ""
