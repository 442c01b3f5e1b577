"""`moesim recommend` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from moesim.studies.serving import run_serving

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

TINY = {
    "moesim": 1, "name": "tiny", "mode": "serve", "model": "tiny-moe", "cluster": {"topology": "dgx-h100", "nodes": 1},
    "parallel": {"tensor_parallel_size": 1}, "comm": {"dispatch": "deepep_low_latency"},
    "routing": {"trace": "tiny-moe", "renew": "never"},
    "requests": {"number": 24, "arrivals": {"closed_loop": {"concurrency": 8}},
                 "input_length": 200, "output_length": 9},
    "scheduler": {"preset": "vllm_dp_ep", "max_num_seqs": 32, "max_num_batched_tokens": 512},
    "prices": {"gpu_hour": 2.0},
}  # fmt: skip


@pytest.fixture
def tiny(moesim: Moesim) -> str:
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    return "tiny.yaml"


def test_the_front_is_what_exhaustive_runs_give_and_its_files_are_run(moesim: Moesim, tiny: str) -> None:
    done = moesim("recommend", tiny, "--gpus", "4", "--out", "s", "--json", "--jobs", "1", "--exhaustive",
                  "--simulate", "4")  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    every = [*found["front"], *found["simulated"]]
    assert len(every) == found["metrics"]["simulated"]["value"] > 8
    goals = []
    for one in every:  # each is what a run of its keys says
        numbers = {name: m.value for name, m in run_serving({**TINY, **one["keys"]}).metrics.items()}
        assert one["tokens_per_s_per_gpu"] == numbers["output_throughput"] / one["gpus"]
        assert one["tokens_per_s_per_user"] == 1e3 / numbers["mean_tpot_ms"]
        goals.append((one["tokens_per_s_per_gpu"], one["tokens_per_s_per_user"]))
    beaten = [any(a[0] >= b[0] and a[1] >= b[1] and a != b for a in goals) for b in goals]
    assert [not one for one in beaten] == [one["front"] is not None for one in every]
    first = found["front"][0]
    assert first["tokens_per_s_per_gpu"] == max(goals)[0]
    assert first["gpu_hours_per_mtok"] == pytest.approx(1e6 / 3600 / first["tokens_per_s_per_gpu"])
    ran = moesim("run", first["file"], "--json")
    assert ran.code == 0, ran.err
    metrics = json.loads(ran.out)["metrics"]
    assert metrics["output_throughput"]["value"] / first["gpus"] == first["tokens_per_s_per_gpu"]
    assert metrics["cost_per_million_output_tokens"]["value"] == pytest.approx(2 * first["gpu_hours_per_mtok"])
    assert 0 < found["metrics"]["share_of_exhaustive"]["value"] <= 1
    assert found["metrics"]["searched"]["value"] <= 4 and "the search alone would have run" in done.err
    before = {str(path): path.read_bytes() for path in Path("s").rglob("*") if path.is_file()}
    again = moesim("recommend", tiny, "--gpus", "4", "--out", "s", "--json", "--jobs", "1", "--exhaustive",
                   "--simulate", "4")  # fmt: skip
    assert json.loads(again.out) == found
    assert {str(path): path.read_bytes() for path in Path("s").rglob("*") if path.is_file()} == before


def test_a_hypervolume_of_nothing_is_not_told(moesim: Moesim, tiny: str) -> None:
    """Of one run that is the corner of its own box."""
    done = moesim("recommend", tiny, "--gpus", "1", "--out", "s", "--jobs", "0", "--simulate", "1",
                  "--set", "scheduler.max_num_seqs=16,32")  # fmt: skip
    assert done.code == 0, done.err
    assert "stored in s" in done.out and "hypervolume" not in done.out


def test_a_budget_is_kept_and_flags_are_printed(moesim: Moesim, tiny: str) -> None:
    done = moesim("recommend", tiny, "--simulate", "3", "--out", "s", "--jobs", "1",
                  "--set", "scheduler.max_num_seqs=16,32")  # fmt: skip
    assert done.code == 0, done.err
    assert "3 simulated" in done.out and len(list(Path("s/points").rglob("*.json"))) == 3
    assert "vllm serve tiny-moe" in done.out and "--tp-size" in done.out


def test_limits_that_nothing_meets_are_said(moesim: Moesim, tiny: str) -> None:
    done = moesim("recommend", tiny, "--gpus", "1", "--set", "slo={ttft: 1 ns}", "--out", "s", "--jobs", "1")
    assert done.code == 3
    assert "at best 0.0% of requests do" in done.err


def test_pools_are_searched_where_they_are_asked_for(moesim: Moesim, tiny: str) -> None:
    done = moesim("recommend", tiny, "--gpus", "2", "--pools", "--out", "s", "--json", "--jobs", "1")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert any("pools" in one["keys"] for one in [*found["front"], *found["simulated"]])
    assert not any("left out" in text for text in found["warnings"])


def test_keys_of_a_pool_that_no_candidate_has_are_named(moesim: Moesim) -> None:
    scale = {"target": 9, "max_replicas": 2, "startup_time": "1 s"}
    pools = {"prefill": {"parallel": {}, "autoscale": scale}, "decode": {"parallel": {}, "comm": {}}}
    own = {key: value for key, value in TINY.items() if key != "parallel"} | {"pools": pools}
    Path("pools.yaml").write_text(yaml.safe_dump(own))
    asked = ("recommend", "pools.yaml", "--gpus", "2", "--simulate", "1", "--jobs", "1")
    done = moesim(*asked, "--out", "s")
    assert done.code == 0 and "pools.prefill.autoscale, pools.decode.comm: left out" in done.out + done.err, done.err
    dead = moesim(*asked, "--out", "dead", "--set", "faults=[{gpu: 0, at: 0 s}, {gpu: 1, at: 0 s}]")
    assert dead.code == 3 and "1 failed, e.g." in dead.err and "lost with their replicas" in dead.err, dead.err


def test_training_layouts_are_ranked_by_their_own_runs(moesim: Moesim) -> None:
    done = moesim("recommend", "mixtral-train-pp4", "--set", "model=tiny-moe", "--set", "batch.micro_batches=8",
                  "--gpus", "4", "--out", "s", "--json", "--jobs", "1")  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    best = found["front"][0]
    assert best["tokens_per_s_per_gpu"] == max(
        one["tokens_per_s_per_gpu"] for one in [*found["front"], *found["simulated"]]
    )
    ran = moesim("run", best["file"], "--json")
    assert json.loads(ran.out)["metrics"]["tokens_per_s_per_gpu"]["value"] == best["tokens_per_s_per_gpu"]
    assert "--pipeline-model-parallel-size" in best["flags"]["Megatron"]


def test_a_searched_key_that_is_given_holds(moesim: Moesim, tiny: str) -> None:
    """Of one value in training, of two in serving: every deployment that was run has it."""
    train = ("mixtral-train-pp4", "--set", "model=tiny-moe", "--set", "batch.micro_batches=12", "--gpus", "3")
    for scenario, key, values in ((train, "pipeline.schedule", ["zb-h1"]),
                                  (train, "parallel.pipeline_parallel_size", [1, 3]),
                                  ((tiny, "--gpus", "4"), "parallel.tensor_parallel_size", [1, 4])):  # fmt: skip
        held = f"{key}={','.join(map(str, values))}"
        done = moesim("recommend", *scenario, "--set", held, "--json")
        assert done.code == 0, done.err
        found = json.loads(done.out)
        section, name = key.split(".")
        said = [one["keys"][section].get(name, 1) for one in [*found["front"], *found["simulated"]]]
        assert set(said) == set(values), (key, said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["demo-tiny"], "mode step has no deployment to search"),
        (["no-such"], "unknown scenario"),
        (["tiny.yaml", "--gpus", "9"], "9 GPUs, the cluster has 8"),
        (["tiny.yaml", "--set", "replicas=3", "--gpus", "2"], "--set replicas: no deployment has 3. Try: 1, 2"),
        (["tiny.yaml", "--set", "replicas=1,3", "--gpus", "2"], "--set replicas: no deployment has 3. Try: 1, 2"),
        (["tiny.yaml", "--set", "parallel={}"], "one of its keys, as parallel.tensor_parallel_size=4"),
        (["dsv3-pools", "--set", "pools.decode.parallel={expert_parallel_size: 2}"], "of its keys, as pools.decode."),
        (["dsv3-pools", "--set", "pools.decode={replicas: 2}"], "one of its keys, as pools.decode.replicas=2"),
        (["dsv3-pools", "--set", "pools.decode.scheduler.max_num_seqs=8"], "Try: scheduler.max_num_seqs, which holds"),
        (["mixtral-train-pp4", "--set", "parallel.zero_stage=1,2"], "is not searched, and takes one value"),
        (["mixtral-train-pp4", "--set", "pipeline.hide_alltoall=true,false"], "Try: pipeline.hide_alltoall=true"),
        (["tiny.yaml", "--set", "requests.number=1..9"], "needs values"),
        (["tiny.yaml", "--set", "requests.numbr=3"], "did you mean 'number'?"),
        (["tiny.yaml", "--attain", "2"], "2.0 is not in the range"),
        (["tiny.yaml", "--set", "scheduler.max_num_seqs=0,-1"], "max_num_seqs"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused(moesim: Moesim, tiny: str, words: list[str], said: str) -> None:
    done = moesim("recommend", *words)
    assert done.code == 2
    assert said in done.err
    assert sorted(Path().iterdir()) == [Path(tiny)]
