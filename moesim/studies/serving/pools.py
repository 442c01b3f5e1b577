"""Pools, sealed: a ServeBuilt of each, where their replicas stand in one cluster, and the links between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moesim.costs import communication_of
from moesim.errors import BadInput, MoesimError
from moesim.hardware import Cluster, load_cluster
from moesim.network import Fabric
from moesim.serving import Book, Replica
from moesim.serving.fleet import Outage
from moesim.serving.transfer import KERNEL, Instant, Links, Wires
from moesim.step.pace import Pace
from moesim.studies.serving.build import ServeBuilt, build_serving, draft_share
from moesim.studies.serving.fleet_sections import OutageSection, Role, outages_of
from moesim.studies.serving.load import ServeLoaded, in_pool
from moesim.studies.serving.pool_sections import ROLES
from moesim.studies.serving.scenario import ServeScenario

MOST_GPUS = 4096  # of all pools: paths between all of them are a table


@dataclass(frozen=True)
class Pools:
    """Both, by role in the order of ROLES; first: of each, the number of each replica's first GPU; fabric: of all."""

    parts: tuple[ServeBuilt, ServeBuilt]
    first: tuple[tuple[int, ...], tuple[int, ...]]
    fabric: Fabric
    instant: bool

    @property
    def entry(self) -> int:
        """Replicas that compute prompts."""
        return len(self.first[0])

    @property
    def notes(self) -> tuple[str, ...]:
        """What is assumed of the transfers."""
        if self.instant:
            return ("pools.transfer infinite: KV is there at once",)
        return (
            "KV moves at the rates and with the start-up of NCCL's point-to-point kernels, in one piece when a prompt "
            "is computed: assumed; transfers share links with each other, not with the steps' own exchanges",
        )

    def replicas(self, book: Book, clocks: Sequence[Pace]) -> Sequence[Replica]:
        """Of both pools on a book, those that compute prompts first."""
        pairs = zip(self.parts, clocks, self.first, strict=True)
        return [
            one for number, (part, clock, first) in enumerate(pairs)
            for one in part.replicas(book, clock, first, hands_over=number == 0)
        ]  # fmt: skip

    def outages(self, sections: Sequence[OutageSection]) -> tuple[Outage, ...]:
        """Of the replicas of both pools. Raises BadInput where what dies is none of theirs."""
        cluster = self.fabric.cluster
        every = zip(ROLES, self.parts, self.first, strict=True)
        places: dict[Role | None, list[range]] = {
            role: [range(one, one + part.plan.layout.world) for one in first] for role, part, first in every
        }
        return outages_of(sections, places, cluster.gpus_per_node, cluster.num_devices)

    def links(self) -> Links:
        """New ones."""
        plan = self.parts[1].plan
        spread, dtype = plan.ops.spread, plan.ops.precision.kv_cache
        layers = 1 + min(draft_share(part.plan, part.settings) for part in self.parts)  # what both have
        if self.instant:
            return Instant()
        return Wires(self.fabric, lambda tokens: spread.kv_bytes(dtype, tokens) * layers + spread.state_bytes)


def build_pools(loaded: ServeLoaded, seed: int) -> Pools:
    """Check and seal. Raises BadInput, or DoesNotFit where no block of KV is left in one of them."""
    scenario = loaded.scenario
    assert scenario.pools is not None
    given = load_cluster(scenario.cluster.topology, **scenario.cluster.changes)
    each = given.gpus_per_node
    pools = (scenario.pools.prefill, scenario.pools.decode)
    worlds = [pool.parallel.tensor_parallel_size * pool.parallel.data_parallel_size for pool in pools]
    first, used = _stand(
        [world for world, pool in zip(worlds, pools, strict=True) for _ in range(pool.most_replicas)], each
    )
    cluster = _whole(scenario, given, used)
    prefill, decode = (
        _built(in_pool(loaded, role, -(-world // each)), role, seed) for role, world in zip(ROLES, worlds, strict=True)
    )
    cost = communication_of(prefill.plan.ops.costs.communication, KERNEL, cluster.devices[0].name)
    fabric = Fabric(cluster, {KERNEL: cost}, left=scenario.network.left)
    split = pools[0].most_replicas
    return Pools((prefill, decode), (first[:split], first[split:]), fabric, scenario.pools.transfer == "infinite")


def _built(loaded: ServeLoaded, role: Role, seed: int) -> ServeBuilt:
    """One pool."""
    with loaded.placing():
        try:
            return build_serving(loaded, seed)
        except MoesimError as error:
            raise type(error)(error.what, where=error.where or f"pools.{role}", way_out=error.way_out) from None


def _stand(worlds: Sequence[int], each: int) -> tuple[tuple[int, ...], int]:
    """Replicas of so many GPUs, one after the other on nodes of `each` -> the first GPU of every one, and the end."""
    first, at = [], 0
    for world in worlds:
        if at % each and at % each + world > each:
            at += each - at % each
        first.append(at)
        at += world
    return tuple(first), at


def _whole(scenario: ServeScenario, given: Cluster, used: int) -> Cluster:
    """The cluster of all pools: as many nodes as they take where the scenario does not say. Raises BadInput."""
    if used > MOST_GPUS:
        raise BadInput(f"replicas take {used} GPUs", where="pools", way_out=f"at most {MOST_GPUS}")
    nodes = -(-used // given.gpus_per_node)
    if scenario.cluster.nodes is None and nodes != given.num_nodes:
        return load_cluster(scenario.cluster.topology, **{**scenario.cluster.changes, "nodes": nodes})
    if used > given.num_devices:
        raise BadInput(
            f"replicas take {used} GPUs, the cluster has {given.num_devices}", where="pools",
            way_out=f"cluster.nodes: {nodes}, or leave it out",
        )  # fmt: skip
    return given
