"""Chakra traces, read back by Google's protobuf and played by twenty lines that know nothing of moesim."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.chakra_schema import read

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

pytest.importorskip("google.protobuf", reason="protobuf is not installed")
COMP, SEND, RECV = 4, 5, 6
Traces = list[list[Any]]


def traces_of(moesim: Moesim, *settings: str) -> Traces:
    assert moesim("run", "demo-tiny", *(word for text in settings for word in ("--set", text)), "--out", "r").code == 0
    assert moesim("export", "r", "--as", "chakra", "-o", "t").code == 0
    found = []
    for rank in range(len(list(Path("t").iterdir()))):
        head, nodes = read(Path(f"t/chakra.{rank}.et").read_bytes())
        assert head.version == "0.0.4" and {one.name: one.string_val for one in head.attr}["scenario"] == "demo-tiny"
        found.append(nodes)
    return found


def said(node: Any) -> dict[str, int]:
    """Attributes of a node, whichever of its fields holds each."""
    return {one.name: next((value.real for kind, value in one.ListFields() if kind.name != "name"), 0)
            for one in node.attr}  # fmt: skip


def facts(node: Any) -> tuple[Any, ...]:
    """What a node says, whichever schema read it."""
    return node.id, node.name, int(node.type), list(node.data_deps), node.duration_micros, said(node)


def span(traces: Traces) -> int:
    """ps of a step whose messages arrive at once: nodes start when all that they name has ended."""
    sent: dict[tuple[int, int, int], int] = {}
    done: list[dict[int, int]] = [{} for _ in traces]
    left = [list(nodes) for nodes in traces]
    while any(left):
        for rank, nodes in enumerate(left):
            while nodes:
                node, values = nodes[0], said(nodes[0])
                came = (values.get("comm_src", -1), rank, values.get("comm_tag", 0))
                if node.type == RECV and came not in sent:
                    break
                end = max([done[rank][one] for one in node.data_deps] + [sent.get(came, 0)])
                done[rank][node.id] = end + values.get("duration_ps", 0)
                if node.type == SEND:
                    sent[rank, values["comm_dst"], values["comm_tag"]] = end
                nodes.pop(0)
    return max(max(ends.values()) for ends in done)


@pytest.mark.parametrize("dispatch", ["deepep_low_latency", "deepep_normal"])
def test_every_byte_that_is_sent_is_received_and_stands_in_the_list_of_flows(moesim: Moesim, dispatch: str) -> None:
    settings = [f"comm.dispatch={dispatch}", "cluster.nodes=2", "parallel.data_parallel_size=16",
                "parallel.expert_parallel_size=16"]  # fmt: skip
    traces = traces_of(moesim, *settings)
    sends, receives = Counter[Any](), Counter[Any]()
    for rank, nodes in enumerate(traces):
        for node in nodes:
            values = said(node)
            if node.type == SEND:
                sends[rank, values["comm_dst"], values["comm_tag"], values["comm_size"]] += 1
            elif node.type == RECV:
                receives[values["comm_src"], rank, values["comm_tag"], values["comm_size"]] += 1
    assert sends == receives and set(sends.values()) == {1}
    assert moesim("export", "r", "--as", "flows", "-o", "f.csv").code == 0
    rows = [row for row in csv.DictReader(Path("f.csv").read_text().splitlines()) if row["src"] != row["dst"]]
    assert Counter((int(row["src"]), int(row["dst"]), int(row["bytes"])) for row in rows) == Counter(
        (source, target, size) for source, target, _, size in sends
    )


def test_with_messages_at_once_the_trace_takes_at_least_its_kernels_and_no_more_than_the_step(moesim: Moesim) -> None:
    traces = traces_of(moesim)
    result = json.loads(Path("r/result.json").read_text())
    step = result["metrics"]["step_time_s"]["value"] * 1e12
    kernels = [[node for node in nodes if not node.name.endswith("start-up")] for nodes in traces]
    alone = max(sum(said(node).get("duration_ps", 0) for node in nodes) for nodes in kernels)
    assert 0 < alone <= span(traces) <= step
    for nodes in traces:  # two streams, each off by half a microsecond at most
        exact = sum(said(node).get("duration_ps", 0) for node in nodes)
        assert abs(sum(node.duration_micros for node in nodes) * 1_000_000 - exact) <= 1_000_000


def test_a_kernel_follows_the_rows_that_it_works_on(moesim: Moesim) -> None:
    for nodes in traces_of(moesim):
        by = {node.id: node for node in nodes}
        assert all(one < node.id for node in nodes for one in node.data_deps)
        experts = next(node for node in nodes if node.type == COMP and node.name.startswith("experts"))
        assert {by[one].type for one in experts.data_deps} >= {RECV}


def test_chakra_s_own_reader_finds_the_same_nodes(moesim: Moesim) -> None:
    """MLCommons' package, which no index has: pip install git+https://github.com/mlcommons/chakra."""
    schema = pytest.importorskip("chakra.schema.protobuf.et_def_pb2", reason="MLCommons' Chakra is not installed")
    reader = pytest.importorskip("chakra.src.third_party.utils.protolib", reason="MLCommons' Chakra is not installed")
    for rank, nodes in enumerate(traces_of(moesim)):
        with reader.openFileRd(f"t/chakra.{rank}.et") as file:
            head, node, found = schema.GlobalMetadata(), schema.Node(), []
            assert reader.decodeMessage(file, head) and head.version == "0.0.4"
            while reader.decodeMessage(file, node):
                found.append(facts(node))
        assert found == [facts(one) for one in nodes]


def test_a_folder_that_is_there_is_not_replaced(moesim: Moesim) -> None:
    traces_of(moesim)
    done = moesim("export", "r", "--as", "chakra", "-o", "t")
    assert done.code == 2 and "is no new folder. Try: another name" in done.err
