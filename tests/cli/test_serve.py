"""Serving from the command line."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from moesim.engine import evaluate
from moesim.step import Batch, Phase, lower
from moesim.step.dispatch import EVEN
from moesim.studies.serving import load_serving
from moesim.studies.serving.build import build_serving

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

SMALL = ("qwen3-serve", "--set", "model=tiny-moe", "--set", "routing={trace: tiny-moe}", "--set", "precision={}")
FEW = "requests={number: 24, arrivals: {poisson: {rate: 200/s}}, input_length: {fixed: 200}, output_length: {fixed: 9}}"


def with_requests(text: str) -> str:
    return f"requests={{number: 24, {text}, input_length: {{fixed: 200}}, output_length: {{fixed: 9}}}}"


def test_a_served_scenario_prints_stores_and_draws(moesim: Moesim) -> None:
    done = moesim("run", *SMALL, "--set", FEW, "--json", "--report=page.html", "--out", "r")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    values = {name: metric["value"] for name, metric in document["metrics"].items()}
    assert values["completed"] == 24 and values["total_output"] == 216
    assert sum(document["breakdown"].values()) * 1e3 == pytest.approx(values["mean_e2el_ms"], rel=1e-9)
    rows = list(csv.DictReader(Path("r/requests.csv").read_text().splitlines()))
    times = np.array([[float(row[key]) for key in ("sent_s", "first_token_s", "ended_s")] for row in rows])
    assert np.mean(times[:, 1] - times[:, 0]) * 1e3 == pytest.approx(values["mean_ttft_ms"], rel=1e-6)
    assert np.mean(times[:, 2] - times[:, 1]) / 8 * 1e3 == pytest.approx(values["mean_tpot_ms"], rel=1e-6)
    assert values["mean_itl_ms"] == pytest.approx(values["mean_tpot_ms"], rel=1e-6)  # all answers are equally long
    assert values["output_throughput"] == pytest.approx(216 / (times[:, 2].max() - times[:, 0].min()), rel=1e-6)
    assert "p99_ttft_ms" in Path("page.html").read_text()
    assert moesim("report", "r").code == 0
    assert moesim("explain", "r", "--no-advice").code == 0


def test_kv_that_is_left_on_four_h100_is_what_sglang_logged(moesim: Moesim) -> None:
    """Qwen3-235B-A22B in fp8 on 4 H100, mem-fraction-static 0.93: 367,404 tokens of KV (vllm issue 21348, 2025-07)."""
    more = {
        "model": "Qwen/Qwen3-235B-A22B",
        "precision": "{weights: fp8, experts: fp8}",
        "parallel": "{tensor_parallel_size: 4}",
    }
    more |= {"routing": "{balanced: true, renew: never}", "scheduler": "{preset: sglang, gpu_memory_utilization: 0.93}"}
    given = [part for key, value in more.items() for part in ("--set", f"{key}={value}")]
    few = "requests={number: 1, arrivals: {poisson: {rate: 1/s}}, input_length: {fixed: 8}, output_length: {fixed: 2}}"
    done = moesim("run", "demo-serve", *given, "--set", few, "--json")
    assert done.code == 0, done.err
    held = json.loads(done.out)["metrics"]["memory.kv_cache"]["value"]
    a_token = 94 * 1 * 128 * 2 * 2  # layers, KV heads of a rank, head size, K and V, bf16
    assert held / a_token == pytest.approx(367_404, rel=0.07)  # 291,000 with 80e9 bytes a GPU


@pytest.mark.parametrize(
    ("replicas", "nodes", "said"),
    [(3, 1, "3 replicas take 24 GPUs, the cluster has 8:"), (3, 3, ""), (2, 3, "8 of the cluster's 24 GPUs are idle")],
)
def test_replicas_have_the_gpus_of_the_cluster_or_more_and_less_is_said(
    moesim: Moesim, replicas: int, nodes: int, said: str
) -> None:
    given = ("--set", FEW, "--set", f"replicas={replicas}", "--set", f"cluster.nodes={nodes}")
    told = "\n".join(json.loads(moesim("run", *SMALL, *given, "--json").out)["warnings"])
    assert (said in told) if said else ("GPUs are idle" not in told and "replicas take" not in told)
    assert ("cluster.nodes: 3 has them" in told) == (nodes == 1)


def test_goodput_counts_what_meets_every_limit(moesim: Moesim) -> None:
    done = moesim("run", *SMALL, "--set", FEW, "--set", "slo={ttft: 1 s, e2el: 100 s}", "--json")
    values = {name: metric["value"] for name, metric in json.loads(done.out)["metrics"].items()}
    assert values["request_goodput"] == values["request_throughput"]
    done = moesim("run", *SMALL, "--set", FEW, "--set", "slo={ttft: 1 s, tpot: 1 ns}", "--json",
                  "--assert", "request_goodput > 0")  # fmt: skip
    assert done.code == 4
    assert json.loads(done.out)["metrics"]["request_goodput"]["value"] == 0


def test_the_same_seed_gives_the_same_bytes_and_seeds_an_interval(moesim: Moesim) -> None:
    one, again, other, three = (
        moesim("run", *SMALL, "--set", FEW, "--json", *more).out
        for more in ((), (), ("--seed", "1"), ("--set", "seeds=3"))
    )
    assert one == again != other
    spread = json.loads(three)["metrics"]["mean_ttft_ms"]
    assert spread["low"] < spread["value"] < spread["high"]
    assert json.loads(three)["provenance"]["seeds"] == [0, 1, 2]


def test_a_step_of_the_loop_is_lower_and_evaluate(moesim: Moesim) -> None:
    loaded = load_serving("qwen3-serve", [*SMALL[2::2], "routing.renew=1"])
    built = build_serving(loaded, 0)
    batch = Batch.of(8, np.arange(9) % 8, np.arange(9), [1] * 8 + [70], [40] * 8 + [0], [0] * 8 + [Phase.PREFILL], True)
    graph = lower(built.plan, (batch,)).graph
    assert built.clock().ps(batch) == evaluate(graph, built.plan.fabric.capacity).task_end.max()


@pytest.mark.parametrize(
    "arrivals",
    [
        "arrivals: {gamma: {rate: 50/s, burstiness: 0.3}}", "arrivals: {burst: {size: 6, every: 50 ms}}",
        "arrivals: {wave: {low: 10/s, high: 100/s, period: 1 s}}",
        "arrivals: {ramp: {first: 10/s, last: 100/s, over: 1 s}}", "arrivals: {closed_loop: {concurrency: 3}}",
        "arrivals: {replay: {file: azure-conv-2023, speed: 20}}", "arrivals: {replay: {file: mooncake-synthetic}}",
    ],
)  # fmt: skip
def test_every_kind_of_arrivals_is_served(moesim: Moesim, arrivals: str) -> None:
    done = moesim("run", *SMALL, "--set", with_requests(arrivals), "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"]["completed"]["value"] == 24


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ("requests.number=0", 2, "greater than or equal to 1"),
        ("requests.input_length={fixed: 0}", 2, "greater than or equal to 1"),
        ("requests.input_length={uniform: {low: 9, high: 3}}", 2, "low 9 is above high 3"),
        ("requests.arrivals={poisson: {rate: 0/s}}", 2, "a rate of 0/s is none"),
        ("requests.arrivals={poisson: {rate: 4}}", 2, "no unit"),
        ("requests.arrivals={wave: {low: 9/s, high: 3/s, period: 1 h}}", 2, "low 9/s is above high 3/s"),
        ("requests.arrivals={poisson: {rate: 4/s}, burst: {size: 1, every: 1 s}}", 2, "give one of"),
        ("requests.arrivals={replay: {file: nothing}}", 2, "unknown requests 'nothing'"),
        ("requests.arrivals={replay: {file: arxiv-summarization-lengths}}", 2, "lengths, no times"),
        ("requests.warmup=9 h", 3, "warm-up leaves 0 of 400"),
        ("scheduler.preset=vlm", 2, "did you mean 'vllm'"),
        ("scheduler.policy=decode", 2, "decode_first"),
        ("scheduler.max_num_seqs=100000", 2, "max_num_batched_tokens"),
        ("scheduler.host_time=0.3", 2, "valid string"),
        ("scheduler.gpu_memory_utilization=0.0001", 3, "HBM needs"),
        ("balancer=random", 2, "round_robin"),
        ("scheduler={preset: trtllm, max_num_batched_tokens: 512, max_num_seqs: 4}", 3, "no request can be served"),
        ("network.level=fluid", 2, "network.level: nothing to act on"),
        ("network.window=0.1", 2, "network.window: nothing to act on"),
        ("routing.renew=0", 2, "greater than or equal to 1"),
        ("comm.dispatch=exflow", 2, "another comm.dispatch"),
        ("replicas=0", 2, "greater than or equal to 1"),
        ("requests.classes=[{name: a, share: -0.5}, {name: b, share: 1.5}]", 2, "classes[0].share"),
        ("requests.classes=[{name: a, share: 0.5}, {name: b, share: 0.6}]", 2, "the shares add up to 1.1"),
        ("requests.classes=[{name: a, share: 0.5}, {name: a, share: 0.5}]", 2, "'a' is there twice"),
        ("requests.classes=[{name: a b, share: 1}]", 2, "classes[0].name"),
        ("requests.classes=[{name: a, share: 1, priority: 3}]", 2, "scheduler.scheduling_policy: priority"),
        ("requests.classes=[{name: a, share: 1}, {name: b}]", 2, "give share"),
        ("requests.classes=[{name: a, share: 1}, {name: b, arrivals: {burst: {size: 1, every: 1 s}}}]", 2, "number"),
        ("requests.sessions={turns: 0}", 2, "sessions.turns"),
        ("requests.sessions={think_time: 1 s}", 2, "sessions.turns"),
        ("requests.sessions={turns: 2, think_time: 5}", 2, "think_time"),
        ("requests.sessions={turns: 9000}", 2, "at most 4194303"),
        ("balancer=session_affinity", 2, "requests have no sessions"),
        ("scheduler.num_speculative_tokens=2", 2, "needs draft_acceptance_rate"),
        ("scheduler={num_speculative_tokens: 2, draft_acceptance_rate: 1.2}", 2, "scheduler.draft_acceptance_rate"),
        ("rebalance={step_interval: 5, window_size: 9}", 2, "more than step_interval 5"),
        ("rebalance={step_interval: 9, window_size: 9, strategy: eplbb}", 2, "did you mean 'eplb'"),
        ("kv_offload={}", 2, "kv_offload: give swap_space"),
        ("kv_offload={swap_space: 1 B}", 2, "1 B hold no KV block of"),
        ("kv_offload={swap_space: 4}", 2, "no unit"),
        ("kv_offload={host_link: 9 GB/s, pool: {size: 1 GB, rate: 1 GB/s}}", 2, "host_link needs swap_space"),
        ("kv_offload={pool: {size: 1 GB}}", 2, "kv_offload.pool.rate"),
        ("kv_offload={swap_space: 4 GiB, host_link: 0 GB/s}", 2, "kv_offload.host_link"),
        ("rebalance={step_interval: 0}", 2, "rebalance.step_interval"),
        ("scheduler.scheduling_policy=fifo", 2, "'fcfs', 'priority' or 'deadline'"),
        ("scheduler.max_num_seq=4", 2, "did you mean 'max_num_seqs'"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(moesim: Moesim, change: str, code: int, says: str) -> None:
    done = moesim("run", *SMALL, "--set", "requests.input_length={fixed: 600}", "--set", change)
    assert (done.code, done.out) == (code, "")
    assert says in done.err and len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "arrival_s,input_length,output_length\n0,10,5\n-1,10,5\n",
            "f.csv:3 arrival_s: '-1' is no number of 0 or more",
        ),
        ("arrival_s,input_length,output_length\n5,10,5\n1,10,5\n", "f.csv:3: is earlier than the row before"),
        ("arrival_s,input_length,output_length\n0,0,5\n", "f.csv:2 input_length: '0' is no whole number"),
        ("arrival_s,input_length,output_length\n0,nan,5\n", "f.csv:2 input_length"),
        ("arrival_s,input_length,output_length\n0,10\n", "f.csv:2: has more or fewer cells"),
        ("a,b\n0,10\n", "no reader knows the columns a, b"),
        ("", "f.csv: is empty"),
        ("arrival_s,input_length,output_length\n", "f.csv: holds no request"),
        ('{"arrival_s": 0, "input_length": 3, "output_length": 4}\n[1]\n', "f.csv:2: is no JSON object"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,4,5\n", "f.csv:2 TIMESTAMP: 'yesterday' is no time"),
    ],
)
def test_a_broken_file_of_requests_is_placed(moesim: Moesim, text: str, says: str) -> None:
    Path("f.csv").write_text(text)
    done = moesim("run", *SMALL, "--set", "requests={arrivals: {replay: {file: f.csv}}}")
    assert done.code == 2 and says in done.err, done.err


def test_overload_is_said_to_be_one(moesim: Moesim) -> None:
    load = FEW.replace("24", "400").replace("200/s", "2000/s").replace("fixed: 9", "fixed: 60")
    done = moesim("run", *SMALL, "--set", load, "--set", "scheduler.max_num_seqs=1", "--json")
    assert done.code == 0, done.err
    assert any("no steady state" in text for text in json.loads(done.out)["warnings"])


def test_requests_that_can_never_run_are_counted(moesim: Moesim) -> None:
    Path("f.jsonl").write_text("".join(
        f'{{"arrival_s": {n}, "input_length": {length}, "output_length": 4}}\n'
        for n, length in enumerate((30, 3_000_000, 30))
    ))  # fmt: skip
    done = moesim("run", *SMALL, "--set", "requests={arrivals: {replay: {file: f.jsonl}}}", "--set",
                  "scheduler={preset: trtllm}", "--json")  # fmt: skip
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["metrics"]["failed"]["value"] == 1
    assert any("1 requests were rejected" in text for text in document["warnings"])


def test_other_verbs_say_that_it_is_no_step(moesim: Moesim) -> None:
    for words in (("run", "qwen3-serve", "--trace"),):
        done = moesim(*words)
        assert done.code == 2 and len(done.err.strip().splitlines()) == 1
    assert moesim("init", "--like", "qwen3-serve").out.count("requests:") == 1
    assert "RequestsSection" in moesim("schema", "--mode", "serve").out
    known = json.loads(moesim("list", "--json").out)
    assert {"vllm", "sglang", "trtllm"} <= set(known["presets"]) and "azure-conv-2023" in known["requests"]


def test_a_bare_number_is_a_fixed_length(moesim: Moesim) -> None:
    chosen = ("--set", "requests.number=6", "--set", "requests.output_length=5", "--set", "requests.input_length=40")
    done = moesim("run", *SMALL, *chosen, "--json", "--out", "r")
    values = {name: metric["value"] for name, metric in json.loads(done.out)["metrics"].items()}
    assert (values["total_input"], values["total_output"]) == (240, 30)
    assert "greater than or equal to 1, not 0" in moesim("run", *SMALL, "--set", "requests.output_length=0").err


def test_a_placement_file_brings_its_engine_s_choice_of_replicas(moesim: Moesim) -> None:
    planned = moesim(
        "place", "--trace", "tiny-moe", "--topology", "dgx-h100", "--gpus", "8", "--redundant", "8",
        "--strategy", "eplb", "-o", "p.json", "--format", "sglang",
    )  # fmt: skip
    assert planned.code == 0, planned.err
    chosen = (*SMALL[1:], "--set", FEW, "--set", "experts={redundant: 8, placement: p.json}")
    overrides = [text for text in chosen if text != "--set"]
    built = build_serving(load_serving("qwen3-serve", overrides), 0)
    assert built.plan.replicas != EVEN


def test_shared_prefixes_are_found_and_make_first_tokens_come_earlier(moesim: Moesim) -> None:
    chosen = ("--set", with_requests("arrivals: {poisson: {rate: 40/s}}").replace("fixed: 200", "fixed: 2000"), "--set",
              "requests.prefix={documents: 2, share: 0.8, zipf: 1.0}")  # fmt: skip
    found = {}
    for cache in ("true", "false"):
        done = moesim("run", *SMALL, *chosen, "--set", f"scheduler.prefix_cache={cache}", "--json", "--out", cache)
        assert done.code == 0, done.err
        found[cache] = {name: metric["value"] for name, metric in json.loads(done.out)["metrics"].items()}
    rows = list(csv.DictReader(Path("true/requests.csv").read_text().splitlines()))
    reused = [int(row["reused"]) for row in rows]
    assert set(reused) == {0, 1600} and "prefix_cache_hit_rate" not in found["false"]
    assert found["true"]["prefix_cache_hit_rate"] == pytest.approx(sum(reused) / (24 * 2000))
    assert found["true"]["mean_ttft_ms"] < found["false"]["mean_ttft_ms"]


def test_recorded_prefixes_are_found(moesim: Moesim) -> None:
    replay = "requests={number: 24, arrivals: {replay: {file: mooncake-conversation}}, output_length: {fixed: 9}}"
    done = moesim("run", *SMALL, "--set", replay, "--set", "balancer=prefix_affinity", "--json")
    assert done.code == 0, done.err
    assert 0 < json.loads(done.out)["metrics"]["prefix_cache_hit_rate"]["value"] < 1
    done = moesim("run", *SMALL, "--set", replay, "--set", "scheduler.block_size=48")
    assert done.code == 2 and "no whole blocks of 48" in done.err
    Path("f.jsonl").write_text('{"timestamp": 0, "input_length": 9, "output_length": 4, "hash_ids": ["x"]}\n')
    done = moesim("run", *SMALL, "--set", "requests={arrivals: {replay: {file: f.jsonl}}}")
    assert done.code == 2 and "f.jsonl:1 hash_ids" in done.err


def test_tokens_cost_what_gpus_and_energy_cost(moesim: Moesim) -> None:
    """Eight GPUs at 2 an hour and 1 kW, over the seconds of the run and its 24 x 9 tokens."""
    prices = "prices={gpu_hour: 2, gpu_watts: 1000, kilowatt_hour: 0.5}"
    done = moesim("run", *SMALL, "--set", FEW, "--set", prices, "--json")
    assert done.code == 0, done.err
    values = {name: metric["value"] for name, metric in json.loads(done.out)["metrics"].items()}
    hours = 8 * values["duration_s"] / 3600
    assert values["gpu_hours"] == pytest.approx(hours)
    assert values["energy_per_million_output_tokens"] == pytest.approx(hours / 216 * 1e6)
    assert values["cost_per_million_output_tokens"] == pytest.approx(hours * (2 + 0.5) / 216 * 1e6)
    assert values["cost_per_million_total_tokens"] == pytest.approx(hours * 2.5 / (24 * 209) * 1e6)
    for wrong, says in (("{kilowatt_hour: 1}", "gpu_hour"), ("{gpu_hour: -1}", "gpu_hour"),
                        ("{gpu_hour: 1, kilowatt_hour: 1}", "prices.kilowatt_hour")):  # fmt: skip
        refused = moesim("run", *SMALL, "--set", FEW, "--set", f"prices={wrong}")
        assert refused.code == 2 and says in refused.err, refused.err


def test_blocks_as_an_engine_logged_them_replace_what_memory_is_reckoned_to_hold(moesim: Moesim) -> None:
    blocks = "scheduler.num_gpu_blocks_override"
    done = moesim("run", *SMALL, "--set", FEW, "--set", f"{blocks}=90")
    assert done.code == 0 and "90 KV blocks" in done.out + done.err, done.err
    refused = moesim("run", *SMALL, "--set", FEW, "--set", f"{blocks}=2000000000")
    assert refused.code == 3 and "KV cache" in refused.err
    most = re.search(rf"{blocks}: .* Try: at most (\d+),", refused.err)
    assert most, refused.err
    for more, code in ((0, 0), (1, 3)):
        assert moesim("run", *SMALL, "--set", FEW, "--set", f"{blocks}={int(most[1]) + more}").code == code


def test_nothing_needs_no_unit(moesim: Moesim) -> None:
    for none in ("0", "'0'", "0 GB"):
        done = moesim("run", *SMALL, "--set", FEW, "--set", f"kv_offload={{host_cache: 1 GB, swap_space: {none}}}")
        assert done.code == 0, done.err
