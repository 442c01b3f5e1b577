"""A sweep as jobs of Slurm: submitit's own processes, and a cluster of three small scripts."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from moesim.errors import TryAgain
from moesim.studies.sweeping import read_plan, sweep
from moesim.studies.sweeping.executor import LOST, Here
from moesim.studies.sweeping.on_slurm import Slurm
from moesim.studies.sweeping.subject import Subject

submitit = pytest.importorskip("submitit", reason="submitit is not installed: pip install 'moesim[slurm]'")
SBATCH = """#!/bin/bash
file=${@: -1}
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$file")
(for task in $(seq 0 "$last"); do
  SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=$((8 + task)) SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 \\
    SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_JOB_NODELIST=here bash "$file"
  echo "7_$task|COMPLETED|here" >> "$SLURM_LEDGER"
done) > /dev/null 2>&1 &
echo "Submitted batch job 7"
"""
SRUN = """#!/bin/bash
while [[ $1 != */python* ]]; do shift; done
exec "$@"
"""
SACCT = """#!/bin/bash
echo "JobID|State|NodeList"
cat "$SLURM_LEDGER" 2> /dev/null
true
"""


@dataclass(frozen=True)
class Deadly(Subject):
    """The point of 32 tokens ends its process."""

    def play(self, overrides: Sequence[str], seed: int) -> Mapping[str, Any]:
        if overrides[0].endswith("=32"):
            os.kill(os.getpid(), signal.SIGKILL)
        return {"metrics": {"x": {"value": 1.0, "unit": "1"}}, "breakdown": {}, "warnings": []}


def test_jobs_answer_as_this_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = read_plan("demo-tiny", ["batch.context=64,100000000"])
    there, here = (sweep(plan, folder=Path(type(e).__name__), executor=e) for e in (Slurm(1, "local"), Here()))
    assert [(one.code, one.record) for one in there.kept] == [(one.code, one.record) for one in here.kept]
    assert len(here.done) == 1 and not list(tmp_path.glob(".moesim-slurm-*"))


def test_a_job_that_dies_takes_its_own_point_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    __import__("cloudpickle").register_pickle_by_value(sys.modules[__name__])
    plan = read_plan("demo-tiny", ["batch.tokens_per_gpu=31,32,33,34,35,36"])
    deadly = Deadly(plan.subject.name, plan.subject.mode, plan.subject.base)
    monkeypatch.setattr(submitit.core.core.Job, "_results_timeout_s", 0)
    found = sweep(replace(plan, subject=deadly), folder=Path("s"), executor=Slurm(1, "local"))
    assert [one.code for one in found.kept] == [0, LOST, 0, 0, 0, 0]
    assert "Slurm, 2 times" in found.kept[1].record["reason"]


def test_where_there_is_no_slurm_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TryAgain, match="no Slurm here.*Try: a login node"):
        sweep(read_plan("demo-tiny", ["batch.tokens_per_gpu=16,32"]), folder=Path("s"), engine="slurm")


def test_an_array_goes_through_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": "#!/bin/bash\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_LEDGER", str(tmp_path / "ledger"))
    found = sweep(read_plan("demo-tiny", ["batch.tokens_per_gpu=16,32"]), folder=Path("s"), engine="slurm", jobs=1)
    assert [one.code for one in found.kept] == [0, 0], found.kept[0].record["reason"]
