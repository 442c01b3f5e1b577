"""Points that another machine plays: what it needs to say first, and what a failed try looks like in one line.

moesim has to be installed on such a machine, with the files that scenarios name at the same paths. A point's key is
worked out again where it is played: another moesim, or a file with other contents, answers "try again" and no number.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from typing import Any

from moesim.errors import MoesimError, TryAgain
from moesim.studies.sweeping.executor import answer
from moesim.studies.sweeping.plan import Digests, Point, point_key
from moesim.studies.sweeping.subject import Subject


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


def last_line(error: BaseException) -> str:
    """Of what a library says: it holds what happened."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
