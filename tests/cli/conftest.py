"""The command line called in this process: exit code, stdout, stderr, in an empty folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from moesim.cli.main import dispatch, guarded


class Done(NamedTuple):
    code: int
    out: str
    err: str


Moesim = Callable[..., Done]


@pytest.fixture
def moesim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Moesim:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOESIM_TRACEBACK", raising=False)
    monkeypatch.setattr("moesim.report.progress.PATIENCE", 600.0)  # a busy machine must not change what is printed

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        code = guarded(lambda: dispatch(list(arguments)))
        return Done(code, *capsys.readouterr())

    return call
