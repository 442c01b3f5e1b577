"""`python -m moesim.studies.sweeping.worker FD`: answers points that come through a pipe until it is closed."""

from __future__ import annotations

import signal
import sys
from multiprocessing.connection import Connection

from moesim.studies.sweeping.executor import answer
from moesim.studies.sweeping.subject import Subject


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
