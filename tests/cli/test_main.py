"""The error boundary, the lazy verbs, and how fast `--help` answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from moesim.cli.main import guarded
from moesim.cli.verbs import VERBS
from moesim.errors import BadInput, BrokenInvariant, Deadlock, DoesNotFit, TargetMissed, TryAgain
from tests.cli.conftest import Moesim

HEAVY = ("numpy", "numba", "pydantic", "yaml", "plotly", "rich", "simpy", "networkx", "pyarrow", "scipy", "torch")


def moesim(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "moesim", *arguments],
        capture_output=True, text=True, timeout=120, env={**os.environ, **environment},
    )  # fmt: skip


def raising(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("the key is wrong", where="a.yaml:3 cluster", way_out="nodes: 4"), 2),
        (DoesNotFit("HBM needs 90 GB of 80 GB"), 3),
        (TargetMissed("mfu is 0.3"), 4),
        (Deadlock("rank 0 waits for rank 1"), 5),
        (BrokenInvariant("bytes were lost"), 70),
        (TryAgain("disk full"), 75),
        (KeyboardInterrupt(), 130),
        (click.UsageError("no such option"), 2),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2),
        (ZeroDivisionError("division by zero"), 70),
    ],
)
def test_each_failure_is_one_line_and_its_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(raising(error)) == code
    out, line = capsys.readouterr()
    assert out == ""
    assert line.startswith("moesim: ")
    assert line.count("\n") == 1


def test_a_missing_extra_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    guarded(raising(ModuleNotFoundError("No module named 'torch'", name="torch")))
    assert "pip install 'moesim[torch]'" in capsys.readouterr().err


def test_a_defect_says_how_to_see_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MOESIM_TRACEBACK", raising=False)
    guarded(raising(ZeroDivisionError("division by zero")))
    assert "MOESIM_TRACEBACK=1" in capsys.readouterr().err
    monkeypatch.setenv("MOESIM_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        guarded(raising(ZeroDivisionError("division by zero")))


def test_a_mode_taken_for_a_verb_is_told_the_verb(moesim: Moesim) -> None:
    assert "unknown verb 'serve'. Try: did you mean 'run'?" in moesim("serve", "demo-serve").err


def test_help_lists_every_verb_whose_file_exists() -> None:
    text = moesim("--help").stdout
    folder = Path(__file__).parents[2] / "moesim" / "cli"
    there = {name for name, verb in VERBS.items() if (folder / f"{verb.module}.py").exists()}
    listed = {line.split()[0] for line in text.splitlines() if line[:2] == "  " and line[2:3].isalpha()}
    assert there <= listed


def test_help_imports_nothing_heavy_and_takes_less_than_a_fifth_of_a_second() -> None:
    script = (
        "import sys, time, contextlib\n"
        "from moesim.cli.main import main\n"
        "with contextlib.suppress(SystemExit):\n    main(['--help'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], time.process_time(), sep='|', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported, seconds = done.stderr.strip().split("|")
    assert imported == "[]"
    assert float(seconds) < 0.2


def test_an_unknown_verb_names_the_nearest_one() -> None:
    done = moesim("topoo")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_closed_pipe_is_quiet() -> None:
    command = f"'{sys.executable}' -m moesim --help | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


def test_a_closed_stdout_is_no_defect() -> None:
    command = f"'{sys.executable}' -m moesim --help >&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="the system has no device that is always full")
def test_a_full_disk_behind_stdout_means_try_again() -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m moesim --help > /dev/full"], capture_output=True, text=True
    )
    assert done.returncode == 75 and "No space left" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("moesim swe", ["sweep"]),
        ("moesim run demo-t", ["demo-tiny"]),
        ("moesim sweep demo-tiny --qual", ["--quality"]),
        ("moesim topo val", ["validate"]),
    ],
)
def test_a_shell_completes_verbs_scenarios_and_options(line: str, found: list[str]) -> None:
    assert "_MOESIM_COMPLETE=bash_complete" in moesim("completion", "bash").stdout
    asked = {"_MOESIM_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    assert [one.split(",")[1] for one in moesim(**asked).stdout.split()] == found
