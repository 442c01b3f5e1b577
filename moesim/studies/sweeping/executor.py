"""Executors: whatever runs points and says, one by one, how they went: processes of this machine, or this one alone.

A process is started anew where it died: the point that it had in hand is tried once more, and then recorded as lost, so
that one point which ends its process (memory, a defect of compiled code) takes no other with it. Workers hold nothing
on disk: when the sweep goes, however, they go.
"""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Final, Protocol

from moesim.errors import BrokenInvariant, MoesimError
from moesim.studies.sweeping.plan import Point
from moesim.studies.sweeping.subject import Subject

TRIES: Final = 2  # of a point whose process ends
DEFECT: Final = 70
NO_MEMORY: Final = 3
LOST: Final = -1  # code of a point that was never answered: a resume runs it again


@dataclass(frozen=True)
class Answer:
    """How a point went. code: 0, the exit code of what refused it, or LOST; result: its document where code is 0."""

    point: Point
    code: int
    result: dict[str, Any] | None = None
    reason: str = ""


class Executor(Protocol):
    """Runs points in any order."""

    def run(self, subject: Subject, points: Sequence[Point]) -> Iterator[Answer]:
        """An answer for each point, as soon as it is there."""


def answer(subject: Subject, point: Point) -> tuple[int, dict[str, Any] | None, str]:
    """(exit code, document, reason) of a run, whatever it raises."""
    try:
        return 0, dict(subject.play(point.overrides, point.seed)), ""
    except MoesimError as error:
        return error.exit_code, None, str(error)
    except MemoryError:
        return NO_MEMORY, None, "this asks for more memory than there is"
    except Exception as error:
        return DEFECT, None, f"{type(error).__name__}: {' '.join(str(error).split())} (a defect of moesim)"


@dataclass(frozen=True)
class Here:
    """This very process, one point after the other: none has to be started, and a point that ends it ends all."""

    def run(self, subject: Subject, points: Sequence[Point]) -> Iterator[Answer]:
        """See Executor."""
        return (Answer(point, *answer(subject, point)) for point in points)


@dataclass
class _Worker:
    """A process and the end of its pipe; point: in hand, number of the try."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    point: Point | None = None
    tries: int = 0

    @classmethod
    def started(cls, subject: Subject) -> _Worker:
        ours, theirs = Pipe()
        command = [sys.executable, "-m", "moesim.studies.sweeping.worker", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, process_group=0)  # fmt: skip
        theirs.close()
        worker = cls(process, ours)
        worker.send(subject)
        return worker

    def send(self, message: object) -> None:
        """A process that is no more is noticed where its answer is read."""
        try:
            self.pipe.send(message)
        except OSError:
            return

    def take(self, point: Point, tries: int = 1) -> None:
        """Hand over a point."""
        self.point, self.tries = point, tries
        self.send(point)

    def stop(self) -> None:
        """End it now."""
        self.pipe.close()
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Processes:
    """So many processes on this machine."""

    jobs: int

    def run(self, subject: Subject, points: Sequence[Point]) -> Iterator[Answer]:
        """See Executor."""
        with closing(Pool(self.jobs)) as pool:
            yield from pool.run(subject, points)


@dataclass
class Pool:
    """Processes that stay from one run to the next, all of one subject, until they are closed; 0: this one."""

    jobs: int
    workers: list[_Worker] = field(default_factory=list)

    def run(self, subject: Subject, points: Sequence[Point]) -> Iterator[Answer]:
        """See Executor."""
        if not self.jobs:
            yield from Here().run(subject, points)
            return
        waiting = deque((point, 1) for point in points)
        while len(self.workers) < min(self.jobs, len(points)):
            self.workers.append(_Worker.started(subject))
        for worker, _ in zip(self.workers, points, strict=False):
            worker.take(*waiting.popleft())
        while busy := {worker.pipe: worker for worker in self.workers if worker.point is not None}:
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                answer = self._answer(worker, subject, waiting)
                if waiting:
                    worker.take(*waiting.popleft())
                if answer is not None:
                    yield answer

    def close(self) -> None:
        """End all of them now."""
        for worker in self.workers:
            worker.stop()
        self.workers.clear()

    def _answer(self, worker: _Worker, subject: Subject, waiting: deque[tuple[Point, int]]) -> Answer | None:
        """What a worker says; of one that died its point goes back into the queue, or is lost."""
        point, worker_tries = worker.point, worker.tries
        if point is None:
            raise BrokenInvariant("a worker without a point answers")
        worker.point = None
        try:
            code, result, reason = worker.pipe.recv()
        except (EOFError, OSError):
            ended = worker.process.wait()
            fresh = _Worker.started(subject)
            worker.pipe.close()
            worker.process, worker.pipe = fresh.process, fresh.pipe
            if worker_tries < TRIES:
                waiting.appendleft((point, worker_tries + 1))
                return None
            how = f"signal {-ended}" if ended < 0 else f"exit code {ended}"
            return Answer(point, LOST, reason=f"its process ended by {how}, {TRIES} times")
        return Answer(point, code, result, reason)
