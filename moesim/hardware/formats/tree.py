"""A tree of switches over hosts, as Slurm describes it -> nodes under leaves, or links where the tree is uneven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from moesim import yamlfile
from moesim.errors import BadInput
from moesim.hardware.blueprint import MAX_GPUS
from moesim.hardware.formats.format import Draft, Plain, node_of_like, rate_text
from moesim.hardware.schema import NodeSection

SOURCE = "Slurm topology; uplinks as wide as what hangs below"


@dataclass
class Switch:
    """One switch while a file is read: its child switches and hosts, and the place in the file for errors."""

    name: str
    place: str
    children: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)


def switch_of(name: str, place: str, children: list[str], hosts: list[str]) -> Switch:
    """A switch with one of the two. Raises BadInput."""
    if bool(children) == bool(hosts):
        raise BadInput(f"switch {name} needs either switches or nodes below it", where=place)
    return Switch(name, place, children, hosts)


def draft(switches: Sequence[Switch], like: yamlfile.Document, source: str) -> Draft:
    """Switches of one tree -> Draft with the nodes of `like`. Raises BadInput for what is no tree."""
    tree = _checked(switches, source)
    below = frozenset(child for switch in switches for child in switch.children)
    root = next(name for name in tree if name not in below)
    leaves = [name for name in _below(root, tree, ()) if tree[name].hosts]
    hosts = [host for name in leaves for host in tree[name].hosts]
    node = NodeSection.model_validate(node_of_like(like, "hosts"))
    if len(hosts) * node.gpus > MAX_GPUS:
        raise BadInput(f"{len(hosts)} hosts of {node.gpus} GPUs, at most {MAX_GPUS} GPUs", where=source)
    notes = (
        f"hosts and rates are those of {like.data['name']}; every uplink is as wide as what hangs below it",
        f"nodes are numbered leaf by leaf: node 0 is {hosts[0]}, node {len(hosts) - 1} is {hosts[-1]}",
    )
    sizes = [len(tree[name].hosts) for name in leaves]
    if len(tree) == len(leaves) + (len(leaves) > 1) and set(sizes[:-1]) <= {sizes[0]} and sizes[-1] <= sizes[0]:
        fabric = {"kind": "leaves", "nodes": len(hosts), "nodes_per_leaf": sizes[0], "source": SOURCE}
        return Draft({"node": like.data["node"], "fabric": fabric}, notes)
    return Draft(_links(tree, root, leaves, node, like.source), notes)


def _checked(switches: Sequence[Switch], source: str) -> dict[str, Switch]:
    tree: dict[str, Switch] = {}
    for switch in switches:
        if switch.name in tree:
            raise BadInput(f"switch {switch.name} stands twice", where=switch.place)
        tree[switch.name] = switch
    owner: dict[str, str] = {}
    for switch in switches:
        for child in [*switch.children, *switch.hosts]:
            if child in owner:
                raise BadInput(f"{child} hangs below {owner[child]} and {switch.name}", where=switch.place)
            owner[child] = switch.name
        stranger = next((child for child in switch.children if child not in tree), None)
        if stranger is not None:
            raise BadInput(f"switch {stranger} is not described", where=switch.place)
    _check_roots(tree, [name for name in tree if name not in owner], source)
    return tree


def _check_roots(tree: dict[str, Switch], roots: list[str], source: str) -> None:
    if len(roots) != 1 or not any(switch.hosts for switch in tree.values()):
        names = ", ".join(roots[:4]) or "none"
        raise BadInput(f"one tree with hosts is needed; its roots are {names}", where=source)
    reached = frozenset(_below(roots[0], tree, ()))
    lost = next((switch for switch in tree.values() if switch.name not in reached), None)
    if lost is not None:
        raise BadInput(f"switch {lost.name} hangs in a loop", where=lost.place)


def _below(name: str, tree: dict[str, Switch], above: tuple[str, ...]) -> list[str]:
    """The switch and all below it, depth first. Raises BadInput below 16 levels."""
    if len(above) > 16:
        raise BadInput("more than 16 levels of switches", where=tree[name].place)
    return [name, *(found for child in tree[name].children for found in _below(child, tree, (*above, name)))]


def _links(tree: dict[str, Switch], root: str, leaves: list[str], node: NodeSection, like: str) -> Plain:
    """Explicit links: GPU to its node's switch, GPU to its leaf, switch to the switch above."""
    if node.between is None or node.inside[1].shape == "mesh" or node.inside[0] == "pcie" or node.nics:
        raise BadInput("an uneven tree needs nodes with a switch inside and a port per GPU", where=like)
    (kind, tier), (outer, port) = node.inside, node.between
    links, nodes, first = list[Plain](), list[list[str]](), 0
    for leaf in leaves:
        for _ in tree[leaf].hosts:
            members = [f"gpu{first + gpu}" for gpu in range(node.gpus)]
            near = {
                "to": f"inside{len(nodes)}",
                "bandwidth": rate_text(tier.value),
                "kind": kind,
                "source": tier.source,
            }
            far = {"to": _named(leaf), "bandwidth": rate_text(port.value), "kind": outer, "source": port.source}
            links += [{"from": gpu, **link} for gpu in members for link in (near, far)]
            nodes.append(members)
            first += node.gpus
    links += _uplinks(tree, root, node.gpus * port.value)
    switches = [f"inside{number}" for number in range(len(nodes))] + [_named(name) for name in tree]
    return {"switches": switches, "nodes": nodes, "links": links}


def _named(switch: str) -> str:
    """Apart from gpu0, inside0 and so on, whatever Slurm calls it."""
    return f"slurm/{switch}"


def _uplinks(tree: dict[str, Switch], name: str, host_rate: float) -> list[Plain]:
    found: list[Plain] = []
    for child in tree[name].children:
        hosts = sum(len(tree[below].hosts) for below in _below(child, tree, ()))
        rate = {"bandwidth": rate_text(hosts * host_rate), "kind": "leaf", "source": SOURCE}
        found += [{"from": _named(child), "to": _named(name), **rate}, *_uplinks(tree, child, host_rate)]
    return found
