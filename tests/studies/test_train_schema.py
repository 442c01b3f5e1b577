"""Every key that only training scenarios have changes the result of some scenario."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest
import yaml

from moesim import shipped, yamlfile
from moesim.errors import BadInput
from moesim.studies.compare import compare
from moesim.studies.scenario import Setup
from moesim.studies.training import TrainScenario, load_training, run_training
from moesim.studies.training.flags import PARALLEL
from tests.studies.test_schema_walk import leaves

SMALL = (
    "model={name: m, hidden_size: 2048, num_layers: 8, vocab_size: 32000, num_experts: 64, top_k: 2, "
    "expert_intermediate: 1024, attention: {num_heads: 16, num_kv_heads: 16, head_dim: 128}}",
    "batch={sequence_length: 512, micro_batches: 8}", "pipeline={schedule: 1f1b}",
    "parallel={data_parallel_size: 8, pipeline_parallel_size: 2, expert_parallel_size: 8}",
)  # fmt: skip
RUN = (
    "run={steps: 2000, trials: 4, checkpoint_rate: 1 GB/s, checkpoint_every: 100, gpu_mtbf: 2 h, nic_mtbf: 4 h, "
    "node_mtbf: 8 h, restart: 20 s, straggler_rate: 0.01, straggler_slowdown: 1.5}"
)
MOVING = (
    RUN, "routing={router: topk_softmax, generator: {popularity: {lognormal: 1}}}", "batch.micro_batches=2",
    "run.steps=60", "run.routing_every=30", "run.rebalance={}",
)  # fmt: skip
CASES: dict[str, tuple[tuple[str, ...], str]] = {  # overrides before, and the one that is added
    "batch.sequence_length": ((), "batch.sequence_length=1024"),
    "batch.micro_batch_size": ((), "batch.micro_batch_size=2"),
    "batch.micro_batches": ((), "batch.micro_batches=16"),
    "batch.global_batch_size": (
        ("batch={sequence_length: 512, global_batch_size: 64}",), "batch.global_batch_size=128"
    ),
    "parallel.plan": (("batch={sequence_length: 512, global_batch_size: 64}", "parallel={}"), "parallel.plan=auto"),
    "parallel.context_parallel_size": (
        ("parallel.data_parallel_size=4", "parallel.expert_parallel_size=4"), "parallel.context_parallel_size=2"
    ),
    "parallel.pipeline_parallel_size": (("cluster.nodes=4",), "parallel.pipeline_parallel_size=4"),
    "parallel.virtual_pipeline_size": (
        ("pipeline.schedule=interleaved", "parallel.virtual_pipeline_size=2"), "parallel.virtual_pipeline_size=4"
    ),
    "parallel.stage_layers": ((), "parallel.stage_layers=[3, 5]"),
    "parallel.zero_stage": ((), "parallel.zero_stage=3"),
    "parallel.data_parallel_shard_size": (
        ("parallel.zero_stage=3", "parallel.expert_parallel_size=2"), "parallel.data_parallel_shard_size=4"
    ),
    "training.gradients": ((), "training.gradients=bf16"),
    "training.overlap_grad_reduce": ((), "training.overlap_grad_reduce=true"),
    "training.overlap_param_gather": ((), "training.overlap_param_gather=true"),
    "pipeline.schedule": ((), "pipeline.schedule=gpipe"),
    "pipeline.hide_alltoall": ((), "pipeline.hide_alltoall=true"),
    "training.capacity_factor": ((), "training.capacity_factor=0.5"),
    "training.pad_to_capacity": (("training.capacity_factor=1.5",), "training.pad_to_capacity=true"),
    "training.recompute": ((), "training.recompute=[moe]"),
    "training.optimizer": ((), "training.optimizer=muon"),
    "training.master": ((), "training.master=false"),
    "run.steps": ((RUN,), "run.steps=3000"),
    "run.trials": ((RUN,), "run.trials=5"),
    "run.checkpoint_rate": ((RUN,), "run.checkpoint_rate=2 GB/s"),
    "run.checkpoint_every": ((RUN,), "run.checkpoint_every=auto"),
    "run.restart": ((RUN,), "run.restart=60 s"),
    "run.gpu_mtbf": ((RUN,), "run.gpu_mtbf=20 h"),
    "run.nic_mtbf": ((RUN,), "run.nic_mtbf=40 h"),
    "run.node_mtbf": ((RUN,), "run.node_mtbf=1 h"),
    "run.straggler_rate": ((RUN,), "run.straggler_rate=0.1"),
    "run.straggler_slowdown": ((RUN,), "run.straggler_slowdown=2"),
    "run.routing_every": (
        (RUN, "routing={router: {name: bias_lossfree, u: 0.02}, generator: {popularity: {lognormal: 1}}}",
         "batch.micro_batches=2", "run.steps=60"), "run.routing_every=30"
    ),
    "run.rebalance.strategy": (MOVING, "run.rebalance.strategy=contiguous"),
    "run.rebalance.hysteresis": (MOVING, "run.rebalance.hysteresis=0.9"),
    "run.rebalance.max_moved": (MOVING, "run.rebalance.max_moved=0.01"),
    "prices.gpu_hour": (("prices={gpu_hour: 2}",), "prices.gpu_hour=3"),
    "prices.gpu_watts": (("prices={gpu_hour: 2}",), "prices.gpu_watts=1000"),
    "prices.kilowatt_hour": (("prices={gpu_hour: 2, gpu_watts: 1000}",), "prices.kilowatt_hour=0.1"),
}  # fmt: skip


def test_every_key_has_a_case() -> None:
    assert set(leaves(TrainScenario)) - set(leaves(Setup)) - {"mode"} == set(CASES)


@cache
def played(overrides: tuple[str, ...]) -> dict[str, Any]:
    document = run_training("qwen3-train-16", overrides=(*SMALL, *overrides)).to_json()
    return {name: document[name] for name in ("metrics", "breakdown")}


@pytest.mark.parametrize("key", CASES)
def test_a_key_changes_a_result(key: str) -> None:
    base, change = CASES[key]
    assert played((*base, change)) != played(base), change


@pytest.mark.parametrize("changed", ["dispatch_dtype", "combine_dtype"])
def test_rows_in_fp8_take_half_of_the_ways_that_they_go(changed: str) -> None:
    """Two of four ways of a layer: to the experts or back; values and their scales are 33/64 of bf16's bytes."""
    long = "batch.sequence_length=32768"  # so that bytes are most of an exchange
    own = {name: played((long, f"comm={{dispatch: nccl, {changed}: {name}}}"))["metrics"] for name in ("bf16", "fp8")}
    shorter = own["fp8"]["alltoall_s"]["value"] / own["bf16"]["alltoall_s"]["value"]
    assert shorter == pytest.approx((1 + 33 / 64) / 2, abs=0.02)
    kept = own["bf16"]["peak_memory_bytes"]["value"] > own["fp8"]["peak_memory_bytes"]["value"]
    assert kept == (changed == "dispatch_dtype")


def test_rows_of_their_own_change_the_step() -> None:
    """Other statistics, other steps; a section of routing acts here as it does in a single step."""
    found = [played((f"routing={{sampled: {name}}}",)) for name in ("prefill_in4096", "decode_in2000out100")]
    assert found[0] != found[1] and "imbalance_cost_s" in found[0]["metrics"]


FLAGS = {
    "batch.seq-length": ("batch.sequence_length", 1024),
    "batch.global-batch-size": ("batch.global_batch_size", 64),
    "batch.seq_len": ("batch.sequence_length", 1024),
    "batch.micro-batch-size": ("batch.micro_batch_size", 2),
    "batch.local_batch_size": ("batch.micro_batch_size", 2),
    "pipeline.pipeline_parallel_schedule_csv": ("pipeline.schedule", "mine.csv"),
    "training.moe-expert-capacity-factor": ("training.capacity_factor", 1.5),
    "training.recompute-modules": ("training.recompute", ("moe",)),
} | {f"parallel.{flag}": (f"parallel.{key}", 2) for flag, key in PARALLEL.items()}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_of_others_is_its_key(flag: str) -> None:
    key, value = FLAGS[flag]
    section, needed = (
        key.split(".")[0],
        {"sequence_length": 512} if key.startswith(("batch.micro", "batch.global")) else {},
    )
    own, other = (
        load_training("qwen3-train-16", (f"{section}={json.dumps({**needed, name.split('.')[1]: value})}",)).scenario
        for name in (key, flag)
    )
    assert own == other and getattr(getattr(own, section), key.split(".")[1]) == value


VALUES: dict[str, dict[str, Any]] = {
    "parallel.use-distributed-optimizer=false": {"zero_stage": 0},
    "parallel.data-parallel-sharding-strategy=optim_grads": {"zero_stage": 2},
    "parallel.data_parallel_sharding_strategy=optim_grads_params": {"zero_stage": 3},
    "training.grad-reduce-in-bf16=true": {"gradients": "bf16"},
    "training={moe-expert-capacity-factor: 1.0, moe-pad-expert-input-to-capacity: true}": {"pad_to_capacity": True},
    "training.overlap-grad-reduce=true": {"overlap_grad_reduce": True},
    "training.overlap-param-gather=true": {"overlap_param_gather": True},
}


@pytest.mark.parametrize("flag", VALUES)
def test_a_flag_says_a_value(flag: str) -> None:
    scenario = load_training("qwen3-train-16", (flag,)).scenario
    found = getattr(scenario, re.split(r"[.=]", flag)[0])
    assert all(getattr(found, key) == value for key, value in VALUES[flag].items())


@pytest.mark.parametrize(("degrees", "size", "shard", "zero"), [
    ({"data_parallel_shard_degree": 8}, 8, 8, 3), ({"data_parallel_replicate_degree": 8}, 8, None, 0),
    ({"data_parallel_replicate_degree": 2, "data_parallel_shard_degree": 4}, 8, 4, 3),
])  # fmt: skip
def test_degrees_of_torchtitan_are_shards_and_replicas(
    degrees: dict[str, int], size: int, shard: int | None, zero: int
) -> None:
    found = load_training("qwen3-train-16", (f"parallel={json.dumps(degrees)}",)).scenario.parallel
    assert (found.data_parallel_size, found.data_parallel_shard_size, found.zero_stage) == (size, shard, zero)


@pytest.mark.parametrize(("override", "said"), [
    ("parallel={data_parallel_shard_degree: -1}", "-1 is no number of ranks"),
    ("parallel={data_parallel_shard_degree: 4, data_parallel_size: 8}", "say data_parallel_size, which is there"),
    ("parallel={data-parallel-sharding-strategy: all}", "'all' is no value of it"),
    ("parallel={use-distributed-optimizer: true, zero_stage: 2}", "zero_stage, which is there already"),
    ("parallel={zero_stage: 0, data_parallel_shard_size: 2}", "nothing is kept in parts with zero_stage 0"),
    ("parallel={data_parallel_size: 8, data_parallel_shard_size: 3, zero_stage: 3}", "3 does not divide 8"),
])  # fmt: skip
def test_shards_that_do_not_fit_are_refused(override: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        run_training("qwen3-train-16", overrides=(override,))


def test_runs_are_compared_trial_by_trial() -> None:
    """Failures are drawn, so that means differ by an interval; the closed form, which nothing is drawn for, decides."""
    shown = yamlfile.read_yaml(shipped.shipped("workloads", "scenarios", "qwen3-train-16.yaml")).data
    runs = [yaml.safe_load(RUN.replace("run=", "").replace("gpu_mtbf: 2 h", f"gpu_mtbf: {h} h")) for h in (20, 2)]
    base, often = ({**shown, "run": {**run, "trials": 40}} for run in runs)
    found, alone = compare(base, often), [run_training(each) for each in (base, often)]
    one, daly = found.metrics["run_s"], [each.provenance["run"]["daly_run_s"] for each in alone]
    assert [one.base, one.variant] == pytest.approx([each.metrics["run_s"].value for each in alone])
    assert 0 < one.low < one.value < one.high and found.metrics["step_time_s"].low == 0
    assert f"slower by {daly[1] / daly[0] - 1:.1%} by Daly's formula; 40 trial(s), paired" in found.verdict()
    assert compare(base, shown).metrics.keys() == run_training(shown).metrics.keys()


def test_one_micro_batch_has_nothing_to_hide_alltoalls_behind() -> None:
    """64 sequences on 8 replicas are eight micro-batches, 8 are one: refused, however they are asked for."""
    each = (*SMALL, "parallel={data_parallel_size: 8, expert_parallel_size: 8}")
    some, few = (f"batch={{sequence_length: 512, global_batch_size: {number}}}" for number in (64, 8))
    hide = "pipeline.hide_alltoall=true"
    plain, hidden = (run_training("qwen3-train-16", overrides=(*each, some, *more)) for more in ((), (hide,)))
    assert hidden.metrics["alltoall_s"].value < plain.metrics["alltoall_s"].value
    with pytest.raises(BadInput, match="8 sequences are one micro-batch on each replica"):
        run_training("qwen3-train-16", overrides=(*each, few, hide))


ROUTER = "routing={router: expert_choice, generator: {popularity: {zipf: 1}}}"


@pytest.mark.parametrize(("overrides", "said"), [
    (("run={steps: 10, checkpoint_rate: 1 GB/s}",), "auto needs something that fails"),
    (("run={steps: 10, checkpoint_rate: 1 GB/s, gpu_mtbf: 1 h}",), "restart: .*missing, and something fails"),
    (("run={steps: 10, checkpoint_rate: 1 GB/s, checkpoint_every: 5, restart: 1 s}",), "nothing fails"),
    ((RUN, "run.straggler_slowdown=1"), "act together"),
    ((RUN, "run.routing_every=10"), "even rows stay even"),
    ((RUN, "routing={sampled: prefill_in4096}", "run.routing_every=10"), "looked up 200 times; at most 64"),
    ((RUN, "run.gpu_mtbf=1 s"), "it never ends"),
    ((RUN, "run.trials=20000"), "run.trials: .*10000"),
    ((RUN, "run.rebalance={}"), "no second look at the load"),
    ((*MOVING, "run.rebalance.strategy=epbl"), "run.rebalance.strategy"),
    ((*MOVING, "parallel.expert_parallel_size=1"), "no expert can move"),
    ((*MOVING, "run.rebalance.strategy=co_activation"), "run.rebalance.strategy: .*co-activation needs tokens.*eplb, "),
    ((*MOVING, "run.rebalance.strategy=top_everywhere"), "no answer where loads are all that is seen"),
    ((*MOVING, "comm={dispatch: nccl}", "training={capacity_factor: 1.25, pad_to_capacity: true}"),
     "run.rebalance: every expert takes as many"),
    ((ROUTER,), "not played in pipelines"),
])  # fmt: skip
def test_runs_that_make_no_sense_are_refused(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        run_training("qwen3-train-16", overrides=(*SMALL, *overrides))


def test_a_router_that_learns_from_step_to_step_evens_rows_out() -> None:
    """Its state is carried over a run: the step gets shorter, and what the run takes is between both."""
    learns = "routing={router: {name: bias_lossfree, u: 0.02}, generator: {popularity: {lognormal: 1}}}"
    series = "run={steps: 90, routing_every: 30, checkpoint_rate: 1 GB/s, checkpoint_every: 90, trials: 2}"
    found = run_training("qwen3-train-16", overrides=(*SMALL, "batch.micro_batches=2", learns, series))
    steps = [one["step_time_s"] for one in found.provenance["run"]["series"]]
    assert len(steps) == 3 and steps[1] < 0.99 * steps[0] and steps[2] == pytest.approx(steps[1], rel=0.02)
    took = found.metrics["run_s"].value - found.metrics["run_checkpoint_s"].value
    assert took == pytest.approx(30 * sum(steps)) and found.metrics["run_failures"].value == 0


def test_experts_that_move_save_what_hot_ones_cost_less_the_moving() -> None:
    """The same hot experts from look to look: the second look spreads them, and the run is shorter by what 30 steps
    save, less the seconds in which experts move.
    """
    found = run_training("qwen3-train-16", overrides=(*SMALL, *MOVING))
    first, second = found.provenance["run"]["series"]
    assert first["moved_experts"] == 0 and first["still_step_time_s"] == first["step_time_s"]
    assert second["step_time_s"] < 0.97 * second["still_step_time_s"] and second["stall_s"] > 0
    gain = 30 * (second["still_step_time_s"] - second["step_time_s"]) - second["stall_s"]
    assert found.metrics["rebalance_gain_s"].value == pytest.approx(gain) and gain > 0
    assert found.metrics["rebalances"].value == 1 and found.metrics["rebalance_stall_s"].value == second["stall_s"]


def test_seconds_in_which_experts_move_are_no_goodput() -> None:
    """Nothing fails: a run is its steps, its stalls and a checkpoint; the steps alone are its goodput."""
    calm = "run={steps: 60, routing_every: 30, checkpoint_rate: 1 GB/s, checkpoint_every: 60, trials: 1, rebalance: {}}"
    found = run_training("qwen3-train-16", overrides=(*SMALL, *MOVING[1:3], calm))
    steps = 30 * sum(one["step_time_s"] for one in found.provenance["run"]["series"])
    whole = found.metrics["run_s"].value
    stands = found.metrics["run_checkpoint_s"].value + found.metrics["rebalance_stall_s"].value
    assert found.metrics["rebalance_stall_s"].value > 0 and whole == pytest.approx(steps + stands)
    assert found.metrics["run_goodput"].value == pytest.approx(steps / whole, rel=1e-12)


def test_a_load_that_moves_is_planned_on_what_was_seen() -> None:
    """Sampled loads drift from look to look: three of four looks are planned, none on the load that it meets."""
    moving = (*MOVING[:1], "routing={sampled: prefill_in4096}", *MOVING[2:], "run.routing_every=15")
    found = run_training("qwen3-train-16", overrides=(*SMALL, *moving))
    assert 1 <= found.metrics["rebalances"].value <= 3 and len(found.provenance["run"]["series"]) == 4


def test_cost_and_energy_of_a_run() -> None:
    """16 GPUs at 2 an hour and 1 kW, for as long as it takes."""
    found = run_training("qwen3-train-16", overrides=(*SMALL, RUN, "prices={gpu_hour: 2, gpu_watts: 1000}")).metrics
    hours = 16 * found["run_s"].value / 3600
    assert found["run_cost"].value == pytest.approx(2 * hours) and found["run_energy"].value == pytest.approx(hours)


def test_a_key_and_its_flag_are_refused() -> None:
    with pytest.raises(BadInput, match="tensor_parallel_size, which is there already"):
        load_training("qwen3-train-16", ("parallel={tensor_parallel_size: 2, tensor-model-parallel-size: 2}",))


def test_what_sharding_moves_is_told_hidden_or_not() -> None:
    """Gathered before each pass, reduced behind the backward one; bf16 there, fp32 back: twice the bytes, twice as long
    but for the start-ups. Nothing hides it without the overlap flags, so the exposed part is all of it.
    """
    three, two, one = (
        run_training("qwen3-train-16", overrides=(*SMALL, f"parallel.zero_stage={stage}")) for stage in (3, 2, 1)
    )
    moved = {name: three.metrics[name].value for name in ("gather_forward_s", "gather_backward_s", "reduce_scatter_s")}
    assert moved["gather_forward_s"] == moved["gather_backward_s"] < moved["reduce_scatter_s"]
    assert three.breakdown["exposed_sharding_s"] == pytest.approx(
        sum(moved.values()), rel=0.2
    )  # the last rank has less
    assert two.metrics["reduce_scatter_s"].value == moved["reduce_scatter_s"] and "gather_forward_s" not in two.metrics
    assert "reduce_scatter_s" not in one.metrics
    rows = {row for rank in three.provenance["stages"] for row in rank["rows"]}
    assert {"gathered layers", "gradients of layers to reduce"} <= rows


@pytest.mark.parametrize("mtbf", ["9000 d", "1 h"])
def test_failures_that_hardly_any_run_meets_are_in_its_goodput(mtbf: str) -> None:
    """Eight trials, of which plain draws of the rarest have none with a failure: near Daly's closed form, and failures
    as often as their rate says.
    """
    every = f"checkpoint_every: 100, gpu_mtbf: {mtbf}, restart: 20 s"
    run = f"run={{steps: 100, trials: 8, checkpoint_rate: 1 GB/s, {every}}}"
    told = run_training("qwen3-train-16", overrides=(*SMALL, run))
    found, daly = told.metrics, told.provenance["run"]["daly_run_s"]
    least = 100 * found["step_time_s"].value + found["run_checkpoint_s"].value
    whole = found["run_s"]
    assert whole.low is not None and whole.high is not None
    assert whole.low <= daly <= whole.high and whole.value - least == pytest.approx(daly - least, rel=0.5)
    rate = 1 / told.provenance["run"]["mtbf_s"]
    assert found["run_failures"].value == pytest.approx(rate * whole.value, rel=0.2)


@pytest.mark.parametrize("mtbf", ["90000 d", "300 h", "30 h"])
def test_intervals_of_rare_failures_hold_what_the_closed_form_says(mtbf: str) -> None:
    """Hardly any fails twice: failures are their rate times Daly's run (Wald). Of one trial nothing is told."""
    fails = f"checkpoint_every: 100, gpu_mtbf: {mtbf}, restart: 1 h"
    run = f"run={{steps: 100, trials: 8, checkpoint_rate: 1 GB/s, {fails}}}"
    told = run_training("qwen3-train-16", overrides=(*SMALL, run))
    known = told.provenance["run"]
    exact = {"run_failures": known["daly_run_s"] / known["mtbf_s"], "run_s": known["daly_run_s"]}
    for name, value in exact.items():
        low, high = told.metrics[name].low, told.metrics[name].high
        assert low is not None and high is not None
        assert low < value <= high * (1 + 1e-9)
    alone = run_training("qwen3-train-16", overrides=(*SMALL, run, "run.trials=1")).metrics["run_s"]
    assert alone.low is None and alone.high is None


def test_stragglers_that_no_trial_meets_are_in_the_interval() -> None:
    slow = "straggler_rate: 1.0e-9, straggler_slowdown: 3"
    run = f"run={{steps: 10, trials: 2, checkpoint_rate: 1 GB/s, checkpoint_every: 10, {slow}}}"
    told = run_training("qwen3-train-16", overrides=(*SMALL, run)).metrics
    more, whole = told["run_straggler_s"], told["run_s"]
    assert more.value == more.low == 0
    assert more.high == pytest.approx(10 * told["step_time_s"].value * 16 * 1e-9 * 2, rel=1e-3)
    assert whole.high is not None and whole.high > whole.value


@pytest.mark.parametrize("stage", [2, 3])
def test_stages_of_both_ends_are_moved_once_for_each_micro_batch(stage: int) -> None:
    """DualPipe's ranks hold two stages and pass half of the micro-batches through each: as 1F1B's move theirs."""
    shape = (f"parallel.zero_stage={stage}",)
    one, dual = (
        run_training("qwen3-train-16", overrides=(*SMALL, *shape, f"pipeline.schedule={order}")).metrics
        for order in ("1f1b", "dualpipe")
    )
    assert dual["reduce_scatter_s"].value == pytest.approx(one["reduce_scatter_s"].value, rel=0.1)


@pytest.mark.parametrize(("sharding", "times"), [
    ("parallel.zero_stage=0", "all"), ("parallel.zero_stage=1", "one"), ("parallel.zero_stage=3", "one"),
])  # fmt: skip
def test_replicas_read_what_they_wrote_parts_of_each(sharding: str, times: str) -> None:
    """Written in parts by all data-parallel ranks; with DDP each reads all of it again."""
    found = run_training("qwen3-train-16", overrides=(*SMALL, RUN, sharding)).metrics
    write, read = found["checkpoint_s"].value, found["checkpoint_read_s"].value
    assert read == pytest.approx(write) if times == "one" else read > 1.5 * write
