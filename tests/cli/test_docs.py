"""docs/: the reference is what the command prints, every metric has its formula, and every law its test."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

ROOT = Path(__file__).resolve().parents[2]
STEP = ("step", "serve", "train", "place", "sweep")
DISTRIBUTION = re.compile(r"(mean|median|std|p90|p95|p99)_(\w+)_ms")


def read(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("mode", STEP)
def test_the_reference_is_what_the_command_prints(moesim: Moesim, mode: str) -> None:
    printed = moesim("schema", "--mode", mode, "--table").out
    assert f"## mode: {mode}\n\n{printed}" in read("REFERENCE.md"), "moesim schema --mode ... --table"
    assert not [line for line in printed.splitlines()[2:] if line.endswith("|  |")], "every key says what it is"


@pytest.mark.parametrize(
    "given",
    [
        ("demo-tiny",),
        ("demo-tiny", "--set", "batch.phase=train"),
        ("demo-tiny", "--set", "routing={router: {name: switch_top1, cf: 1.0}, generator: {domains: 2}}"),
        (
            "mixtral-train-pp4",
            "--set",
            "prices={gpu_hour: 2, gpu_watts: 700}",
            "--set",
            "run={steps: 9, checkpoint_rate: 1 GB/s, gpu_mtbf: 9 d, restart: 9 s}",
        ),
        ("qwen3-serve", "--set", "requests.number=20", "--set", "prices={gpu_hour: 2, gpu_watts: 700}"),
    ],
    ids=["step", "train-step", "router", "train", "serve"],
)
def test_every_metric_of_a_result_has_its_formula(moesim: Moesim, given: tuple[str, ...]) -> None:
    told = set(re.findall(r"`([\w.<>]+)`", read("METRICS.md")))
    result = json.loads(moesim("run", *given, "--json").out)
    found = {*result["metrics"], *result["breakdown"]}
    short = {name: name if (many := DISTRIBUTION.fullmatch(name)) is None else many[2] for name in found}
    families = {name.partition(".")[0] for name in told if name.endswith(">")}  # memory.<row>
    lacking = [name for name in found if name not in told and short[name] not in told]
    assert not [name for name in lacking if name.partition(".")[0] not in families]


def test_every_law_has_its_test() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", read("INVARIANTS.md"))
    assert len(named) > 20
    for path, test in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert not test or test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, test


def guided() -> list[str]:
    """The commands of the guides, in their order."""
    blocks = re.findall(r"```sh\n(.*?)```", read("GUIDES.md"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_every_command_of_the_guides_runs(moesim: Moesim) -> None:
    """In one folder: an export is of the run before it."""
    commands = [shlex.split(line) for line in guided()]
    assert len(commands) > 8 and {words[0] for words in commands} == {"moesim"}
    for words in commands:
        done = moesim(*words[1:])
        assert done.code == 0, (words, done.err)
        assert "refused" not in done.out, words
