"""Sweeps that are killed, raced and starved of disk lose nothing that was finished and leave nothing torn.

    python -m trials.durability [--kills 200] [--races 50] [--seed 0]

Kills: a sweep in a process is ended (SIGKILL) at a random moment, again and again on one store, and started anew once
it is done; after each end it is resumed to its end every so often, and the store has to be equal, byte by byte, to
that of a sweep that nobody disturbed. Races: two processes on one new store at once; one may be told to wait (75).
Disk full: a store on a tmpfs of 256 KiB (needs root) has to end with 75, and to go on where there is room.
The sweep's points are worked out by a process of its own, forked from this one so that what is killed is at work on its
store and not importing, but not simulated (a store is what is tried here), each in a few milliseconds. Exits with 1
where anything is lost.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NoReturn

from moesim.errors import MoesimError
from moesim.studies.sweeping import Plan, Point, read_plan, sweep
from moesim.studies.sweeping.executor import Answer
from moesim.studies.sweeping.subject import Subject

POINTS: Final = 60
SECONDS: Final = 0.01  # of a point
SMALL: Final = "256k"  # of the tmpfs
BEGUN: Final = "begun"
DONE: Final = "all stored"


class Drawn:
    """An executor whose points have numbers that are drawn from what they are, and take a while."""

    def run(self, subject: Subject, points: Sequence[Point]) -> Iterator[Answer]:
        """See Executor; every seventh fails."""
        for point in points:
            time.sleep(SECONDS)
            number = int(hashlib.sha256(point.key.encode()).hexdigest()[:8], 16)
            if number % 7 == 0:
                yield Answer(point, 70, reason=f"drawn {number}")
            else:
                metrics = {f"metric_{n}": {"value": number / (n + 1), "unit": "s"} for n in range(40)}
                yield Answer(point, 0, {"metrics": metrics, "breakdown": {}, "warnings": []})


def plan() -> Plan:
    """The sweep that is tried."""
    return read_plan("demo-tiny", [f"batch.tokens_per_gpu={','.join(str(n) for n in range(1, POINTS + 1))}"])


@dataclass(frozen=True)
class Child:
    """A process that sweeps into a folder, and the end of its pipe."""

    process: ForkProcess
    pipe: Connection

    @classmethod
    def started(cls, folder: Path) -> Child:
        """Forked."""
        context = get_context("fork")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(folder, theirs))
        process.start()
        theirs.close()
        return cls(process, ours)

    def begun(self) -> None:
        """Wait until it is about to sweep."""
        self.pipe.recv()

    def ended(self) -> tuple[int, str]:
        """(exit code, what it said), once it is over: "" where it was killed before it could say so."""
        self.process.join()
        said = BEGUN
        with suppress(EOFError):
            while True:
                said = str(self.pipe.recv())
        self.pipe.close()
        return self.process.exitcode or 0, "" if said == BEGUN else said


def _child(folder: Path, pipe: Connection) -> NoReturn:
    pipe.send(BEGUN)
    try:
        sweep(plan(), folder=folder, executor=Drawn())
    except MoesimError as error:
        pipe.send(str(error))
        sys.exit(error.exit_code)
    pipe.send(DONE)
    sys.exit(0)


def content(folder: Path) -> dict[str, bytes]:
    """name -> bytes of every file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def kills(base: Path, expected: dict[str, bytes], number: int, draw: random.Random) -> int:
    """How many of the resumed stores differ from the undisturbed one; the store is begun anew when it is whole."""
    wrong = ended = finished = 0
    folder = base / "killed"
    while ended < number:
        child = Child.started(folder)
        child.begun()
        time.sleep(draw.uniform(0.0, 0.6 * POINTS * SECONDS))
        child.process.kill()
        ended += child.ended()[1] != DONE
        left = len(content(folder).keys() & expected.keys()) if folder.is_dir() else 0
        torn = [name for name, text in (content(folder) if left else {}).items()
                if name.startswith("points") and not name.endswith(".part") and text != expected.get(name)]  # fmt: skip
        wrong += bool(torn)
        if left >= len(expected) - 2 or ended == number or draw.random() < 0.2:
            finished += 1
            sweep(plan(), folder=folder, executor=Drawn())
            wrong += content(folder) != expected
            shutil.rmtree(folder)
    print(
        f"{ended} kills while a sweep ran, {finished} times resumed to the end: {wrong} differ from an undisturbed one"
    )
    return wrong


def races(base: Path, expected: dict[str, bytes], number: int) -> int:
    """How many races of two writers end otherwise than whole, with codes 0 and 75 (or 0 and 0)."""
    wrong = waited = 0
    for _ in range(number):
        folder = base / "raced"
        both = [Child.started(folder) for _ in range(2)]
        codes = [child.ended()[0] for child in both]
        waited += 75 in codes
        wrong += 0 not in codes or not set(codes) <= {0, 75} or content(folder) != expected
        shutil.rmtree(folder)
    print(f"{number} races of two writers, in {waited} one was told to wait: {wrong} ended otherwise than whole")
    return wrong


def full(base: Path, expected: dict[str, bytes]) -> int:
    """1 where a full disk ends otherwise than with 75, or what was stored is not whole."""
    small = base / "small"
    small.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(small)], capture_output=True)
    if made.returncode:
        print("disk full: not tried, no tmpfs can be mounted here")
        return 0
    try:
        code, said = Child.started(small / "store").ended()
        stored = content(small / "store")
        torn = [name for name, text in stored.items() if name.startswith("points") and text != expected.get(name)]
        shutil.copytree(small / "store", base / "moved")
    finally:
        subprocess.run(["umount", str(small)], check=True)
    sweep(plan(), folder=base / "moved", executor=Drawn())
    wrong = code != 75 or bool(torn) or content(base / "moved") != expected
    print(f"disk full after {len(stored)} files: exit code {code} ({said.strip()[-90:]}); resumed "
          f"elsewhere: {'differs' if wrong else 'equal'}")  # fmt: skip
    return int(wrong)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where nothing was lost."""
    parser = argparse.ArgumentParser(description="kill, race and starve sweeps")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--races", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    with TemporaryDirectory() as base:
        sweep(plan(), folder=Path(base, "whole"), executor=Drawn())
        expected = content(Path(base, "whole"))
        wrong = kills(Path(base), expected, given.kills, random.Random(given.seed))
        wrong += races(Path(base), expected, given.races) + full(Path(base), expected)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
