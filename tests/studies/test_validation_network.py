"""`moesim validate network`: the errors that are promised, and tables that are not understood."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moesim import shipped
from moesim.errors import BadInput
from moesim.studies.validation import network, validate
from moesim.studies.validation.deepep import group_limited
from moesim.studies.validation.deepep_table import read_table

HEAD = "kernel,op,ep,value,unit,version,config,system"
SHAPE = "hidden=7168; tokens/GPU=64; topk=8; dispatch FP8; combine BF16"
GOOD = f"low_latency,dispatch,16,118,us,V1 LL 2025-06-05,{SHAPE},H800"


def table(folder: Path, *rows: str) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join([HEAD, *rows]) + "\n")
    return path


def test_the_published_tables_are_met() -> None:
    """Bars of the project: normal 3 % and 5 %, low latency 3 % and 8 %; 5 % and 6 % with each EP size left out."""
    document = validate("network").to_json()
    for kernel, points, worst, held_out in (("normal", 8, 0.05, 0.05), ("low_latency", 12, 0.08, 0.06)):
        found = document["breakdown"][kernel]
        assert found["points"] == points
        assert found["mean_abs_error"] <= 0.03 and found["max_abs_error"] <= worst
        assert found["leave_one_ep_out"]["mean_abs_error"] <= held_out
        assert set(found) >= {"8", "16", "32", "64"}
    assert document["metrics"]["points"]["value"] == 20


def test_version_2_was_never_fitted_and_is_predicted_all_the_same() -> None:
    found = network.validate(shipped.shipped("workloads", "validation", "deepep_v2.csv")).to_json()
    assert found["metrics"]["mean_abs_error"]["value"] < 0.06  # 5.4 %: with the start-up of the earlier kernels
    assert "leave_one_ep_out" not in found["breakdown"]["normal"]


def test_without_the_senders_own_node_a_published_bandwidth_is_what_the_nic_carries(tmp_path: Path) -> None:
    """4 nodes: a token of 8 random experts reaches 3.6 of them, 2.7 of them elsewhere: 58 GB/s is 43.6 over the NIC."""
    config = SHAPE.replace("64", "1024") + "; top-4 groups"
    path = table(tmp_path, f"normal,dispatch,32,58,GB/s bottleneck (RDMA),V1 2025-04-22,{config},H800")
    row = read_table(path).rows[0]
    copies = row.situation.copies
    home = copies.nodes[np.arange(32), copies.node_of_lane].sum()
    physical = (copies.nodes.sum() - home) / 32 * row.situation.case.row_bytes / row.seconds
    assert physical == pytest.approx(43.6e9, rel=0.01)


def test_low_latency_before_june_2025_pays_the_nic_for_its_own_node(tmp_path: Path) -> None:
    old = GOOD.replace("2025-06-05", "2025-02-25")
    new, rdma = (read_table(table(tmp_path, row)).rows[0].situation for row in (GOOD, old))
    assert (new.algorithm.same_node, rdma.algorithm.same_node) == ("nvlink", "rdma")
    kinds = np.array(rdma.group.cluster.link_kind)
    assert set(kinds[rdma.group.cluster.path[0, 1]]) == {"nic_out", "leaf_up", "leaf_down", "nic_in"}


def test_group_limited_routes_are_the_best_experts_of_the_best_nodes() -> None:
    scores = np.random.default_rng(0).random((200, 32), dtype=np.float32)
    found = group_limited(scores, 4, 8, 3)
    for token, row in enumerate(scores):
        nodes = np.argsort(-row.reshape(8, 4).max(axis=1))[:3]
        allowed = [expert for expert in range(32) if expert // 4 in nodes]
        best = sorted(allowed, key=lambda expert: -row[expert])[:4]
        assert sorted(found[token]) == sorted(best)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("low_latency", "medium", "none of normal, low_latency"),
        ("dispatch", "sideways", "neither dispatch nor combine"),
        (",16,", ",24,", "does not divide 256 experts"),
        ("118", "-1", "no positive number"),
        ("us", "parsec", "unit 'parsec'"),
        ("topk=8", "topk=8; chunks=4", "config 'chunks=4'"),
        ("hidden=7168; ", "", "nothing of 'hidden'"),
        ("H800", "TPU", "system 'TPU'"),
        ("H800", "H800; CX7 IB 200Gb/s", "is not that of hgx-h800"),
    ],
)
def test_a_row_that_is_not_understood_is_refused_with_its_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    found = read_table(table(tmp_path, GOOD.replace(old, new, 1), GOOD))
    assert len(found.rows) == 1
    assert "table.csv:2:" in found.refused[0] and told in found.refused[0]


EXPLICIT = "library,kernel,op,ep,hidden,tokens_per_rank,topk,experts,dtype,path,sms,system,value,unit"
COLUMNS = "deepep,low_latency,dispatch,16,7168,64,8,256,fp8,nvlink,20,hgx-h800,118,us"


def explicit(folder: Path, *rows: str) -> Path:
    path = folder / "columns.csv"
    path.write_text("\n".join([EXPLICIT, *rows]) + "\n")
    return path


def test_columns_say_what_a_sentence_does(tmp_path: Path) -> None:
    mine = read_table(explicit(tmp_path, COLUMNS)).rows[0]
    words = GOOD.replace("V1 LL 2025-06-05", "").replace("combine BF16", "combine BF16; NVLink used where possible")
    theirs = read_table(table(tmp_path, words)).rows[0]
    assert mine.situation.case == theirs.situation.case and (mine.sms, mine.seconds) == ("20", 118e-6)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("deepep", "pplx", "library 'pplx' is not deepep, whose kernels alone are modelled here"),
        ("hgx-h800", "H800", "unknown system 'H800'"),
        (",8,256", ",0,256", "topk '0' is no positive number"),
        (",8,256", ",8,8.5", "experts '8.5' is no whole number"),
        ("fp8", "int8", "dtype 'int8' is none of fp8, bf16"),
        ("nvlink", "tcp", "unknown path 'tcp'"),
        (",20,", ",many,", "sms 'many' is no positive number"),
    ],
)
def test_a_column_that_is_not_understood_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    found = read_table(explicit(tmp_path, COLUMNS.replace(old, new, 1), COLUMNS))
    assert len(found.rows) == 1 and "columns.csv:2:" in found.refused[0] and told in found.refused[0]


def test_a_sentence_of_another_library_is_not_judged_as_deepep(tmp_path: Path) -> None:
    found = read_table(table(tmp_path, GOOD.replace("V1 LL 2025-06-05", "pplx-kernels 0.0.1"), GOOD))
    assert len(found.rows) == 1 and "version 'pplx-kernels 0.0.1' is no release of DeepEP" in found.refused[0]


def test_a_point_in_seconds_and_in_bandwidth_counts_once(tmp_path: Path) -> None:
    found = read_table(table(tmp_path, GOOD, GOOD.replace("118,us", "31,GB/s (RDMA-equivalent)")))
    assert (len(found.rows), found.repeated, found.rows[0].unit) == (1, 1, "us")


def test_a_table_without_a_row_or_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no row is understood"):
        read_table(table(tmp_path, GOOD.replace("H800", "TPU")))
    path = table(tmp_path, GOOD)
    path.write_text(path.read_text().replace("config", "shape", 1))
    with pytest.raises(BadInput, match="no column 'library'.*kernel, op, ep, value, unit, version, config, system"):
        read_table(path)
