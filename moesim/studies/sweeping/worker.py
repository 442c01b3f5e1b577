"""`python -m moesim.studies.sweeping.worker FD`: answers points that come through a pipe until it is closed."""

from __future__ import annotations

import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from moesim.errors import MoesimError
from moesim.studies.sweeping.plan import Point
from moesim.studies.sweeping.subject import Subject

DEFECT, NO_MEMORY = 70, 3


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


def main() -> None:
    """Serve one sweep; Ctrl-C is the sweep's to hear."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = Connection(int(sys.argv[1]))
    try:
        subject: Subject = pipe.recv()
        while True:
            pipe.send(answer(subject, pipe.recv()))
    except (EOFError, OSError):
        return


if __name__ == "__main__":
    main()
