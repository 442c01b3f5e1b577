"""Keys of a policy by which experts move, of served replicas and of training runs."""

from __future__ import annotations

from pydantic import Field

from moesim.placement import strategies
from moesim.placement.online import Policy
from moesim.yamlfile import Section


class MovingSection(Section):
    """Who plans where experts go, and what keeps them where they are."""

    strategy: str = Field("eplb", description="who plans; see `moesim list 'placement strategies'`")
    hysteresis: float = Field(0.0, ge=0, lt=1, description="least gain of the plan on the window that is worth moving")
    max_moved: float | None = Field(None, gt=0, le=1, description="share of all slots that a look may move at most")

    def policy(self, where: str, seed: int) -> Policy:
        """One that looks at each window and plans on it alone. Raises BadInput for a strategy that is not known."""
        strategies.find(self.strategy, where=f"{where}.strategy")
        return Policy(1, 1, self.hysteresis, self.max_moved, self.strategy, seed)
