"""`load_cluster`: a shipped topology's name or a YAML file -> sealed Cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim import shipped, yamlfile
from moesim.errors import BadInput, unknown_name
from moesim.hardware import graph, plausible, templates
from moesim.hardware.blueprint import Blueprint
from moesim.hardware.cluster import Cluster, Device
from moesim.hardware.fabrics import kind_of
from moesim.hardware.schema import DeviceSection, FabricSection, NodeSection, TopologySection

FOLDER = "topologies"


def load_cluster(name_or_path: str | Path, **changes: Any) -> Cluster:
    """Build and seal a cluster; `changes` (nodes, oversubscription, routing, ...; None: no change) replace keys of the
    file's fabric. Raises BadInput.
    """
    return seal(yamlfile.read_yaml(find_topology(str(name_or_path))), **changes)


def seal(document: yamlfile.Document, **changes: Any) -> Cluster:
    """A topology document -> Cluster; see load_cluster."""
    topology = document.validate(TopologySection)
    given = {key: value for key, value in changes.items() if value is not None}
    if topology.node is None:
        if given:
            raise BadInput(f"a list of links has no {' or '.join(given)} to set", where=document.where(("links",)))
        return _cluster(topology, graph.build(topology, document.where), FabricSection(), document)
    fabric = _fabric(topology.fabric or FabricSection(), given, document)
    return _cluster(topology, templates.build(topology.node, fabric, document.where(("fabric",))), fabric, document)


def refuse_mixed(name_or_path: str, what: str) -> None:
    """Raises BadInput where a topology has GPUs of several kinds and `what` knows one only."""
    document = yamlfile.read_yaml(find_topology(name_or_path))
    if document.validate(TopologySection).others:
        raise BadInput(
            f"GPUs of several kinds are played in mode: step, not in {what}",
            where=document.where(("others",)),
            way_out="a topology of each kind, and moesim compare; or mode: step",
        )


def _cluster(topology: TopologySection, plan: Blueprint, fabric: FabricSection, document: yamlfile.Document) -> Cluster:
    device, (devices, kind_of) = _device(topology.device), _kinds(topology, plan, document)
    return Cluster(
        name=topology.name,
        devices=devices,
        kind_of=kind_of,
        node_of=plan.node_of,
        rail_of=plan.rail_of,
        link_name=tuple(link.name for link in plan.links),
        link_kind=tuple(link.kind for link in plan.links),
        link_capacity=np.array([link.capacity for link in plan.links], dtype=np.float64),
        link_latency=np.array([link.latency for link in plan.links], dtype=np.float64),
        link_source=tuple(link.source for link in plan.links),
        path=plan.paths[0],
        oversubscription=fabric.oversubscription,
        warnings=(*plausible.of_links(plan.links), *plausible.of_device(device)),
        more_paths=plan.paths[1:],
        link_ends=tuple((link.start, link.end) for link in plan.links),
        collides=_collides(topology.node, plan, fabric),
        reduces_in_switch=topology.node is not None and topology.node.inside[1].in_switch_reduction,
    )


def _kinds(
    topology: TopologySection, plan: Blueprint, document: yamlfile.Document
) -> tuple[tuple[Device, ...], npt.NDArray[np.int32]]:  # fmt: skip
    """The kinds of GPUs, that of most nodes first, and int32[D]: which each is. Raises BadInput."""
    devices, nodes = [_device(topology.device)], int(plan.node_of.max()) + 1
    kind_of = np.zeros(len(plan.node_of), dtype=np.int32)
    for number, other in enumerate(topology.others):
        where = document.where(("others", number))
        if lost := [node for node in other.nodes if node >= nodes]:
            raise BadInput(f"there is no node {lost[0]} of {nodes}", where=where, way_out=f"0 to {nodes - 1}")
        own = np.isin(plan.node_of, other.nodes)
        if kind_of[own].any():
            raise BadInput("a node stands in two entries", where=where, way_out="each node once")
        found = shipped_device(other.device) if isinstance(other.device, str) else _device(other.device)
        if found is None:
            raise unknown_name("device", str(other.device), known_devices(), where=where)
        devices.append(found)
        kind_of[own] = number + 1
    return tuple(devices), kind_of if topology.others else np.zeros(0, dtype=np.int32)


def _collides(node: NodeSection | None, plan: Blueprint, fabric: FabricSection) -> bool:
    """A path may be narrowest between two switches: under ECMP, on listed links, behind PCIe, between racks."""
    pooled = node is not None and node.pcie is None and kind_of(fabric.kind).pooled(fabric)
    pooled = pooled and node is not None and node.inside[1].oversubscription == 1
    ends = ((link.start, link.end) for link in plan.links)
    return not pooled and any(not start.startswith("gpu") and not end.startswith("gpu") for start, end in ends)


def known_topologies() -> dict[str, Path]:
    """name -> file of the shipped topologies."""
    return shipped.names(FOLDER, ".yaml")


def find_topology(name: str) -> Path:
    """A path ending in .yaml as it is, or the file of a shipped name. Raises BadInput with the known names."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        return path
    known = known_topologies()
    if name not in known:
        raise unknown_name("topology", name, known)
    return known[name]


def shipped_device(name: str) -> Device | None:
    """The GPU of that name, of any shipped topology; only the file that has it is read whole."""
    for path in known_topologies().values():
        if f"\n  name: {name}\n" in path.read_text(encoding="utf-8"):
            return _device(yamlfile.read_yaml(path).validate(TopologySection).device)
    return None


def known_devices() -> list[str]:
    """Names of the devices of shipped topologies."""
    texts = [path.read_text(encoding="utf-8") for path in known_topologies().values()]
    return sorted({name for text in texts for name in re.findall(r"\n  name: (.+)\n", text)})


def _fabric(fabric: FabricSection, given: Mapping[str, Any], document: yamlfile.Document) -> FabricSection:
    """The file's fabric with the keys that are given instead."""
    if given.get("routing") in ("adaptive", "minimal"):  # neither has queue pairs to tell apart
        given = {**given, "spines": 1, "queue_pairs": 1}
    if given.get("routing") == "spray":
        given = {"queue_pairs": 1, **given}
    together = {"kind": fabric.kind, "routing": fabric.routing, **given}
    yamlfile.validate(FabricSection, together, lambda keys: document.where(("fabric", *keys)))
    return fabric.model_copy(update=dict(given))


def _device(section: DeviceSection) -> Device:
    sources = {
        "memory": section.memory.source,
        "memory_bandwidth": section.memory_bandwidth.source,
        "sms": section.sms.source,
        **({"cache": section.cache.source} if section.cache else {}),
        **({"host_link": section.host_link.source} if section.host_link else {}),
        **{f"flops.{dtype}": figure.source for dtype, figure in section.flops.items()},
    }
    return Device(
        name=section.name,
        memory_bytes=section.memory.value,
        memory_bandwidth=section.memory_bandwidth.value,
        peak_flops={dtype: figure.value for dtype, figure in section.flops.items()},
        sms=section.sms.value,
        cache_bytes=section.cache.value if section.cache else 0,
        host_link=section.host_link.value if section.host_link else 0.0,
        sources=sources,
        like=section.like,
    )
