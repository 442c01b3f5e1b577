"""`moesim calibrate measure` and `truth` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from moesim.calibration.truth.rank import Name
from moesim.calibration.truth.setting import Routing
from moesim.calibration.truth.verdict import Cell, Verdict
from moesim.cli.main import dispatch, guarded

PLAN = """
moesim_plan: 1
name: two-copies
device: cpu
operators: [copy_h2d, all_reduce]
models: []
dtypes: [fp32]
tokens: [1]
sizes: [4 KiB, 8 KiB]
sampling: {warm_up: 1 ms, stable: 0.9, least: 10, most: 10}
"""


def command(*words: str) -> int:
    return guarded(lambda: dispatch(["calibrate", *words]))


def test_a_plan_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(PLAN)
    words = ("measure", "--plan", str(tmp_path / "mine.yaml"), "-o", str(tmp_path / "run"), "--json")
    assert command(*words) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["metrics"]["measured"]["value"] == 4 and found["complete"]  # two copies, two sentinels
    assert "left out: all_reduce: needs 2 ranks" in said.err and "time" not in found["warnings"]
    assert (tmp_path / "run" / "records.parquet").is_file()
    assert (
        f"next: moesim calibrate fit {tmp_path / 'run' / 'records.parquet'} -o my-cpu --topology cpu-host" in said.err
    )
    assert command(*words) == 0  # nothing is left to do


def test_no_budget_no_records_and_nothing_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(PLAN)
    assert command("measure", "--plan", str(tmp_path / "mine.yaml"), "--budget", "0s", "-o", str(tmp_path / "run")) == 0
    assert "the same command goes on with the cases that are left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budget", "20 parsecs"), "is not a unit of duration"),
        (("--models", "Qwen/Qwen9"), "unknown model"),
        (("--plan", "gpu-20m"), "sees no GPU"),
        (("--plan", "cpu"), "known: cpu-example, cpu-smoke, gpu-20m"),
    ],
)
def test_what_is_wrong_is_said(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command("measure", *words, "-o", str(tmp_path / "run")) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_truth_above_the_gate_fails(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    name = Name(Routing(1, 128), "loop", "pass")
    outcomes = iter([Cell(name, 0, 1e-3, 1.3e-3, 0.0), Cell(name, 0, 1e-3, 1.3e-3, 0.2)])
    monkeypatch.setattr("moesim.calibration.truth.verdict.truth_loop", lambda setting: Verdict((next(outcomes),)))
    assert command("truth", "--json") == 4
    assert "above the gate" in capsys.readouterr().err
    assert command("truth", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["outcomes"] == ["INCONCLUSIVE"] and "INCONCLUSIVE" in said.err


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(PLAN)
    words = ("measure", "--plan", str(tmp_path / "mine.yaml"), "-o")
    assert command(*words, str(tmp_path / "mine.yaml")) == 2
    assert "mine.yaml: is a file. Try: -o names the folder" in capsys.readouterr().err
    assert command("fit", str(tmp_path), "-o", str(tmp_path / "p.yaml")) == 2
    assert "is a folder. Try: " in capsys.readouterr().err


def test_cases_that_fail_alike_are_one_line_and_the_rest_is_a_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way from a plan to a priced run, by the commands that each step names."""
    plan = PLAN.replace("[copy_h2d, all_reduce]", "[gemm, attention_decode]").replace(
        "models: []", "models: [tiny-moe]"
    )
    plan += "sdpa: [flash, cudnn]\nbatches: [1, 2]\ncontexts: [8, 16]\ndrift: 0.9\n"
    (tmp_path / "mine.yaml").write_text(plan.replace("fp32", "bf16").replace("tokens: [1]", "tokens: [1, 4, 64]"))
    assert command("measure", "--plan", str(tmp_path / "mine.yaml"), "-o", str(tmp_path / "run")) == 0
    said = capsys.readouterr().out
    assert "failed: 4 of attention_decode torch_sdpa_cudnn: No viable backend" in said
    follow = next(line for line in said.splitlines() if line.startswith("next: ")).split()[3:]
    follow[follow.index("-o") + 1] = str(tmp_path / "my-cpu")
    assert command(*follow, "--prior", "none") == 0
    said = capsys.readouterr().out
    assert "torch_sdpa_flash" in said and "torch_linear" in said
    assert command("check", str(tmp_path / "my-cpu.yaml"), "--against", follow[1]) == 2
    assert "Try: --topology cpu-host" in capsys.readouterr().err
