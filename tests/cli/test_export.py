"""Runs as other tools write theirs: numbers worked out again from the rows, as those tools do."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

SMALL = ("qwen3-serve", "--set", "model=tiny-moe", "--set", "routing={trace: tiny-moe}", "--set", "precision={}")
ASKED = (
    "requests={number: 24, warmup: 20 ms, arrivals: {poisson: {rate: 200/s}}, "
    "input_length: {uniform: {low: 50, high: 300}}, output_length: {uniform: {low: 1, high: 9}}}"
)


def served(moesim: Moesim, *more: str) -> dict[str, float]:
    done = moesim("run", *SMALL, "--set", ASKED, *more, "--json", "--out", "r")
    assert done.code == 0, done.err
    return {name: metric["value"] for name, metric in json.loads(done.out)["metrics"].items()}


def test_vllms_formulas_on_the_lists_give_the_numbers_beside_them(moesim: Moesim) -> None:
    values = served(moesim)
    assert moesim("export", "r", "--as", "vllm", "-o", "v.json").code == 0
    result: dict[str, Any] = json.loads(Path("v.json").read_text())
    tokens, ttft, whole = (np.array(result[name]) for name in ("output_lens", "ttfts", "latencies"))
    assert result["num_prompts"] == result["completed"] == len(tokens) == values["completed"]
    assert result["total_output_tokens"] == tokens.sum() and result["total_input_tokens"] == sum(result["input_lens"])
    assert ttft.mean() * 1e3 == pytest.approx(result["mean_ttft_ms"], rel=1e-6)
    assert np.percentile(whole, 99) * 1e3 == pytest.approx(result["p99_e2el_ms"], rel=1e-6)
    several = tokens > 1
    tpot = (whole - ttft)[several] / (tokens[several] - 1)
    assert tpot.mean() * 1e3 == pytest.approx(result["mean_tpot_ms"], rel=1e-6)
    assert result["completed"] / result["duration"] == pytest.approx(result["request_throughput"], rel=1e-9)
    assert result["mean_ttft_ms"] == values["mean_ttft_ms"]


def test_aiperf_gets_a_line_a_request(moesim: Moesim) -> None:
    values = served(moesim)
    assert moesim("export", "r", "--as", "aiperf", "-o", "a.jsonl").code == 0
    records = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    gaps = [one["metrics"].get("inter_token_latency") for one in records]
    assert np.mean([gap["value"] for gap in gaps if gap]) == pytest.approx(values["mean_tpot_ms"], rel=1e-6)
    for one in records:
        meta, latency = one["metadata"], one["metrics"]["request_latency"]["value"]
        assert meta["request_end_ns"] - meta["request_start_ns"] == pytest.approx(latency * 1e6, abs=1)
        assert one["error"] is None


def test_requests_that_a_dead_replica_lost_are_errors_in_both(moesim: Moesim) -> None:
    dies = ("--set", "replicas=2", "--set", "faults=[{replica: 1, at: 50 ms, until: 80 ms, then: lose}]")
    values = served(moesim, *dies, "--set", "requests.output_length={fixed: 40}", "--set", "balancer=round_robin")
    for form in ("aiperf", "vllm"):
        assert moesim("export", "r", "--as", form, "-o", form).code == 0
    failed = [one for one in map(json.loads, Path("aiperf").read_text().splitlines()) if one["error"]]
    assert len(failed) == values["lost"] > 0
    assert {one["error"]["type"] for one in failed} == {"lost"} and "error_isl" in failed[0]["metrics"]
    result = json.loads(Path("vllm").read_text())
    ended = list(zip(result["output_lens"], result["errors"], strict=True))
    assert [size for size, said in ended if said] == [0] * len(failed)


def test_aiperf_itself_reads_every_line(moesim: Moesim) -> None:
    models = pytest.importorskip("aiperf.common.models", reason="AIPerf is not installed: pip install aiperf")
    served(moesim)
    assert moesim("export", "r", "--as", "aiperf", "-o", "a.jsonl").code == 0
    lines = Path("a.jsonl").read_text().splitlines()
    assert [models.MetricRecordInfo.model_validate_json(line).error for line in lines] == [None] * len(lines)


def test_parquet_is_requests_csv(moesim: Moesim) -> None:
    served(moesim)
    assert moesim("export", "r", "--as", "parquet", "-o", "r.parquet").code == 0
    rows = list(csv.DictReader(Path("r/requests.csv").read_text().splitlines()))
    assert {str(one.type) for one in pq.read_schema("r.parquet")} == {"int64", "double", "string"}
    table = pq.read_table("r.parquet").to_pylist()
    assert [one["request"] for one in table] == list(range(24))
    assert [one["ended_s"] for one in table] == [float(row["ended_s"]) for row in rows]


def test_flows_are_all_bytes_of_the_step_each_once(moesim: Moesim) -> None:
    """All collectives of this step are dispatches and combines: their bytes are what metrics count."""
    two = ("--set", "cluster.nodes=2", "--set", "parallel={data_parallel_size: 16, expert_parallel_size: 16}")
    document = json.loads(moesim("run", "demo-tiny", *two, "--json", "--out", "r").out)
    assert moesim("export", "r", "--as", "flows", "-o", "f.csv").code == 0
    rows = list(csv.DictReader(Path("f.csv").read_text().splitlines()))
    metrics = {name: metric["value"] for name, metric in document["metrics"].items()}
    far = sum(int(row["bytes"]) for row in rows if int(row["src"]) // 8 != int(row["dst"]) // 8)
    assert far == metrics["nic_bytes"]
    assert sum(int(row["bytes"]) for row in rows) == metrics["nic_bytes"] + metrics["nvlink_bytes"]
    starts = [float(row["start_ns"]) for row in rows]
    assert starts == sorted(starts) and starts[-1] < metrics["step_time_s"] * 1e9
    assert {row["task"] for row in rows} == {"dispatch", "combine"}


def test_what_a_run_cannot_be_written_as_is_refused(moesim: Moesim) -> None:
    moesim("run", "demo-tiny", "--out", "s")
    wrong = moesim("export", "s", "--as", "aiperf", "-o", "x")
    assert wrong.code == 2 and "this one is of mode: step. Try: for it there is flows" in wrong.err
    assert "did you mean 'vllm'" in moesim("export", "s", "--as", "vlm", "-o", "x").err
    served(moesim)
    Path("r/requests.csv").write_text(Path("r/requests.csv").read_text().replace("0,", "1,", 1))
    flipped = moesim("export", "r", "--as", "vllm", "-o", "x")
    assert flipped.code == 2 and "requests.csv: is not what the run wrote" in flipped.err
    assert not Path("x").exists()
