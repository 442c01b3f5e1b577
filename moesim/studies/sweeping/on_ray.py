"""Ray: points are played by the machines of a cluster (extra `ray`), the store stays with the process that asked.

The cluster is the one that RAY_ADDRESS names or that runs on this machine, else one of this machine alone is started.
What its machines need is in elsewhere.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from moesim.errors import TryAgain
from moesim.studies.sweeping.elsewhere import last_line, played
from moesim.studies.sweeping.executor import LOST, TRIES, Answer
from moesim.studies.sweeping.plan import Point
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
                        yield Answer(point, LOST, reason=f"Ray, {TRIES} times: {last_line(error)}")
    finally:
        for task in busy:
            ray.cancel(task, force=True)


@contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    """Joined, and left again by whoever was not in it before. Raises TryAgain."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise TryAgain(f"Ray's cluster does not answer: {last_line(error)}", where="--engine ray",
                       way_out="ray status, RAY_ADDRESS=HOST:PORT, or no --engine") from None  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()
