"""ASTRA-sim's network YAML, both ways: dimensions of NPUs, GB/s and ns per link and direction.

`topology: [Switch, Ring]`, `npus_count: [8, 4]`, `bandwidth: [400, 50]`, `latency: [936.25, 1000]`; dimension 0 varies
fastest. A Switch gives every NPU one link to it, a Ring joins neighbours, FullyConnected joins all pairs.
Source: ASTRA-sim's analytical network backend, its documentation and example inputs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from moesim import yamlfile
from moesim.errors import BadInput
from moesim.hardware.blueprint import MAX_GPUS
from moesim.hardware.cluster import Cluster
from moesim.hardware.formats.format import Draft, Format, Plain, Written, latency_text, rate_text, yaml_text
from moesim.yamlfile import Items

SOURCE = "ASTRA-sim network file"
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Network(yamlfile.Section):
    """The file's keys; one entry per dimension."""

    topology: Items[Literal["Switch", "Ring", "FullyConnected"]]
    npus_count: Items[Annotated[int, Field(ge=1)]]
    bandwidth: Items[Positive]
    latency: Items[NotNegative]

    @model_validator(mode="after")
    def _same_length(self) -> Network:
        if (
            not self.topology
            or len({len(self.topology), len(self.npus_count), len(self.bandwidth), len(self.latency)}) > 1
        ):
            raise ValueError("topology, npus_count, bandwidth and latency need one entry per dimension")
        if math.prod(self.npus_count) > MAX_GPUS:
            raise ValueError(f"{math.prod(self.npus_count)} NPUs, at most {MAX_GPUS}")
        return self


def recognise(text: str) -> bool:
    """It counts NPUs."""
    return "npus_count:" in text


def read(text: str, source: str, like: yamlfile.Document) -> Draft:
    """A node with rails where one or two dimensions allow it, else links between the NPUs' routers."""
    network = yamlfile.parse_yaml(text, source).validate(Network)
    if network.topology[0] != "Ring" and network.topology[1:] in {(), ("Switch",)}:
        return _as_node(network)
    return _as_links(network)


def _as_node(network: Network) -> Draft:
    gpus, rate, latency = network.npus_count[0], network.bandwidth[0] * 1e9, network.latency[0] * 1e-9
    mesh = network.topology[0] == "FullyConnected"
    inside: Plain = {"value": rate_text(rate * max(gpus - 1, 1) if mesh else rate), "source": SOURCE}
    inside |= {"latency": latency_text(latency if mesh else 2 * latency), "shape": "mesh" if mesh else "switch"}
    keys: Plain = {"node": {"gpus": gpus, "nvlink": inside}}
    if len(network.topology) == 1:
        return Draft(keys)
    outside = {"value": rate_text(network.bandwidth[1] * 1e9), "latency": latency_text(2e-9 * network.latency[1])}
    keys["node"]["nic"] = {**outside, "source": SOURCE}
    keys["fabric"] = {"kind": "rails", "nodes": network.npus_count[1]}
    return Draft(keys, ("between rails ASTRA-sim relays over a GPU; here a non-blocking spine joins the rails",))


def _as_links(network: Network) -> Draft:
    """Every NPU gets a router, over which others' traffic may pass; its own link is as wide as the router's links."""
    links, width = list(_dimension_links(network)), np.zeros(math.prod(network.npus_count))
    for link in links:
        for end in (link["from"], link["to"]):
            if end.startswith("router"):
                width[int(end.removeprefix("router"))] += float(link["bandwidth"].removesuffix(" GB/s"))
    own = [
        {"from": f"gpu{npu}", "to": f"router{npu}", "bandwidth": f"{rate!r} GB/s", "kind": "router", "source": SOURCE}
        for npu, rate in enumerate(width.tolist())
    ]
    names = dict.fromkeys(end for link in [*own, *links] for end in (link["from"], link["to"]))
    switches = [name for name in names if not name.startswith("gpu")]
    size = network.npus_count[0]
    nodes = [[f"gpu{gpu}" for gpu in range(first, first + size)] for first in range(0, len(width), size)]
    return Draft(
        {"switches": switches, "nodes": nodes, "links": [*own, *links]},
        ("paths have the fewest links; ASTRA-sim goes dimension by dimension",),
    )


def _dimension_links(network: Network) -> Iterator[Plain]:
    stride = 1
    for number, (shape, count) in enumerate(zip(network.topology, network.npus_count, strict=True)):
        figures = {
            "bandwidth": rate_text(network.bandwidth[number] * 1e9),
            "latency": latency_text(network.latency[number] * 1e-9),
            "kind": f"dim{number}",
            "source": SOURCE,
        }
        for first in range(math.prod(network.npus_count)):
            if first // stride % count == 0:
                members = [f"router{first + place * stride}" for place in range(count)]
                yield from (
                    {"from": a, "to": b, **figures} for a, b in _joined(shape, members, f"switch{number}.{first}")
                )
        stride *= count


def _joined(shape: str, members: list[str], switch: str) -> list[tuple[str, str]]:
    if len(members) == 1:
        return []
    if shape == "Switch":
        return [(member, switch) for member in members]
    if shape == "Ring" and len(members) > 2:
        return list(zip(members, [*members[1:], members[0]], strict=True))
    return list(itertools.combinations(members, 2))


def write(cluster: Cluster) -> Written:
    """Nodes and rails -> one or two dimensions. Raises BadInput for a cluster of explicit links or of uneven nodes."""
    kinds = np.array(cluster.link_kind)
    mesh = bool(np.any(np.char.endswith(kinds, "_pair")))
    inside = np.char.endswith(kinds, "_pair" if mesh else "_up") & ~np.char.startswith(kinds, "leaf")
    outside = np.char.endswith(kinds, "_out")
    even = len(set(np.bincount(cluster.node_of).tolist())) == 1
    if not (inside.any() and even and (outside.any() or cluster.num_nodes == 1)):
        raise BadInput("ASTRA-sim's dimensions cannot say it", where=f"topology {cluster.name}", way_out="graphml")
    if any(len(set(cluster.link_capacity[used].tolist())) > 1 for used in (inside, outside)):
        raise BadInput("its links of one tier differ in rate", where=f"topology {cluster.name}", way_out="graphml")
    dimensions = [("FullyConnected" if mesh else "Switch", cluster.gpus_per_node, inside, 1.0)]
    if cluster.num_nodes > 1:
        dimensions.append(("Switch", cluster.num_nodes, outside, min(1.0, outside.sum() / cluster.num_devices)))
    rows: Plain = {
        "topology": [shape for shape, *_ in dimensions],
        "npus_count": [count for _, count, *_ in dimensions],
        "bandwidth": [float(cluster.link_capacity[used][0] * share / 1e9) for *_, used, share in dimensions],
        "latency": [float(round(cluster.link_latency[used][0] * 1e9, 6)) for *_, used, _ in dimensions],
    }
    return Written(yaml_text(rows), tuple(_lost(cluster, rows)))


def _lost(cluster: Cluster, rows: Plain) -> Iterator[str]:
    if cluster.oversubscription > 1:
        yield f"oversubscription {cluster.oversubscription:g}:1 is lost: a Switch dimension does not block"
    if cluster.more_paths or any(name.endswith("/up1") for name in cluster.link_name):
        yield "ECMP is lost: a Switch dimension does not block"
    if any(name.startswith("nic") for name in cluster.link_name):
        yield "ports that GPUs share become an equal part for each GPU"
    if not any(rows["latency"]):
        yield "latency is 0 ns: the topology states none"


FORMAT = Format("astra-sim", "ASTRA-sim network YAML", recognise, read, write)
