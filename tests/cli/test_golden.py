"""Small runs print what they printed before. After a change that is meant to move numbers, write the files anew with
`MOESIM_WRITE_GOLDEN=1 python -m pytest tests/cli/test_golden.py` and read the difference before committing it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

GOLDEN = Path(__file__).parents[1] / "data" / "cli"
NOT_COMPARED = {"moesim"}  # the version


def compared(name: str, text: str) -> str:
    """The stored text, after writing it where that is asked for."""
    file = GOLDEN / name
    if os.environ.get("MOESIM_WRITE_GOLDEN"):
        GOLDEN.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return file.read_text(encoding="utf-8")


def assert_same(found: Any, stored: Any, where: str = "") -> None:
    """Equal, with numbers to nine digits: another processor may round its last ones differently."""
    if isinstance(stored, dict):
        assert list(found) == list(stored), where
        for key in stored.keys() - NOT_COMPARED:
            assert_same(found[key], stored[key], f"{where}.{key}")
    elif isinstance(stored, float):
        assert found == pytest.approx(stored, rel=1e-9), where
    else:
        assert found == stored, where


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("demo-tiny.json", ["demo-tiny"]),
        ("demo-tiny-fluid.json", ["demo-tiny", "--set", "network.level=fluid", "--seed", "3"]),
        ("demo-tiny-fault.json", [
            "demo-tiny", "--set", "faults=[{at: 300 us, link: gpu3/nvlink_up, factor: 0, until: 1 ms}]",
        ]),
        ("demo-tiny-train.json", [
            "demo-tiny", "--set", "batch={phase: train, tokens_per_gpu: 128, context: 64, micro_batches: 2}",
        ]),
    ],
)  # fmt: skip
def test_documents(moesim: Moesim, name: str, arguments: list[str]) -> None:
    done = moesim("run", *arguments, "--json")
    assert done.code == 0, done.err
    assert_same(json.loads(done.out), json.loads(compared(name, done.out)))


def test_text(moesim: Moesim) -> None:
    moesim("run", "demo-tiny", "--out", "run")
    done = moesim("explain", "run")
    assert done.out == compared("demo-tiny.explain.txt", done.out)
