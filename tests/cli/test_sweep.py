"""`moesim sweep` from the command line: points are runs, stored once, and nothing that goes wrong is lost."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from moesim.studies import run

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

TOKENS = "batch.tokens_per_gpu=16,32"


def stored(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_points_are_what_run_says_and_the_same_command_runs_nothing_again(moesim: Moesim) -> None:
    command = [
        "sweep",
        "demo-tiny",
        "--set",
        TOKENS,
        "--set",
        "batch.context=64",
        "--out",
        "s",
        "--json",
        "--jobs",
        "2",
    ]
    first = moesim(*command)
    assert first.code == 0, first.err
    document = json.loads(first.out)
    for row, tokens in zip(document["points"], (16, 32), strict=True):
        alone = run("demo-tiny", overrides=[f"batch.tokens_per_gpu={tokens}", "batch.context=64"])
        assert row["step_time_s"] == alone.metrics["step_time_s"].value
        assert row["breakdown.imbalance_s"] == alone.breakdown["imbalance_s"]
    before = stored(Path("s"))
    again = moesim(*command)
    assert "0 run now" in again.err
    assert json.loads(again.out) == document
    assert stored(Path("s")) == before
    table = pq.read_table("s/results.parquet").to_pylist()
    lines = list(csv.DictReader(Path("s/results.csv").read_text().splitlines()))
    assert [float(line["step_time_s"]) for line in lines] == [row["step_time_s"] for row in table]
    assert [row["step_time_s"] for row in table] == [row["step_time_s"] for row in document["points"]]


def test_a_larger_grid_runs_only_what_is_new_and_a_damaged_point_is_run_again(moesim: Moesim) -> None:
    assert moesim("sweep", "demo-tiny", "--set", "batch.tokens_per_gpu=16", "--out", "other", "--jobs", "1").code == 0
    moesim("sweep", "demo-tiny", "--set", TOKENS, "--out", "s", "--jobs", "1")
    whole = stored(Path("s"))
    point = next(Path("s/points").rglob("*.json"))
    damaged = bytearray(point.read_bytes())
    damaged[-20] ^= 1
    point.write_bytes(damaged)
    mended = moesim("sweep", "demo-tiny", "--set", TOKENS, "--out", "s", "--jobs", "1")
    assert "1 run now" in mended.out
    assert "damaged" in mended.out
    assert stored(Path("s")) == whole
    larger = moesim("sweep", "demo-tiny", "--set", f"{TOKENS},48", "--out", "s", "--jobs", "1")
    assert "1 run now" in larger.out


def test_a_point_that_cannot_be_is_recorded_and_the_others_finish(moesim: Moesim) -> None:
    done = moesim("sweep", "demo-tiny", "--set", "parallel.data_parallel_size=8,16", "--out", "s", "--json")
    assert done.code == 2
    fine, refused = json.loads(done.out)["points"]
    assert fine["step_time_s"] > 0 and fine["code"] == 0
    assert refused["step_time_s"] is None and "the cluster has 8 GPUs" in refused["reason"]
    unfit = moesim("sweep", "demo-tiny", "--set", "batch.tokens_per_gpu=16", "--set", "batch.context=64,1000000000")
    assert unfit.code == 0  # what does not fit is an answer
    assert "does not fit" in unfit.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "batch.token_per_gpu=1,2"], "did you mean 'tokens_per_gpu'?"),
        (["--set", "nothing.at_all=1,2"], "unknown key"),
        (["--set", "batch.tokens_per_gpu=1..9"], "an interval has no values of its own"),
        (["--set", "batch.tokens_per_gpu=1,2", "--set", "batch.tokens_per_gpu=3,4"], "varied twice"),
        (["--set", "batch.tokens_per_gpu=1,2", "--points", "3"], "as many points as its values make"),
        (["--set", "batch.tokens_per_gpu=9..1", "--design", "latin", "--points", "3"], "no interval"),
        (["--set", "batch.tokens_per_gpu=1,2,3", "--set", "batch.context=1,2", "--design", "zipped"], "equally many"),
        (["--set", "batch.tokens_per_gpu=a,b"], "valid integer"),
        (["--set", "batch.tokens_per_gpu=64,"], "has an empty value"),
        (["--set", "error.network=x,y"], "no number"),
        (["--design", "latin", "--points", "1000000000"], "1,000,000,000 points, 1,000,000 at most"),
        ([*(word for key in ("batch.tokens_per_gpu", "batch.context", "experts.redundant")
            for word in ("--set", f"{key}={','.join(map(str, range(1, 1001)))}"))], "1,000,000,000 points"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_refused_before_anything_is_made(
    moesim: Moesim, options: list[str], said: str
) -> None:  # fmt: skip
    done = moesim("sweep", "demo-tiny", *options)
    assert done.code == 2
    assert said in done.err
    assert list(Path().iterdir()) == []


def test_seeds_of_what_draws_nothing_are_refused(moesim: Moesim) -> None:
    done = moesim("sweep", "qwen3-train-16", "--set", "batch.micro_batches=64,128", "--seeds", "2")
    assert done.code == 2 and "2 runs of each point would be equal" in done.err


def test_stores_that_are_not_this_sweeps_are_refused(moesim: Moesim) -> None:
    assert moesim("sweep", "demo-tiny", "--set", "batch.tokens_per_gpu=16", "--out", "s", "--jobs", "1").code == 0
    shutil.copytree("s", "old")
    head = json.loads(Path("s/store.json").read_text())
    Path("old/store.json").write_text(json.dumps({**head, "moesim": "0.0.1"}))
    one = ["sweep", "demo-tiny", "--set", "batch.tokens_per_gpu=16"]
    assert "is a store of moesim 0.0.1" in moesim(*one, "--out", "old").err
    other = moesim("sweep", "demo-tiny", "--set", "batch.context=64", "--out", "s")
    assert other.code == 2 and "the store of another scenario" in other.err
    assert moesim("sweep", "demo-tiny", "--set", "name=b", "--set", "batch.tokens_per_gpu=16", "--out", "b").code == 0
    point = next(Path("b/points").rglob("*.json")).relative_to("b")
    (Path("s") / point).write_bytes((Path("b") / point).read_bytes())  # name is no part of the key
    mixed = moesim(*one, "--out", "s")
    assert mixed.code == 2 and "two stores are mixed" in mixed.err
    Path("full").mkdir()
    Path("full/letter.txt").write_text("mine")
    assert "holds letter.txt" in moesim(*one, "--out", "full").err
    Path("plain").write_text("mine")
    assert moesim(*one, "--out", "plain").code == 2


def test_one_file_sweeps_requests_training_and_placements(moesim: Moesim, tmp_path: Path) -> None:
    served = moesim("sweep", "qwen3-serve", "--set", "requests.number=4", "--set", "replicas=1,2", "--json")
    assert served.code == 0, served.err
    assert all(row["output_throughput"] > 0 for row in json.loads(served.out)["points"])
    (tmp_path / "train.yaml").write_text(
        "sweep: 1\nscenario: demo-tiny\nset: {batch: {phase: train, tokens_per_gpu: 64, context: 64}}\n"
        "over: {batch.micro_batches: [1, 2]}\n"
    )
    trained = json.loads(moesim("sweep", "train.yaml", "--json").out)["points"]
    assert trained[0]["step_time_s"] < trained[1]["step_time_s"]
    (tmp_path / "place.yaml").write_text(
        "sweep: 1\nscenario: {moesim: 1, mode: place, trace: tiny-moe, topology: dgx-h100, gpus: 8,"
        " simulate: false, strategies: [lpt]}\nover: {gpus: [4, 8]}\n"
    )
    placed = moesim("sweep", "place.yaml", "--json")
    assert placed.code == 0, placed.err
    assert [row["gpus"] for row in json.loads(placed.out)["points"]] == [4, 8]
    wrong = moesim("sweep", "place.yaml", "--set", "gpu=8")
    assert wrong.code == 2 and "did you mean 'gpus'?" in wrong.err


def test_a_pipelined_training_step_is_swept(moesim: Moesim) -> None:
    done = moesim("sweep", "dsv3-train-2048", "--set", "batch.micro_batches=60,120", "--jobs", "1", "--json")
    assert done.code == 0, done.err
    short, long = json.loads(done.out)["points"]
    assert 1 < long["step_time_s"] / short["step_time_s"] < 2  # the bubble is filled and emptied once in both
    assert long["mfu_megatron"] > short["mfu_megatron"]


def test_fewer_points_than_were_asked_for_are_said_and_a_named_column_is_shown(moesim: Moesim) -> None:
    few = ["sweep", "demo-tiny", "--set", "batch.tokens_per_gpu=1..2", "--design", "latin", "--jobs", "1"]
    done = moesim(*few, "--points", "8", "--show", "mean_k")
    assert "8 points were asked for, 2 of them differ" in done.out and "mean_k" in done.out
    axes = json.loads(moesim(*few, "--points", "8", "--json").out)["provenance"]["axes"]
    assert axes == {"batch.tokens_per_gpu": "1..2"}


def test_an_error_of_a_cost_moves_the_step_as_much_as_it_should(moesim: Moesim) -> None:
    done = moesim("sweep", "demo-tiny", "--set", "error.grouped_gemm=1.0,2.0,3.0", "--json")
    one, two, three = (row["breakdown.ideal_compute_s"] for row in json.loads(done.out)["points"])
    assert two > one
    assert three - two == pytest.approx(two - one, rel=1e-3)
    unknown = moesim("sweep", "demo-tiny", "--set", "error.magic=1.0,2.0")
    assert unknown.code == 2 and "unknown family of costs 'magic'" in unknown.out


def test_quality_of_a_table_makes_a_front_and_a_mistyped_metric_ends_the_sweep_early(moesim: Moesim) -> None:
    Path("q.csv").write_text("precision.experts,accuracy\nbf16,0.80\nfp8,0.79\n")
    asked = ["sweep", "demo-tiny", "--out", "s", "--jobs", "0"]
    both = [*asked, "--set", "precision.experts=bf16,fp8", "--quality", "q.csv"]
    slip = moesim(*both, "--show", "step_tim_s")
    assert slip.code == 2 and "did you mean 'step_time_s'" in slip.err
    assert len(list(Path("s/points").rglob("*.json"))) == 1
    done = moesim(*both, "--front", "quality.accuracy:max,step_time_s:min", "--json", "--report=q.html")
    document = json.loads(done.out)
    assert document["front"] == [0, 1] and [row["quality.accuracy"] for row in document["points"]] == [0.80, 0.79]
    assert document["provenance"]["quality"]["join"] == ["precision.experts"]
    assert "quality.accuracy" in Path("q.html").read_text() and "quality.accuracy" in Path("s/results.csv").read_text()
    beyond = moesim(*asked, "--set", "precision.experts=fp8,nvfp4", "--quality", "q.csv")
    assert beyond.code == 2 and "q.csv: has no line for precision.experts=nvfp4" in beyond.err
