"""ServeScenario: requests served by replicas of one layout. The keys beside those of every run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from moesim.errors import BadInput, pick
from moesim.serving.balancer import REGISTRY as BALANCERS
from moesim.serving.classes import SloSection
from moesim.serving.scaling import Scaling
from moesim.serving.settings import SchedulerSection
from moesim.serving.workload import RequestsSection
from moesim.studies.prices import PricesSection
from moesim.studies.scenario import BatchSection, RoutingSection, Scenario, Setup, StepOverlapSection
from moesim.studies.serving.fleet_sections import AutoscaleSection, OutageSection, Role
from moesim.studies.serving.offload_section import KvOffloadSection
from moesim.studies.serving.pool_sections import MOST_REPLICAS, PoolsSection
from moesim.studies.serving.rebalance import RebalanceSection
from moesim.studies.serving.stage_sections import StageSection, check_stages
from moesim.yamlfile import Items


class ServeRouting(RoutingSection):
    """As in a step, and how often it is looked up."""

    renew: Annotated[int, Field(ge=1)] | Literal["never"] = Field(
        1, description="steps that a looked up routing is used by batches of its shape; 1: exact; or never again"
    )


class ServeScenario(Setup):
    """A serving system under load; `parallel` is the layout of one replica."""

    mode: Literal["serve"] = Field(description="requests over time")
    routing: ServeRouting | None = Field(None, description="which experts tokens take; a model without has none")
    requests: RequestsSection
    scheduler: SchedulerSection = SchedulerSection()
    slo: SloSection = SloSection()
    prices: PricesSection | None = Field(None, description="metrics of cost and energy per million tokens")
    replicas: int = Field(1, ge=1, le=MOST_REPLICAS, description="copies of the layout, alike, with a router in front")
    pools: PoolsSection | None = Field(None, description="replicas that compute prompts, and others that answer")
    faults: Items[OutageSection] = Field((), max_length=256, description="replicas that die, and when they return")
    autoscale: AutoscaleSection | None = Field(None, description="replicas that are started and let go by load")
    stages: Items[StageSection] = Field(
        (), max_length=64, description="what requests or tokens go through beside the model; default: nothing"
    )
    kv_offload: KvOffloadSection | None = Field(None, description="memory behind the HBM that holds KV")
    rebalance: RebalanceSection | None = Field(None, description="experts move between GPUs as loads say")
    balancer: str = Field("least_outstanding", description="who serves a request; see `moesim list balancers`")
    seeds: int = Field(1, ge=1, le=1000, description="runs with other requests; metrics are means, with 95 % intervals")

    def model_post_init(self, context: Any) -> None:
        """Raises BadInput for a balancer that is not known, and keys of the fluid network."""
        pick("balancer", self.balancer, BALANCERS, where="balancer")
        for key, given in (("level", self.network.level == "fluid"), ("window", self.network.window is not None)):
            if given:
                what = "nothing to act on: steps of a serving loop are played by port loads"
                raise BadInput(what, where=f"network.{key}", way_out="leave it out")
        if self.balancer == "session_affinity" and not self.requests.sessions:
            raise BadInput(
                "requests have no sessions", where="balancer", way_out="requests.sessions, or prefix_affinity"
            )
        if self.prices:
            self.prices.check()
        self.requests.check()
        check_stages(self.stages)
        self._check_priorities()
        if self.kv_offload:
            ends = (self.pools.prefill, self.pools.decode) if self.pools else ()
            engines = [(pool.scheduler or self.scheduler).settings() for pool in ends] or [self.scheduler.settings()]
            self.kv_offload.check(prompts=engines[0], answers=engines[-1])
        if self.autoscale and not self.pools:
            self.autoscale.check(self.replicas)
        if self.pools:
            self._check_pools(self.pools)

    def _check_priorities(self) -> None:
        """Raises BadInput for priorities that no scheduler looks at."""
        pools = self.pools and (self.pools.prefill, self.pools.decode)
        sections = [pool.scheduler or self.scheduler for pool in pools] if pools else [self.scheduler]
        policies = [section.settings().scheduling_policy for section in sections]
        if "priority" in policies:
            return
        for number, one in enumerate(self.requests.classes):
            if one.priority:
                raise BadInput(
                    f"priorities do not count with scheduling_policy: {policies[0]}",
                    where=f"requests.classes[{number}].priority", way_out="scheduler.scheduling_policy: priority",
                )  # fmt: skip

    def _check_pools(self, pools: PoolsSection) -> None:
        """Raises BadInput for keys that nothing listens to."""
        for key in ("parallel", "replicas", "autoscale"):
            if key in self.model_fields_set:
                raise BadInput("each pool has its own", where=key, way_out=f"pools.prefill.{key}, pools.decode.{key}")
        for role, pool in (("prefill", pools.prefill), ("decode", pools.decode)):
            if pool.autoscale:
                pool.autoscale.check(pool.replicas, f"pools.{role}.")
        self._check_cadence(pools)
        if pools.decode.scheduler and pools.decode.scheduler.prefix_cache:
            raise BadInput(
                "KV comes whole from the pool that computed it", where="pools.decode.scheduler.prefix_cache",
                way_out="pools.prefill.scheduler.prefix_cache",
            )  # fmt: skip

    def _check_cadence(self, pools: PoolsSection) -> None:
        """Raises BadInput for intervals of prompts: they act while answers go on beside them."""
        shared = None if pools.prefill.scheduler and pools.decode.scheduler else self.scheduler
        given = {"": shared, "pools.prefill.": pools.prefill.scheduler, "pools.decode.": pools.decode.scheduler}
        for lead, section in given.items():
            settings = section and section.settings()
            for key, idle in (("prefill_schedule_interval", 1), ("prefill_decode_interval", 0)):
                if settings and getattr(settings, key) > idle:
                    raise BadInput(
                        "prompts wait there for answers beside them, and pools compute the two on different replicas",
                        where=f"{lead}scheduler.{key}", way_out="leave it out, or serve without pools",
                    )  # fmt: skip

    def pool(self, role: Role, nodes: int) -> ServeScenario:
        """A system of one pool's replicas alone, each on so many nodes."""
        assert self.pools is not None
        pool = self.pools.prefill if role == "prefill" else self.pools.decode
        cluster = self.cluster.model_copy(update={"nodes": nodes})
        changed = {**pool.changes, "cluster": cluster, "pools": None}
        if role == "decode":
            scheduler = pool.scheduler or self.scheduler
            changed["scheduler"] = scheduler.model_copy(update={"prefix_cache": False})
            changed["stages"] = tuple(one for one in self.stages if one.where == "per_token")
        return self.model_copy(update=changed)

    @property
    def renew(self) -> int | Literal["never"]:
        """Of routings; where there are none, no step is like another's."""
        return self.routing.renew if self.routing else 1

    @property
    def all_reduce(self) -> str:
        """Whose runs inside a node: the preset's, where none is named."""
        return self.comm.all_reduce or self.scheduler.settings().all_reduce

    @property
    def most_replicas(self) -> int:
        """That there ever are."""
        return self.autoscale.max_replicas if self.autoscale else self.replicas

    def scaling(self) -> Scaling | None:
        """How many replicas there are, where that changes."""
        return self.autoscale.scaling(self.replicas) if self.autoscale else None

    def step(self) -> Scenario:
        """The step scenario that a replica's plan is built from; its batch stands for none that is played."""
        shared = {name: getattr(self, name) for name in Setup.model_fields if name != "routing"}
        if self.parallel.tensor_parallel_size > 1:
            shared["comm"] = self.comm.model_copy(update={"all_reduce": self.all_reduce})
        shared["overlap"] = StepOverlapSection(**dict(self.overlap))
        given = self.routing
        routing = given and RoutingSection(**{name: getattr(given, name) for name in RoutingSection.model_fields})
        return Scenario(**shared, routing=routing, batch=BatchSection(phase="decode", tokens_per_gpu=64, context=1))
