"""Slurm's topology.conf and topology.yaml, and its host lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from moesim.errors import BadInput
from moesim.hardware import Cluster
from moesim.hardware.formats import Imported, import_topology
from moesim.hardware.formats.hostlist import expand
from moesim.hardware.validate import check_integrity

TWO_TIERS = """\
# two leaves
SwitchName=leaf0 Nodes=tux[0-3] LinkSpeed=400
switchname=leaf1 nodes=tux[4-6]   # one fewer
SwitchName=spine Switches=leaf[0-1]
"""
THREE_TIERS = """\
SwitchName=core Switches=spine[0-1]
SwitchName=spine0 Switches=leaf[0-1]
SwitchName=spine1 Switches=leaf2
SwitchName=leaf0 Nodes=a[1-2]
SwitchName=leaf1 Nodes=b1
SwitchName=leaf2 Nodes=c[1-2]
"""


def imported(tmp_path: Path, text: str, name: str = "topology.conf", like: str = "dgx-h100") -> Imported:
    path = tmp_path / name
    path.write_text(text)
    return import_topology(path, like=like)


def kinds(cluster: Cluster, a: int, b: int) -> list[str]:
    return [cluster.link_kind[link] for link in cluster.path[a, b] if link >= 0]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("tux", ["tux"]),
        ("tux[0-2,07,12]", ["tux0", "tux1", "tux2", "tux07", "tux12"]),
        ("n[08-10]", ["n08", "n09", "n10"]),
        ("r[1-2]n[1-2],login", ["r1n1", "r1n2", "r2n1", "r2n2", "login"]),
        ("a,b[1]x", ["a", "b1x"]),
        ("", []),
    ],
)
def test_host_lists(text: str, names: list[str]) -> None:
    assert expand(text, "here") == names


@pytest.mark.parametrize(
    "text", ["n[1-2", "n1]", "n[2-1]", "n[a]", "n[]", "n[0-99999999]", "n[0-999]x[0-999]", "n[[1]]"]
)
def test_host_lists_that_are_none(text: str) -> None:
    with pytest.raises(BadInput, match="here: host list"):
        expand(text, "here")


def test_two_tiers_become_leaves(tmp_path: Path) -> None:
    made = imported(tmp_path, TWO_TIERS)
    cluster = made.cluster
    check_integrity(cluster)
    assert (cluster.num_nodes, cluster.num_devices) == (7, 56)
    assert kinds(cluster, 0, 8 * 3) == ["nic_out", "nic_in"]
    assert kinds(cluster, 0, 8 * 4) == ["nic_out", "leaf_up", "leaf_down", "nic_in"]
    assert made.notes[1] == "nodes are numbered leaf by leaf: node 0 is tux0, node 6 is tux6"
    assert made.notes[2].startswith("LinkSpeed was not used")


def test_the_order_of_lines_does_not_matter_for_the_shape(tmp_path: Path) -> None:
    lines = TWO_TIERS.splitlines()
    turned = imported(tmp_path, "\n".join([lines[3], lines[1], lines[2]]))
    assert turned.cluster.table.tolist() == imported(tmp_path, TWO_TIERS).cluster.table.tolist()


def test_an_uneven_tree_becomes_links(tmp_path: Path) -> None:
    cluster = imported(tmp_path, THREE_TIERS).cluster
    check_integrity(cluster)
    assert (cluster.num_nodes, cluster.gpus_per_node) == (5, 8)
    assert kinds(cluster, 0, 1) == ["nvlink", "nvlink"]
    assert kinds(cluster, 0, 8) == ["nic", "nic"]
    assert kinds(cluster, 0, 8 * 2) == ["nic", "leaf", "leaf", "nic"]
    assert kinds(cluster, 0, 8 * 3) == ["nic", *["leaf"] * 4, "nic"]
    up = dict(zip(cluster.link_name, cluster.link_capacity, strict=True))
    assert up["slurm/leaf0->slurm/spine0"] == 16 * 50e9 and up["slurm/spine0->slurm/core"] == 24 * 50e9


YAML = """\
- topology: old
  flat: true
- topology: fabric
  cluster_default: true
  tree:
    switches:
      - switch: top
        children: leaf[0-1]
      - switch: leaf0
        nodes: tux[0-3]
      - {switch: leaf1, nodes: "tux[4-6]"}
"""


def test_the_yaml_form_says_the_same(tmp_path: Path) -> None:
    made = imported(tmp_path, YAML, "topology.yaml")
    assert made.cluster.table.tolist() == imported(tmp_path, TWO_TIERS).cluster.table.tolist()
    assert made.notes[-1] == "topology fabric was read, not old"


def test_blocks_become_leaves_in_both_forms(tmp_path: Path) -> None:
    conf = imported(tmp_path, "BlockName=b1 Nodes=n[1-2]\nBlockName=b2 Nodes=n[3-4]\nBlockSizes=2\n")
    form = "- topology: x\n  block:\n    block_sizes: [2]\n    blocks:\n"
    rows = '      - {block: b1, nodes: "n[1-2]"}\n      - {block: b2, nodes: "n[3-4]"}\n'
    yaml = imported(tmp_path, form + rows, "topology.yaml")
    assert conf.cluster.num_nodes == yaml.cluster.num_nodes == 4
    assert conf.cluster.table.tolist() == yaml.cluster.table.tolist()
    assert conf.notes[-1] == "a block is taken as one leaf: a host of dgx-h100 is an NVLink domain of its own"


BLOCKS = "BlockName=b1 Nodes=n[1-{n}]\nBlockName=b2 Nodes=m[1-3]\n# a rack in repair\nBlockSizes=2\n"


def test_a_block_of_trays_is_one_nvlink_domain(tmp_path: Path) -> None:
    even = imported(tmp_path, BLOCKS.format(n=3), like="gb200-nvl72")
    assert (even.cluster.num_nodes, even.cluster.num_devices) == (2, 24)  # 3 hosts of 4 GPUs each
    uneven = imported(tmp_path, BLOCKS.format(n=4), like="gb200-nvl72").cluster
    check_integrity(uneven)
    assert (uneven.num_nodes, uneven.num_devices, uneven.gpus_per_node) == (2, 28, 16)
    assert kinds(uneven, 0, 15) == ["nvlink", "nvlink"] and kinds(uneven, 0, 16) == ["nic", "leaf", "leaf", "nic"]
    with pytest.raises(BadInput, match=r":1: block b1 has 19 hosts, an NVLink domain of gb200-nvl72 18"):
        imported(tmp_path, BLOCKS.format(n=19), like="gb200-nvl72")
    with pytest.raises(BadInput, match=r"which hosts share NVLinks\. Try: BlockName"):
        imported(tmp_path, TWO_TIERS, like="gb200-nvl72")


def test_of_a_forest_the_largest_tree_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    made = imported(tmp_path, TWO_TIERS + "SwitchName=lonely Nodes=login1\n")
    assert made.cluster.table.tolist() == imported(tmp_path, TWO_TIERS).cluster.table.tolist()
    assert made.notes[0] == "no switch joins lonely (1 hosts) to spine (7 hosts), which alone was read"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SwitchName=a Nodes=n1\nSwitchName=a Nodes=n2\n", r"topology\.conf:2: switch a stands twice"),
        ("SwitchName=a Nodes=n1\nSwitchName=b Nodes=n1\n", r":2: n1 hangs below a and b"),
        ("SwitchName=a Nodes=n1\nBlockName=b Nodes=n2\n", "switches and blocks in one file"),
        ("SwitchName=a Switches=b\n", r":1: switch b is not described"),
        ("SwitchName=a Switches=b\nSwitchName=b Switches=a\n", ":1: switch a hangs in a loop"),
        ("SwitchName=t Nodes=n1\nSwitchName=a Switches=b\nSwitchName=b Switches=a\n", ":2: switch a hangs in a loop"),
        ("SwitchName=a Switches=a\nSwitchName=b Nodes=n1\n", ":1: switch a hangs in a loop"),
        ("SwitchName=a\n", ":1: switch a needs either"),
        ("SwitchName=a Nodes=n1 Speed=5\n", ":1: 'speed' is not understood"),
        ("SwitchName=a Nodes=n1 oops\n", ":1: 'oops' is not understood"),
        ("SwitchName=a Nodes=n[1-600]\n", "600 hosts of 8 GPUs: 4800 GPUs, at most 4096"),
    ],
)
def test_bad_trees_name_the_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        imported(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- topology: x\n  flat: true\n", r"topology\.yaml:2 .*names no hosts"),
        ("- topology: x\n  tree: {switches: [{switch: a, nodes: n1, children: b}]}\n", "switch a needs either"),
        ("- topology: x\n", "exactly one of tree"),
        ("- topology: x\n  tree: {switches: [{switch: a, nods: n1}]}\n", "did you mean 'nodes'"),
    ],
)
def test_bad_yaml_names_the_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        imported(tmp_path, text, "topology.yaml")


def test_an_unknown_lender(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean 'dgx-h100'"):
        imported(tmp_path, TWO_TIERS, like="dgx-h10")
    with pytest.raises(BadInput, match="a switch inside"):
        imported(tmp_path, THREE_TIERS, like="atlas-800t-a2")
