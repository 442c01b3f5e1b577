"""Hostile YAML, words of the command line, and expressions of --assert."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from trials.hostile.room import Case

YAML: Final[Mapping[str, str]] = {
    "tabs": "a:\n\t- 1", "two documents": "a: 1\n---\nb: 2", "list": "- 1", "scalar": "7",
    "duplicate": "name: a\nname: b",
    "alias": "a: &x [1]\nb: *x", "tag": "a: !!python/object:os.system x", "deep": "a: " + "[" * 5000 + "]" * 5000,
    "bomb": "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]", "merge": "<<: {a: 1}", "number": "a: " + "9" * 5000,
    "control": 'a: "\\e[31m"', "key": '"\\x07": 1', "long": "a: " + "x" * (2 << 20), "unclosed": "a: [1, 2",
    "colon": "a: b: c",
    "binary tag": "a: !!binary x", "question": "? [1]\n: 2", "nodes": "a: [" + "1," * 200_000 + "1]", "nul": "a: \0",
}  # fmt: skip
WORDS: Final[tuple[list[str], ...]] = (
    [], ["zzz"], ["run"], ["run", "--seed", "x"], ["run", "--seed", "-1"], ["run", "demo-tiny", "--set", "a"],
    ["run", "demo-tiny", "--set", "=1"], ["run", "demo-tiny", "--set", "a..b=1"], ["run", "demo-tiny", "--zzz"],
    ["run", "a" * 5000], ["run", "/dev/zero"], ["run", "."], ["run", "demo-tiny", "--out", "/proc/x"],
    ["run", "demo-tiny", "--out", "/dev/null/x"], ["run", "demo-tiny", "demo-tiny"], ["explain", "zzz"], ["report"],
    ["report", "zzz"], ["trace", "stats", "zzz"], ["trace", "import", "zzz", "x", "-o", "y"], ["trace", "zzz"],
    ["trace", "export", "exflow", "zzz", "-o", "o"], ["topo", "show", "zzz"], ["topo", "export", "zzz", "zzz"],
    ["place", "--trace", "zzz"], ["place"], ["validate", "zzz"], ["init", "--like", "zzz"], ["list", "zzz"],
    ["compare", "zzz"], ["compare", "demo-tiny", "--seeds", "0"], ["calibrate", "fit", "zzz"], ["calibrate", "zzz"],
    ["isolation", "zzz"], ["trace", "synth", "zzz", "-o", "o"],
)  # fmt: skip
TARGETS: Final = (
    "", "1", "x < 1", "step_time_s", "step_time_s <", "step_time_s < 1" + "0" * 400, "step_time_s < 1 / 0", "().x < 1",
    "__import__('os') < 1", "step_time_s < 'a'", "step_time_s ** 9 < 1", "(" * 200 + "1",
    "step_time_s < True", "not", "a" * 600, "step_time_s < 1 if 1 else 2", "[1] < [2]", "lambda: 1",
    "step_time_s := 1",
    "step_time_s < 1e999 * 0 and x", "step_time_s \0 < 1", "step_time_s % 2 < 1", "-" * 400,
    "contention_s < 1 < x",
)  # fmt: skip


def yaml_files() -> Iterator[Case]:
    """As a scenario, a topology, a model and a profile."""
    for kind, content in YAML.items():
        for command in (["run", "x.yaml"], ["topo", "show", "x.yaml"], ["run", "demo-tiny", "--set", "model=x.yaml"],
                        ["run", "demo-tiny", "--set", "costs=x.yaml"], ["trace", "synth", "x.yaml", "-o", "o"],
                        ["trace", "synth", "tiny-moe", "--knobs", "x.yaml", "-o", "o"]):  # fmt: skip
            yield Case(f"{kind}: {' '.join(command)}", partial(_written, content, command))


def _written(content: str, command: list[str]) -> list[str]:
    Path("x.yaml").write_text(content)
    return command


def command_line() -> Iterator[Case]:
    """Words that no command takes."""
    for words in WORDS:
        yield Case(" ".join(words)[:60], partial(list, words), must=bool(words))


def targets() -> Iterator[Case]:
    """Expressions."""
    for text in TARGETS:
        words = ["run", "demo-tiny", "--assert", text]
        yield Case(f"--assert {text:.50}", partial(list, words))
