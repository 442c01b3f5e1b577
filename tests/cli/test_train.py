"""Scenarios of mode: train from the command line: counted by hand, at scale, and what a careless user writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

NAMES = ("mixtral-train-pp4", "qwen3-train-16", "dsv3-train-2048")


def played(moesim: Moesim, tmp_path: Path, name: str, *changes: str) -> dict[str, Any]:
    options = [part for change in changes for part in ("--set", change)]
    done = moesim("run", name, *options, "--json", "--out", str(tmp_path / "run"))
    assert done.code == 0, done.err
    return json.loads(done.out)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NAMES)
def test_parts_add_up_and_rates_follow_from_the_time(moesim: Moesim, tmp_path: Path, name: str) -> None:
    document = played(moesim, tmp_path, name)
    metrics = {key: one["value"] for key, one in document["metrics"].items()}
    seconds = metrics["step_time_s"]
    assert sum(document["breakdown"].values()) == pytest.approx(seconds, rel=1e-9)
    each = document["provenance"]["flops_per_token"]["megatron"]
    assert metrics["tflops_per_gpu_megatron"] == pytest.approx(each * metrics["tokens_per_s_per_gpu"] / 1e12)
    assert metrics["mfu_megatron"] == pytest.approx(metrics["tflops_per_gpu_megatron"] / 989.4, rel=0.001)
    stages = document["provenance"]["stages"]
    assert max(one["memory_bytes"] for one in stages) == metrics["peak_memory_bytes"]
    assert {one["capacity_bytes"] for one in stages} == {81089 * 2**20}, "as CUDA reports it"
    assert "equal rows" in " ".join(document["warnings"])


def test_megatrons_count_of_qwen3(moesim: Moesim, tmp_path: Path) -> None:
    """Megatron-Bridge publishes 44,544 tokens/s as 1,029 TFLOP/s of a GPU: 23.1 GFLOP a token."""
    told = played(moesim, tmp_path, "qwen3-train-16")["provenance"]["flops_per_token"]
    assert told["megatron"] == pytest.approx(1029e12 / 44544, rel=0.005)
    assert told["torchtitan"] - told["megatron"] == pytest.approx(6 * 4096 * 32 * 128 * 48, rel=1e-9)


def test_sixteen_times_the_gpus_in_replicas_cost_their_reduction_alone(moesim: Moesim, tmp_path: Path) -> None:
    """2,048 GPUs and 16,384: the same passes, more ranks that reduce gradients."""
    few, many = (
        played(moesim, tmp_path / str(nodes), "dsv3-train-2048", f"cluster.nodes={nodes}",
               f"parallel.data_parallel_size={nodes // 2}")
        for nodes in (256, 2048)
    )  # fmt: skip
    for part in ("compute_s", "exposed_alltoall_s", "bubble_s"):
        assert many["breakdown"][part] == few["breakdown"][part]
    assert many["breakdown"]["gradient_sync_s"] > few["breakdown"]["gradient_sync_s"]
    assert many["breakdown"]["optimizer_s"] < few["breakdown"]["optimizer_s"]


def test_the_rank_with_most_all_to_alls_is_told(moesim: Moesim, tmp_path: Path) -> None:
    """1F1B ends on rank 0, whose three layers have no experts; other stages have 4 of 4."""
    document = played(moesim, tmp_path, "dsv3-train-2048", "pipeline.schedule=1f1b")
    assert document["breakdown"]["exposed_alltoall_s"] == 0
    assert 0.1 < document["metrics"]["alltoall_s"]["value"] / document["metrics"]["step_time_s"]["value"] < 0.5


def test_flags_of_megatron_and_torchtitan(moesim: Moesim, tmp_path: Path) -> None:
    """The same step under either name; both at once are refused with the line."""
    names = ("tensor_parallel_size", "tensor-model-parallel-size", "tensor_parallel_degree")
    few = ("parallel.data_parallel_size=8", "batch.micro_batches=8")
    found = [played(moesim, tmp_path / name, "mixtral-train-pp4", f"parallel.{name}=2", *few) for name in names]
    assert found[0]["metrics"] == found[1]["metrics"] == found[2]["metrics"]
    done = moesim("run", "mixtral-train-pp4", "--set", "parallel.pipeline-model-parallel-size=2")
    assert done.code == 2 and "pipeline_parallel_size, which is there already" in done.err
    assert "Try: one of them" in done.err


SKEWED = ("routing={sampled: prefill_in4096}", "batch.micro_batches=8", "parallel.data_parallel_size=16")


def test_skewed_rows_become_waiting(moesim: Moesim, tmp_path: Path) -> None:
    """Parts add up to the step; what skew costs is there, and what GPUs wait by kind; equal rows wait for no one."""
    document = played(moesim, tmp_path, "mixtral-train-pp4", *SKEWED)
    metrics = {key: one["value"] for key, one in document["metrics"].items()}
    assert sum(document["breakdown"].values()) == pytest.approx(metrics["step_time_s"], rel=1e-9)
    for name in ("waiting_group_s", "waiting_stages_s", "waiting_replicas_s", "imbalance_cost_s"):
        assert 0 < metrics[name] < metrics["step_time_s"], name
    assert document["provenance"]["alltoalls"] == 2 * 32 * 8 * 4  # two replicas, layers, micro-batches, there and back
    said = " ".join(document["warnings"])
    assert "one of 64 different ones" in said and "counted with even rows" in said
    done = moesim("run", "mixtral-train-pp4", *(part for one in SKEWED for part in ("--set", one)))
    assert "waiting for others in all-to-alls" in done.out


def test_a_recorded_model_is_trained_on_its_recording(moesim: Moesim, tmp_path: Path) -> None:
    document = played(
        moesim, tmp_path, "mixtral-train-pp4", "model=tiny-moe", "routing={trace: tiny-moe}", "batch.micro_batches=8",
        "parallel={data_parallel_size: 8, pipeline_parallel_size: 3, expert_parallel_size: 4}", "costs=h100_sxm",
    )  # fmt: skip
    assert document["provenance"]["routing"] == "recorded"
    assert document["metrics"]["waiting_group_s"]["value"] > 0


def test_hiding_exchanges_holds_sms(moesim: Moesim, tmp_path: Path) -> None:
    """Worth it where all-to-alls are a fifth of the step, not where they are 4 %: GEMMs lose 20 of 132 SMs."""
    times = {
        (name, hide): played(moesim, tmp_path / f"{name}{hide}", name, f"pipeline.hide_alltoall={hide}")["metrics"]
        for name in NAMES[:2]
        for hide in ("false", "true")
    }
    hidden = {name: times[name, "true"]["step_time_s"]["value"] / times[name, "false"]["step_time_s"]["value"]
              for name in NAMES[:2]}  # fmt: skip
    assert times[NAMES[0], "true"]["alltoall_s"]["value"] == 0
    assert hidden["qwen3-train-16"] < 1 < hidden["mixtral-train-pp4"] < 132 / 112


def test_twice_the_micro_batches_halve_the_bubble(moesim: Moesim, tmp_path: Path) -> None:
    """1F1B: 3 of m + 3 slots, were stages equal; the last one has the loss."""
    few, many = (
        played(moesim, tmp_path / str(number), NAMES[0], f"batch.micro_batches={number}")["metrics"]["bubble_fraction"]
        for number in (32, 64)
    )
    assert few["value"] > 3 / 35 and 0.5 < many["value"] / few["value"] < 0.75


def test_text_and_stored_run(moesim: Moesim, tmp_path: Path) -> None:
    done = moesim("run", "mixtral-train-pp4", "--out", str(tmp_path / "run"))
    assert "waiting for other stages" in done.out and "mfu_megatron" in done.out
    assert json.loads((tmp_path / "run" / "result.json").read_text())["provenance"]["kind"] == "train"
    again = moesim("init", "--like", "mixtral-train-pp4")
    (tmp_path / "again.yaml").write_text(again.out)
    assert moesim("run", str(tmp_path / "again.yaml"), "--out", str(tmp_path / "again")).code == 0
    assert "TrainBatch" in moesim("schema", "--mode", "train").out


@pytest.mark.parametrize(("changes", "code", "said"), [
    (["parallel.pipeline_parallel_size=5"], 3, "multiply to 80 GPUs, the cluster has 64"),
    (["parallel.stage_layers=[8,8,8,9]"], 2, "4 stages with 33 layers, where 4 stages with 32 layers are needed"),
    (["pipeline.schedule=dualpip"], 2, "did you mean 'dualpipe'"),
    (["pipeline.schedule=dualpipe", "parallel.pipeline_parallel_size=1"], 2, "even number"),
    (["pipeline.schedule=interleaved", "parallel.virtual_pipeline_size=2", "batch.micro_batches=33"], 2, "33"),
    (["routing={router: expert_choice}"], 2, "not played in pipelines"),
    (["routing={sampled: dsv3}"], 2, "load statistics"),
    (["routing={trace: tiny-moe}"], 2, "was recorded from"),
    (["routing={sampled: prefill_in4096}", "pipeline.hide_alltoall=true"], 2, "not played with rows of their own"),
    (["network.level=fluid"], 2, "nothing to act on in mode: train"),
    (["comm.path=rdma"], 2, "comm.path"),
    (["pipeline.hide_alltoall=true", "batch.micro_batches=1"], 2, "needs an all-to-all, and a second micro-batch"),
    (["training.pad_to_capacity=true"], 2, "there are no places to fill"),
    (["training.capacity_factor=0"], 2, "training.capacity_factor"),
    (["precision.experts=fp8"], 2, "experts have the weights' precision"),
    (["batch.sequence_length=65536"], 3, "activations of 4 passes"),
    (["pipeline.schedule=gpip"], 2, "--set pipeline.schedule"),
    (["comm.dispatch=ncl"], 2, "--set comm.dispatch"),
    (["training.recompute=[mla_up_proj]"], 2, "has no latent attention"),
    (["comm.dispatch=replicated"], 2, "replicated is for inference"),
    (["model=Meta-Llama-3.1-8B"], 2, "comm.dispatch has nothing to act on"),
    (["model=Meta-Llama-3.1-8B", "comm={}", "routing=null"], 2, "parallel.expert_parallel_size has nothing to act on"),
    (["model=Meta-Llama-3.1-8B", "comm={}", "routing=null", "parallel.expert_parallel_size=1",
      "training.recompute=[moe]"], 2, "training.recompute has nothing to act on"),
])  # fmt: skip
def test_bad_input_is_one_line_with_a_way_out(moesim: Moesim, changes: list[str], code: int, said: str) -> None:
    options = [part for change in changes for part in ("--set", change)]
    done = moesim("run", "mixtral-train-pp4", *options)
    assert done.code == code and said in done.err, done.err
    assert "Traceback" not in done.err


def test_what_is_assumed_is_said(moesim: Moesim, tmp_path: Path) -> None:
    """On H800 with an H100's prices, in two slices of every sequence."""
    changes = ("cluster.topology=hgx-h800", "costs=h100_sxm", "parallel.context_parallel_size=2",
               "batch.micro_batches=4", "parallel.data_parallel_size=8")  # fmt: skip
    said = " ".join(played(moesim, tmp_path, "mixtral-train-pp4", *changes)["warnings"])
    for words in ("all times are assumed", "go round context-parallel ranks", "full rate of its link",
                  "assumed, not measured"):  # fmt: skip
        assert words in said


def test_what_asks_for_one_step_refuses_a_training_scenario(moesim: Moesim, tmp_path: Path) -> None:
    done = moesim("trace", "route", "mixtral-train-pp4", "-o", str(tmp_path / "t.parquet"))
    assert done.code == 2 and "pipelined training step" in done.err
    done = moesim("run", "mixtral-train-pp4", f"--trace={tmp_path}/")
    assert done.code == 2 and "is one file" in done.err


def test_tokens_cost_what_gpus_and_energy_cost(moesim: Moesim) -> None:
    """16 GPUs at 2 an hour and 1 kW at 0.5 for the seconds of the step, over its tokens."""
    prices = "prices={gpu_hour: 2, gpu_watts: 1000, kilowatt_hour: 0.5}"
    done = moesim("run", "qwen3-train-16", "--set", prices, "--json")
    assert done.code == 0, done.err
    values = {name: metric["value"] for name, metric in json.loads(done.out)["metrics"].items()}
    each = 1e6 / values["tokens_per_s_per_gpu"] / 3600  # GPU hours of a million tokens
    assert values["energy_per_million_tokens"] == pytest.approx(each)
    assert values["cost_per_million_tokens"] == pytest.approx(each * 2.5)


SMALL = ("--set", "batch.micro_batches=8")


def test_a_step_has_a_page_and_a_trace(moesim: Moesim, tmp_path: Path) -> None:
    """A bar a slot: 4 ranks with 16 passes, and what follows them; they end when the step does."""
    page, trace, run = tmp_path / "page.html", tmp_path / "trace.json", tmp_path / "run"
    done = moesim("run", "mixtral-train-pp4", *SMALL, "--out", str(run), f"--report={page}", f"--trace={trace}")
    assert done.code == 0, done.err
    events = [one for one in json.loads(trace.read_text())["traceEvents"] if one["ph"] == "X"]
    assert len(events) == 4 * (16 + 2) and {one["args"]["kind"] for one in events} >= {
        "forward",
        "backward",
        "optimizer",
    }
    step = json.loads((run / "result.json").read_text())["metrics"]["step_time_s"]["value"]
    assert max(one["ts"] + one["dur"] for one in events) == pytest.approx(step * 1e6)
    drawn = json.loads((run / "pictures.json").read_text())["slots"]
    assert len(drawn["rank"]) == len(events) and '"F0 of stage 0"' in page.read_text()
    assert moesim("report", str(run), "-o", str(page)).code == 0


def test_slots_of_rows_of_their_own_are_drawn_too(moesim: Moesim, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    done = moesim("run", "mixtral-train-pp4", *(part for one in SKEWED for part in ("--set", one)), f"--trace={trace}")
    assert done.code == 0, done.err
    events = [one for one in json.loads(trace.read_text())["traceEvents"] if one["ph"] == "X"]
    for rank in range(4):
        own = sorted((one["ts"], one["ts"] + one["dur"]) for one in events if one["pid"] == rank)
        assert len(own) > 8 and own == sorted(own, key=lambda one: one[1])


def test_training_steps_are_compared_without_an_interval(moesim: Moesim) -> None:
    done = moesim("compare", "mixtral-train-pp4", "--set", "batch.micro_batches=64", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    step = found["metrics"]["step_time_s"]
    assert step["low"] == step["high"] == step["value"] == pytest.approx(step["variant"] - step["base"])
    assert "nothing is drawn" in found["provenance"]["verdict"]
    assert " Most moved: computing +" in found["provenance"]["verdict"]
    mixed = moesim("compare", "mixtral-train-pp4", "--with", "demo-tiny")
    assert mixed.code == 2 and "is a pipelined training step, the other is a step" in mixed.err
