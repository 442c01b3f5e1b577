"""README: every line that it shows as output is printed by the command above it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def transcripts() -> list[tuple[str, list[str]]]:
    """(command, output lines) of every `$ moesim ...` in a console block."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", README, flags=re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            else:
                found[-1][1].append(line)
    return found


ALL = "moesim validate all"  # 20 s: tests/cli/test_validate.py plays it once, and holds these lines too
HERE = [(command, lines) for command, lines in transcripts() if command != ALL]


@pytest.mark.parametrize(("command", "lines"), HERE, ids=[command for command, _ in HERE])
def test_a_command_prints_the_lines_below_it(moesim: Moesim, command: str, lines: list[str]) -> None:
    done = moesim(*shlex.split(command)[1:])
    check_printed(done.out + done.err, lines)


def check_printed(text: str, lines: list[str]) -> None:
    """Each line stands in the text, or begins one of its lines."""
    printed = [" ".join(line.split()) for line in text.splitlines()]
    for line in lines:
        wanted = " ".join(line.split())
        assert any(text == wanted or text.startswith(wanted + " ") for text in printed), wanted
