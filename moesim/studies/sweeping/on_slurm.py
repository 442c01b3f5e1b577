"""Slurm, by way of submitit (extra `slurm`): stretches of points are jobs of an array, the store stays with who asked.

The folder that the command runs in has to be one that the machines of the cluster share: submitit keeps what it hands
over, and what comes back, in a folder of its own there while the sweep runs. Partition, account and time are sbatch's
own variables (SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT ...). What machines need is in elsewhere.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

from moesim.errors import TryAgain
from moesim.studies.sweeping.elsewhere import last_line, played
from moesim.studies.sweeping.executor import LOST, TRIES, Answer
from moesim.studies.sweeping.plan import Point
from moesim.studies.sweeping.subject import Subject

USUAL: Final = 16  # jobs at once where nobody says how many
PIECES: Final = 4  # jobs one after the other in each place: what is done is stored as they end
MINUTES: Final = 60  # of a job, where SBATCH_TIMELIMIT does not say
POLL: Final = 1.0  # s between two looks at which jobs have ended


@dataclass(frozen=True)
class Slurm:
    """jobs: at once; 0: USUAL. cluster: local plays the same jobs as processes of this machine."""

    jobs: int = 0
    cluster: Literal["slurm", "local"] = "slurm"

    def run(self, subject: Subject, points: Sequence[Point]) -> Iterator[Answer]:
        """See Executor: a job that dies is played once more, each of its points alone. Raises ModuleNotFoundError
        without submitit, TryAgain where there is no Slurm.
        """
        import submitit

        most = self.jobs or USUAL
        size = -(-len(points) // (PIECES * most))
        with TemporaryDirectory(prefix=".moesim-slurm-", dir=Path.cwd()) as folder:
            executor = self._executor(submitit, folder, most)
            left: list[Point] = []
            for piece, answers, _ in _ended(submitit, executor, subject, _cut(points, size)):
                yield from answers
                left += [] if answers else piece
            for (point,), answers, reason in _ended(submitit, executor, subject, _cut(left, 1)):
                yield from answers or [Answer(point, LOST, reason=f"Slurm, {TRIES} times: {reason}")]

    def _executor(self, submitit: Any, folder: str, most: int) -> Any:
        """Raises TryAgain."""
        try:
            executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster)
        except RuntimeError as error:
            raise TryAgain(f"there is no Slurm here: {last_line(error)}", where="--engine slurm",
                           way_out="a login node of the cluster (sbatch, srun), or no --engine") from None  # fmt: skip
        executor.update_parameters(name="moesim", timeout_min=MINUTES, slurm_array_parallelism=most)
        return executor


def _cut(points: Sequence[Point], size: int) -> list[Sequence[Point]]:
    return [points[at : at + size] for at in range(0, len(points), size)]


def _ended(
    submitit: Any, executor: Any, subject: Subject, pieces: Sequence[Sequence[Point]]
) -> Iterator[tuple[Sequence[Point], list[Answer], str]]:  # fmt: skip
    """Pieces as their jobs end, with the answers; none, and a reason, where a job died. Raises TryAgain."""
    if not pieces:
        return
    try:
        jobs = executor.map_array(_piece, [subject] * len(pieces), pieces, [str(Path.cwd())] * len(pieces))
    except submitit.core.utils.FailedJobError as error:
        raise TryAgain(f"sbatch refused: {last_line(error)}", where="--engine slurm",
                       way_out="SBATCH_PARTITION=NAME, SBATCH_ACCOUNT=NAME") from None  # fmt: skip
    piece_of = {job.job_id: piece for job, piece in zip(jobs, pieces, strict=True)}
    try:
        for job in submitit.helpers.as_completed(jobs, poll_frequency=POLL):
            piece, died = piece_of.pop(job.job_id), job.exception()
            found = [] if died else job.result()
            answers = [Answer(point, *one) for point, one in zip(piece, found, strict=False)]
            yield piece, answers, last_line(died) if died else ""
    finally:
        for job in jobs:
            if job.job_id in piece_of:
                job.cancel(check=False)


def _piece(subject: Subject, points: Sequence[Point], folder: str) -> list[tuple[int, dict[str, Any] | None, str]]:
    """What one job does."""
    return [played(subject, point, folder) for point in points]
