"""Where a case is tried: a forked child in an empty folder, with limits of time and memory."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from moesim.cli.main import dispatch, guarded

SECONDS: Final = 2.0  # of CPU
BYTES: Final = 1 << 30  # beyond what the parent holds
REFUSED: Final = (2, 3)


@dataclass(frozen=True)
class Case:
    """`make` writes files into the current folder and returns the words of a command, or a call that reads them.

    must: it has to be refused; otherwise it may also be harmless.
    """

    label: str
    make: Callable[[], list[str] | Callable[[], object]]
    must: bool = True


@dataclass(frozen=True)
class Verdict:
    """code: of the command. fault: what is wrong with how it ended, or nothing."""

    code: int
    fault: str


def tried(case: Case) -> Verdict:
    """The verdict on a case."""
    folder = tempfile.mkdtemp(prefix="hostile")
    reader, writer = os.pipe()
    start, child = time.monotonic(), os.fork()
    if not child:
        os.close(reader)
        _play(case, folder, writer)
    os.close(writer)
    with os.fdopen(reader) as stream:
        told = stream.read()
    _, status, used = os.wait4(child, 0)
    left = sorted(one.name for one in Path(folder).iterdir())
    shutil.rmtree(folder, ignore_errors=True)
    seconds = used.ru_utime + used.ru_stime
    if not told:
        return Verdict(-1, f"killed by signal {os.WTERMSIG(status)} after {time.monotonic() - start:.1f} s")
    code, err, before = json.loads(told)
    return Verdict(code, _fault(case, code, err, seconds, sorted(set(left) - set(before))))


def _fault(case: Case, code: int, err: str, seconds: float, left: list[str]) -> str:
    lines = [line for line in err.splitlines() if not line.startswith("moesim run ")]
    if code not in (*REFUSED, 0):
        return f"exit {code}: {err[:200]}"
    if code in REFUSED and (len(lines) != 1 or not lines[0].isprintable() or "Traceback" in err):
        return f"not one clear line: {err[:200]!r}"
    if code in REFUSED and left:
        return f"left {left}"
    if not code and case.must:
        return "accepted"
    return f"{seconds:.1f} s of CPU" if seconds > SECONDS else ""


def _play(case: Case, folder: str, writer: int) -> NoReturn:
    """In the child: limits, then the case; what it said goes through the pipe."""
    os.chdir(folder)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + BYTES, held + BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
    err, sys.stdout = io.StringIO(), io.StringIO()
    sys.stderr = err
    made = case.make()
    before = [one.name for one in Path().iterdir()]
    if isinstance(made, list):
        words = made
        code = guarded(lambda: dispatch(words))
    else:
        call = made
        code = guarded(lambda: 0 * bool(call()))
    os.write(writer, json.dumps([code, err.getvalue(), before]).encode())
    os._exit(0)
