"""NVLink counts between the GPUs of one machine -> a node with a switch or a mesh, or explicit links."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.errors import BadInput
from moesim.hardware.formats.format import Plain, rate_text
from moesim.hardware.formats.gpu_links import Generation

Ints = npt.NDArray[np.int64]


def switched(gpus: int, links: int, generation: Generation, source: str) -> Plain:
    """Every GPU has `links` NVLinks into a switch."""
    rate = {"value": rate_text(links * generation.nvlink), "source": f"{source}: {links} NVLinks a GPU, nominal"}
    return {"node": {"gpus": gpus, "nvlink": rate}}


def host_only(gpus: int, generation: Generation, source: str) -> Plain:
    """No NVLink: PCIe."""
    rate = {"value": rate_text(generation.pcie), "source": f"{source}: no NVLink; PCIe x16 of the device, nominal"}
    return {"node": {"gpus": gpus, "pcie": rate}}


def direct(count: Ints, generation: Generation, source: str) -> Plain:
    """int[G, G] NVLinks between pairs -> a mesh where all are equal, else links, with PCIe for pairs without any."""
    gpus = len(count)
    pairs = count[~np.eye(gpus, dtype=bool)]
    if np.all(pairs == pairs[0]):
        made = switched(gpus, int(pairs[0]) * (gpus - 1), generation, source)
        made["node"]["nvlink"]["shape"] = "mesh"
        return made
    links = [
        {"from": f"gpu{a}", "to": f"gpu{b}", "bandwidth": rate_text(n * generation.nvlink), "kind": "nvlink"}
        for a in range(gpus)
        for b in range(a + 1, gpus)
        if (n := int(count[a, b]))
    ]
    rate = {"bandwidth": rate_text(generation.pcie), "kind": "pcie"}
    links += [{"from": f"gpu{gpu}", "to": "pcie", **rate} for gpu in range(gpus)]
    return {"switches": ["pcie"], "links": [{**link, "source": source} for link in links]}


def fit_ports(gpus: int, ports: int) -> tuple[int, int, tuple[str, ...]]:
    """Ports near `gpus` GPUs -> ports of the node, how many act as one, and a note where some are left out."""
    if ports <= gpus:
        return ports, 1, ()
    pooled, rest = divmod(ports, gpus)
    if rest:
        return gpus, 1, (f"{ports} ports lie near {gpus} GPUs; one for each GPU is taken",)
    return gpus, pooled, (f"{pooled} ports of each GPU act as one",)


def with_ports(keys: Plain, ports: int, rate: str, source: str, where: str) -> Plain:
    """Adds the ports that leave the node. Raises BadInput where GPUs cannot share them evenly."""
    if not ports or "node" not in keys:
        return keys
    node = keys["node"]
    if node["gpus"] % ports:
        raise BadInput(f"{node['gpus']} GPUs cannot share {ports} ports evenly", where=where)
    node["nic"] = {"value": rate, "source": source}
    if ports != node["gpus"]:
        node["nics"] = ports
    keys["fabric"] = {"kind": "rails", "nodes": 1}
    return keys
