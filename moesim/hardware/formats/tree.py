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
Below = dict[str, list[int]]  # leaf -> GPUs of each of its nodes


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
    """Switches over hosts -> Draft, a host as one node of `like`. Raises BadInput for what is no tree."""
    node = NodeSection.model_validate(node_of_like(like, "hosts"))
    if node.hosts > 1:
        raise BadInput(
            f"a node of {like.data['name']} is {node.hosts} hosts, and a tree does not say which hosts share NVLinks",
            where=source,
            way_out="BlockName lines, or 'like' with a node of one host",
        )
    tree, root, notes = _largest(_checked(switches), source)
    leaves = [name for name in _below(root, tree, ()) if tree[name].hosts]
    hosts = [host for name in leaves for host in tree[name].hosts]
    _check_size(len(hosts) * node.gpus, f"{len(hosts)} hosts of {node.gpus} GPUs", source)
    notes += [
        f"hosts and rates are those of {like.data['name']}; every uplink is as wide as what hangs below it",
        f"nodes are numbered leaf by leaf: node 0 is {hosts[0]}, node {len(hosts) - 1} is {hosts[-1]}",
    ]
    sizes = [len(tree[name].hosts) for name in leaves]
    if len(tree) == len(leaves) + (len(leaves) > 1) and set(sizes[:-1]) <= {sizes[0]} and sizes[-1] <= sizes[0]:
        fabric = {"kind": "leaves", "nodes": len(hosts), "nodes_per_leaf": sizes[0], "source": SOURCE}
        return Draft({"node": like.data["node"], "fabric": fabric}, tuple(notes))
    below = {name: [node.gpus] * len(tree[name].hosts) for name in leaves}
    return Draft(_links(tree, root, below, node, like.source), tuple(notes))


def blocks_draft(blocks: Sequence[Switch], like: yamlfile.Document, source: str) -> Draft:
    """Slurm's blocks -> Draft. Where a node of `like` is several hosts, a block is one such node (an NVLink domain) of
    as many hosts as it names; elsewhere it is a leaf. Raises BadInput.
    """
    node = NodeSection.model_validate(node_of_like(like, "hosts"))
    if node.hosts == 1:
        made = draft(block_tree(blocks, source), like, source)
        said = f"a block is taken as one leaf: a host of {like.data['name']} is an NVLink domain of its own"
        return Draft(made.keys, (*made.notes, said))
    tree = _checked(blocks)
    large = next((block for block in blocks if len(block.hosts) > node.hosts), None)
    if large is not None:
        raise BadInput(
            f"block {large.name} has {len(large.hosts)} hosts, an NVLink domain of {like.data['name']} {node.hosts}",
            where=large.place,
            way_out="'like' with a larger domain",
        )
    each = node.gpus // node.hosts
    below = {block.name: [each * len(block.hosts)] for block in blocks}
    sizes = [gpus for (gpus,) in below.values()]
    _check_size(sum(sizes), f"{len(blocks)} blocks", source)
    notes = (
        f"a block is one NVLink domain: {len(blocks)} of {_counts(sizes)} GPUs, {each} a host, as {like.data['name']}",
    )
    if len(set(sizes)) == 1:
        keys = {"node": {**like.data["node"], "gpus": sizes[0], "hosts": len(blocks[0].hosts)}}
        fabric = {**like.data.get("fabric", {"kind": "rails"}), "nodes": len(blocks)}
        return Draft({**keys, "fabric": fabric}, notes)
    top = block_tree(blocks, source)[-1].name
    tree = {block.name: block for block in block_tree(blocks, source)}
    return Draft(_links(tree, top, below, node, like.source), notes)


def block_tree(blocks: Sequence[Switch], source: str) -> list[Switch]:
    """Blocks, and one switch above them where there are several."""
    if len(blocks) < 2:
        return list(blocks)
    return [*blocks, Switch("all_blocks", source, children=[block.name for block in blocks])]


def _counts(sizes: Sequence[int]) -> str:
    return " or ".join(map(str, sorted(set(sizes))))


def _check_size(gpus: int, what: str, source: str) -> None:
    if gpus > MAX_GPUS:
        raise BadInput(f"{what}: {gpus} GPUs, at most {MAX_GPUS}", where=source)


def _checked(switches: Sequence[Switch]) -> dict[str, Switch]:
    """By name. Raises BadInput where a name stands twice, hangs twice, or is not described."""
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
    return tree


def _largest(tree: dict[str, Switch], source: str) -> tuple[dict[str, Switch], str, list[str]]:
    """The tree with the most hosts, of a forest; its root; a note on the others, which no switch joins to it.

    Raises BadInput on loops and where there are no hosts.
    """
    child = frozenset(name for switch in tree.values() for name in switch.children)
    roots = {name: _below(name, tree, ()) for name in tree if name not in child}
    reached = frozenset(name for names in roots.values() for name in names)
    lost = next((switch for switch in tree.values() if switch.name not in reached), None)
    if lost is not None:
        raise BadInput(f"switch {lost.name} hangs in a loop", where=lost.place)
    hosts = {root: sum(len(tree[name].hosts) for name in names) for root, names in roots.items()}
    root = max(roots, key=lambda name: hosts[name], default="")
    if not hosts.get(root):
        raise BadInput("no switch has hosts below it", where=source, way_out="SwitchName= with Nodes=")
    others = ", ".join(f"{name} ({count} hosts)" for name, count in hosts.items() if name != root)
    notes = [f"no switch joins {others} to {root} ({hosts[root]} hosts), which alone was read"] if others else []
    return {name: tree[name] for name in roots[root]}, root, notes


def _below(name: str, tree: dict[str, Switch], above: tuple[str, ...]) -> list[str]:
    """The switch and all below it, depth first. Raises BadInput below 16 levels."""
    if len(above) > 16:
        raise BadInput("more than 16 levels of switches", where=tree[name].place)
    return [name, *(found for child in tree[name].children for found in _below(child, tree, (*above, name)))]


def _links(tree: dict[str, Switch], root: str, below: Below, node: NodeSection, like: str) -> Plain:
    """Explicit links: GPU to its node's switch, GPU to its leaf, switch to the switch above. `below`: GPUs of the nodes
    of each leaf.
    """
    if node.between is None or node.inside[1].shape == "mesh" or node.inside[0] == "pcie" or node.nics or node.port_of:
        raise BadInput("an uneven tree needs nodes with a switch inside and a port per GPU", where=like)
    (kind, tier), (outer, port) = node.inside, node.between
    links, nodes, first = list[Plain](), list[list[str]](), 0
    for leaf, sizes in below.items():
        far = {"to": _named(leaf), "bandwidth": rate_text(port.value), "kind": outer, "source": port.source}
        for gpus in sizes:
            members = [f"gpu{first + gpu}" for gpu in range(gpus)]
            inside = f"inside{len(nodes)}"
            near = {"to": inside, "bandwidth": rate_text(tier.value), "kind": kind, "source": tier.source}
            links += [{"from": gpu, **link} for gpu in members for link in (near, far)]
            nodes.append(members)
            first += gpus
    links += _uplinks(tree, root, below, port.value)
    switches = [f"inside{number}" for number in range(len(nodes))] + [_named(name) for name in tree]
    return {"switches": switches, "nodes": nodes, "links": links}


def _named(switch: str) -> str:
    """Apart from gpu0, inside0 and so on, whatever Slurm calls it."""
    return f"slurm/{switch}"


def _uplinks(tree: dict[str, Switch], name: str, below: Below, port_rate: float) -> list[Plain]:
    found: list[Plain] = []
    for child in tree[name].children:
        gpus = sum(sum(below.get(leaf, ())) for leaf in _below(child, tree, ()))
        rate = {"bandwidth": rate_text(gpus * port_rate), "kind": "leaf", "source": SOURCE}
        found += [{"from": _named(child), "to": _named(name), **rate}, *_uplinks(tree, child, below, port_rate)]
    return found
