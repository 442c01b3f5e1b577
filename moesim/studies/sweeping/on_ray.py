"""Ray: points are played by the machines of a cluster (extra `ray`), the store stays with the process that asked.

The cluster is the one that RAY_ADDRESS names or that runs on this machine, else one of this machine alone is started.
moesim has to be installed on its machines, with the files that scenarios name at the same paths. A point's key is
worked out again where it is played: another moesim, or a file with other contents, answers "try again" and no number.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from moesim.errors import MoesimError, TryAgain
from moesim.studies.sweeping.executor import LOST, TRIES, Answer, answer
from moesim.studies.sweeping.plan import Digests, Point, point_key
from moesim.studies.sweeping.subject import Subject

AHEAD: Final = 2  # points a CPU that are handed out: the next is there when one ends


@dataclass(frozen=True)
class Ray:
    """A cluster's CPUs, one a point. jobs: points at once; 0: as many as there are CPUs."""

    jobs: int = 0

    def run(self, subject: Subject, points: Sequence[Point]) -> Iterator[Answer]:
        """See Executor. Raises ModuleNotFoundError without Ray, TryAgain where its cluster does not answer."""
        import ray

        with _cluster(ray):
            most = self.jobs or AHEAD * max(int(ray.cluster_resources().get("CPU", 1)), 1)
            yield from _handed(ray, subject, points, most)


def _handed(ray: Any, subject: Subject, points: Sequence[Point], most: int) -> Iterator[Answer]:
    """So many points under way; one whose process ends is tried once more, and then lost."""
    play = ray.remote(num_cpus=1, max_retries=0)(played)
    shared, folder = ray.put(subject), str(Path.cwd())
    waiting = deque((point, 1) for point in points)
    busy: dict[Any, tuple[Point, int]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < most:
                point, tries = waiting.popleft()
                busy[play.remote(shared, point, folder)] = point, tries
            for task in ray.wait(list(busy))[0]:
                point, tries = busy.pop(task)
                try:
                    yield Answer(point, *ray.get(task))
                except ray.exceptions.RayError as error:
                    if tries < TRIES:
                        waiting.appendleft((point, tries + 1))
                    else:
                        yield Answer(point, LOST, reason=f"Ray, {TRIES} times: {_line(error)}")
    finally:
        for task in busy:
            ray.cancel(task, force=True)


def played(subject: Subject, point: Point, folder: str) -> tuple[int, dict[str, Any] | None, str]:
    """On one of the machines: as `answer`, where this machine makes the same of the point as the one that asked.

    folder: where the paths of scenarios begin, if there is such a one here.
    """
    with suppress(OSError):
        os.chdir(folder)
    try:
        key = point_key(subject.identity(point.overrides, _digests()), point.seed)
    except MoesimError as error:
        return TryAgain.exit_code, None, f"on {os.uname().nodename}: {error}"
    if key != point.key:
        return TryAgain.exit_code, None, f"{os.uname().nodename} has another moesim, or other files, than who asked"
    return answer(subject, point)


@cache
def _digests() -> Digests:
    """Of one of the machines: each file is read once for a sweep, as its processes are a sweep's own."""
    return Digests()


@contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    """Joined, and left again by whoever was not in it before. Raises TryAgain."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise TryAgain(f"Ray's cluster does not answer: {_line(error)}", where="--engine ray",
                       way_out="ray status, RAY_ADDRESS=HOST:PORT, or no --engine") from None  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


def _line(error: Exception) -> str:
    """The last line of what Ray says: it holds what happened."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
