"""GraphML out: GPUs and switches as nodes, every directed link as an edge with its rate, latency, kind and source."""

from __future__ import annotations

from moesim.errors import BadInput
from moesim.hardware.cluster import Cluster
from moesim.hardware.formats.format import Format, Written


def write(cluster: Cluster) -> Written:
    """Cluster -> GraphML of a directed multigraph. Raises BadInput where the cluster does not know its links' ends."""
    import networkx as nx

    if not cluster.link_ends:
        raise BadInput("its links have no named ends", where=f"topology {cluster.name}")
    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph(name=cluster.name)
    for gpu, (node, rail) in enumerate(zip(cluster.node_of, cluster.rail_of, strict=True)):
        graph.add_node(f"gpu{gpu}", kind="gpu", device=_device(cluster, gpu), node=int(node), rail=int(rail))
    for name in sorted({end for ends in cluster.link_ends for end in ends} - set(graph)):
        graph.add_node(name, kind="switch")
    for index, (start, end) in enumerate(cluster.link_ends):
        graph.add_edge(
            start,
            end,
            key=index,
            name=cluster.link_name[index],
            kind=cluster.link_kind[index],
            bytes_per_second=float(cluster.link_capacity[index]),
            latency_seconds=float(cluster.link_latency[index]),
            source=cluster.link_source[index],
        )
    return Written("\n".join(nx.generate_graphml(graph)) + "\n")


def _device(cluster: Cluster, gpu: int) -> str:
    return cluster.devices[cluster.kind_of[gpu] if len(cluster.kind_of) else 0].name


FORMAT = Format("graphml", "GraphML (networkx, Gephi, yEd)", write=write)
