"""The `pools:` section: prompts computed by one kind of replica, answers by another, each with a layout of its own."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from moesim.serving.settings import SchedulerSection
from moesim.studies.scenario import CommSection, ExpertsSection, OverlapSection, ParallelSection
from moesim.studies.serving.fleet_sections import AutoscaleSection, Role
from moesim.yamlfile import Section

MOST_REPLICAS = 4096
ROLES: Final[tuple[Role, Role]] = ("prefill", "decode")


class PoolSection(Section):
    """Replicas of one role; what it does not say is the scenario's."""

    parallel: ParallelSection = Field(description="the layout of one replica")
    replicas: int = Field(1, ge=1, le=MOST_REPLICAS, description="of this role, alike")
    experts: ExpertsSection | None = None
    comm: CommSection | None = None
    overlap: OverlapSection | None = None
    scheduler: SchedulerSection | None = None
    autoscale: AutoscaleSection | None = Field(None, description="replicas of this role, started and let go by load")

    @property
    def most_replicas(self) -> int:
        """That there ever are."""
        return self.autoscale.max_replicas if self.autoscale else self.replicas

    @property
    def changes(self) -> dict[str, Any]:
        """Keys of a scenario that are different in this pool."""
        return {name: getattr(self, name) for name in type(self).model_fields if getattr(self, name) is not None}


class PoolsSection(Section):
    """Disaggregation. Replicas stand in the cluster one after the other, those of prefill first; one that is smaller
    than a node does not lie across two.
    """

    prefill: PoolSection
    decode: PoolSection
    transfer: Literal["links", "infinite"] = Field(
        "links", description="KV moves over the cluster's links, or an infinite network: what does the transfer cost?"
    )
