"""`load_cluster`: a shipped topology's name or a YAML file -> sealed Cluster."""

from __future__ import annotations

from pathlib import Path

from moesim import shipped, yamlfile
from moesim.errors import BadInput, unknown_name
from moesim.hardware import graph, templates
from moesim.hardware.cluster import Cluster, Device
from moesim.hardware.schema import DeviceSection, FabricSection, TopologySection

FOLDER = "topologies"
IMPLAUSIBLE_BANDWIDTH = 1e14  # 100 TB/s; no port of 2026 comes near


def load_cluster(
    name_or_path: str | Path, *, nodes: int | None = None, oversubscription: float | None = None
) -> Cluster:
    """Build and seal a cluster; `nodes` and `oversubscription` replace the file's. Raises BadInput."""
    document = yamlfile.read_yaml(_find(str(name_or_path)))
    topology = document.validate(TopologySection)
    if topology.node is None:
        if nodes is not None or oversubscription is not None:
            raise BadInput("a list of links has no nodes or oversubscription to set", where=document.where(("links",)))
        places = [document.where(("links", number)) for number in range(len(topology.links))]
        plan, ratio = graph.build(topology.links, places), 1.0
    else:
        fabric = _fabric(topology.fabric or FabricSection(), nodes, oversubscription)
        plan, ratio = templates.build(topology.node, fabric, document.where(("fabric",))), fabric.oversubscription
    return Cluster(
        name=topology.name,
        devices=(_device(topology.device),),
        node_of=plan.node_of,
        rail_of=plan.rail_of,
        link_name=plan.names,
        link_kind=plan.kinds,
        link_capacity=plan.capacity,
        link_latency=plan.latency,
        link_source=plan.sources,
        path=plan.path,
        oversubscription=ratio,
        warnings=_implausible(plan),
    )


def known_topologies() -> dict[str, Path]:
    """name -> file of the shipped topologies."""
    return shipped.names(FOLDER, ".yaml")


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        return path
    known = known_topologies()
    if name not in known:
        raise unknown_name("topology", name, known)
    return known[name]


def _fabric(fabric: FabricSection, nodes: int | None, oversubscription: float | None) -> FabricSection:
    changed = {"nodes": nodes, "oversubscription": oversubscription}
    return fabric.model_copy(update={key: value for key, value in changed.items() if value is not None})


def _device(section: DeviceSection) -> Device:
    sources = {
        "memory": section.memory.source,
        "memory_bandwidth": section.memory_bandwidth.source,
        "sms": section.sms.source,
        **{f"flops.{dtype}": figure.source for dtype, figure in section.flops.items()},
    }
    return Device(
        name=section.name,
        memory_bytes=section.memory.value,
        memory_bandwidth=section.memory_bandwidth.value,
        peak_flops={dtype: figure.value for dtype, figure in section.flops.items()},
        sms=section.sms.value,
        sources=sources,
    )


def _implausible(plan: templates.Blueprint) -> tuple[str, ...]:
    return tuple(
        f"link {name}: {rate:.3g} B/s is implausible"
        for name, rate in zip(plan.names, plan.capacity, strict=True)
        if rate > IMPLAUSIBLE_BANDWIDTH
    )
