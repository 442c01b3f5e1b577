"""Explicit lists of links: paths, ties, and everything that must be refused."""

from __future__ import annotations

import itertools
import math
import random

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import BadInput
from moesim.hardware.validate import check_integrity
from tests.hardware.topologies import graph, sealed

PAIR = ["from: gpu0, to: sw, bandwidth: 10 GB/s", "from: gpu1, to: sw, bandwidth: 20 GB/s"]


def test_two_gpus_on_a_switch() -> None:
    cluster = sealed(graph(PAIR, "sw"))
    assert cluster.link_name == ("gpu0->sw", "gpu1->sw", "sw->gpu0", "sw->gpu1")
    assert cluster.path[0, 1].tolist() == [0, 3]
    assert cluster.link_source == ("stated in this file",) * 4


def test_of_two_equally_short_ways_the_wider_one_is_taken() -> None:
    links = [f"from: gpu{g}, to: {sw}, bandwidth: {rate} GB/s" for sw, rate in (("a", 1), ("b", 9)) for g in (0, 1)]
    cluster = sealed(graph(links, "a, b"))
    assert [cluster.link_name[link] for link in cluster.path[0, 1]] == ["gpu0->b", "b->gpu1"]


def test_a_gpu_relays_only_where_there_is_no_other_way() -> None:
    line = ["from: gpu0, to: gpu1, bandwidth: 1 GB/s", "from: gpu1, to: gpu2, bandwidth: 1 GB/s"]
    cluster = sealed(graph(line))
    assert [cluster.link_name[link] for link in cluster.path[0, 2]] == ["gpu0->gpu1", "gpu1->gpu2"]
    longer = sealed(graph([*line, "from: gpu0, to: a, bandwidth: 1 GB/s", "from: a, to: b, bandwidth: 1 GB/s",
                           "from: b, to: gpu2, bandwidth: 1 GB/s"], "a, b"))  # fmt: skip
    assert [longer.link_name[link] for link in longer.path[0, 2]] == ["gpu0->a", "a->b", "b->gpu2"]


def test_rails_without_a_spine_meet_inside_nodes() -> None:
    """Two nodes of two GPUs: gpu0 reaches gpu3 over its own rail to gpu2 and the switch there, or over gpu1's rail."""
    inside = [f"from: gpu{g}, to: in{g // 2}, bandwidth: 450 GB/s, kind: nvlink" for g in range(4)]
    rails = [f"from: gpu{g}, to: rail{g % 2}, bandwidth: 50 GB/s, kind: nic" for g in range(4)]
    cluster = sealed(graph([*inside, *rails], "in0, in1, rail0, rail1"))
    check_integrity(cluster)
    kinds = [cluster.link_kind[link] for link in cluster.path[0, 3] if link >= 0]
    assert sorted(kinds) == ["nic", "nic", "nvlink", "nvlink"] and len(kinds) == 4


def clos(gpus: int = 12, spines: int = 3) -> tuple[list[str], str]:
    leaves = range(gpus // 4)
    links = [f"from: gpu{g}, to: leaf{g // 4}, bandwidth: 50 GB/s, kind: nic" for g in range(gpus)]
    links += [f"from: leaf{a}, to: spine{s}, bandwidth: 40 GB/s" for a in leaves for s in range(spines)]
    return links, ", ".join([*(f"leaf{a}" for a in leaves), *(f"spine{s}" for s in range(spines))])


def test_parallel_spines_share_the_pairs() -> None:
    cluster = sealed(graph(*clos()))
    spines = {cluster.link_name[cluster.table[a, b, 1]] for a in range(4) for b in range(4, 12)}
    assert spines == {"leaf0->spine0", "leaf0->spine1", "leaf0->spine2"}


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_file_has_no_effect(shuffler: random.Random) -> None:
    links, switches = clos()
    names = switches.split(", ")
    first = sealed(
        graph(links, switches, "[[gpu0, gpu1, gpu2, gpu3], [gpu4, gpu5, gpu6, gpu7, gpu8, gpu9, gpu10, gpu11]]")
    )
    shuffler.shuffle(links)
    shuffler.shuffle(names)
    again = sealed(
        graph(links, ", ".join(names), "[[gpu11, gpu10, gpu9, gpu8, gpu7, gpu6, gpu5, gpu4], [gpu3, gpu1, gpu0, gpu2]]")
    )
    assert again.link_name == first.link_name
    assert again.table.tolist() == first.table.tolist()
    assert again.node_of.tolist() == first.node_of.tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(1, 4), st.randoms(use_true_random=False))
def test_paths_are_the_shortest_and_widest_that_networkx_finds(
    gpus: int, switches: int, shuffler: random.Random
) -> None:
    names = [f"s{i}" for i in range(switches)]
    pairs = [(f"gpu{g}", "s0") for g in range(gpus)]
    pairs += [
        pair
        for pair in itertools.combinations([*(f"gpu{g}" for g in range(gpus)), *names], 2)
        if pair not in pairs and shuffler.random() < 0.4
    ]
    rate = {pair: shuffler.randint(1, 4) for pair in pairs}
    rows = [f"from: {a}, to: {b}, bandwidth: {rate[a, b]} GB/s" for a, b in pairs]
    reached = {end for pair in pairs for end in pair}
    cluster = sealed(graph(rows, ", ".join(names)))
    check_integrity(cluster)
    full: nx.Graph[str] = nx.Graph(pairs)
    for a, b in itertools.permutations(range(gpus), 2):
        inner = full.subgraph([n for n in reached if not n.startswith("gpu") or n in (f"gpu{a}", f"gpu{b}")])
        ways = list(nx.all_shortest_paths(inner, f"gpu{a}", f"gpu{b}"))
        widest = max(min(_rate(rate, *hop) for hop in itertools.pairwise(way)) for way in ways)
        mine = [link for link in cluster.path[a, b] if link >= 0]
        assert len(mine) == len(ways[0]) - 1
        assert math.isclose(min(cluster.link_capacity[mine]), widest * 1e9)


def _rate(rate: dict[tuple[str, str], int], a: str, b: str) -> int:
    return rate.get((a, b)) or rate[b, a]


@pytest.mark.parametrize(
    ("links", "switches", "said"),
    [
        ([*PAIR, "from: sw, to: sw, bandwidth: 1 GB/s"], "sw", r"small\.yaml:14 links\[2\]: a link from sw to itself"),
        ([*PAIR, "from: sw, to: gpu1, bandwidth: 1 GB/s"], "sw", r"small\.yaml:14 .*second link from sw to gpu1"),
        ([*PAIR, "from: gpu1, to: sv, bandwidth: 1 GB/s"], "sw", r"small\.yaml:14 .*unknown node 'sv'.*known: .*sw"),
        (["from: gpu0, to: sw, bandwidth: 0 GB/s"], "sw", r"small\.yaml:12 links\[0\]\.bandwidth: .*greater than 0"),
        (["from: gpu0, to: sw, bandwidth: -5 GB/s"], "sw", r"small\.yaml:12 .*not negative"),
        (["from: gpu0, to: sw, bandwidth: 5"], "sw", r"small\.yaml:12 links\[0\]\.bandwidth: .*no unit"),
        (["from: gpu0, to: sw, bandwidth: 5 GB"], "sw", r"small\.yaml:12 .*'GB' is not a unit of bandwidth"),
        (["from: gpu0, to: sw, bandwidth: 1e400 GB/s"], "sw", "finite"),
        (["from: gpu0, to: sw, bandwith: 5 GB/s"], "sw", "did you mean 'bandwidth'"),
        (
            ["from: gpu0, to: sw, bandwidth: 5 GB/s", "from: gpu2, to: sw, bandwidth: 5 GB/s"],
            "sw",
            "no link reaches gpu1",
        ),
        (["from: gpu0, to: sw, bandwidth: 5 GB/s", "from: gpu1, to: sx, bandwidth: 5 GB/s"], "sw, sx", "no route from"),
        (
            ["from: gpu0, to: sw, bandwidth: 5 GB/s", "from: gpu1, to: sw, bandwidth: 5 GB/s, both_ways: false"],
            "sw",
            r"small\.yaml:11 links: no route from gpu0 to gpu1",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(links: list[str], switches: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        sealed(graph(links, switches))


@pytest.mark.parametrize("nodes", ["[[gpu0]]", "[[gpu0, gpu1], [gpu1]]", "[[gpu0, gpu1, gpu2]]", "[[sw, gpu1]]"])
def test_nodes_name_each_gpu_once(nodes: str) -> None:
    with pytest.raises(BadInput, match=r"each of 2 GPUs once|none of gpu0\.\.gpu1"):
        sealed(graph(PAIR, "sw", nodes))


def test_sprayed_messages_take_all_equal_ways_once() -> None:
    """Two leaves of two GPUs, three spines: three tables, which use each uplink equally often."""
    links = [f"from: gpu{gpu}, to: leaf{gpu // 2}, bandwidth: 300 GB/s" for gpu in range(4)]
    links += [f"from: leaf{leaf}, to: spine{top}, bandwidth: 100 GB/s" for leaf in range(2) for top in range(3)]
    switches = "leaf0, leaf1, spine0, spine1, spine2"
    cluster = sealed(graph(links, switches).replace("links:", "spray: 3\nlinks:"))
    ways = {cluster.link_name[paths[0, 2][1]] for paths in (cluster.path, *cluster.more_paths)}
    assert ways == {"leaf0->spine0", "leaf0->spine1", "leaf0->spine2"}
    assert {cluster.link_name[paths[0, 1][1]] for paths in (cluster.path, *cluster.more_paths)} == {"leaf0->gpu1"}
