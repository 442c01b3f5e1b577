"""One kind of failure for the user: where it is, what is wrong, and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Entry = TypeVar("Entry")
LONGEST, SHOWN = 255, 60  # characters of a word: file names reach 255


class MoesimError(Exception):
    """A failure that the user can act on; printed as one line, never as a traceback."""

    exit_code = 70

    def __init__(self, what: str, *, where: str | Path = "", way_out: str = "") -> None:
        self.what, self.where, self.way_out = what, str(where), way_out
        super().__init__(str(self))

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" Try: {self.way_out}" if self.way_out else ""
        return f"{place}{self.what}{'.' if advice and not self.what.endswith(('.', '?', '!')) else ''}{advice}"


class BadInput(MoesimError):
    """The input is wrong: exit code 2."""

    exit_code = 2


class DoesNotFit(MoesimError):
    """The request is well formed but has no solution, or needs more memory than there is: exit code 3."""

    exit_code = 3


class TargetMissed(MoesimError):
    """An `--assert` expression is false: exit code 4."""

    exit_code = 4


class Deadlock(MoesimError):
    """The simulated program waits for itself: exit code 5."""

    exit_code = 5


class BrokenInvariant(MoesimError):
    """moesim contradicts itself; a defect to report: exit code 70."""

    exit_code = 70


class TryAgain(MoesimError):
    """Disk full, a lock that is held: nothing is lost, the same command may work later: exit code 75."""

    exit_code = 75


class Interrupted(MoesimError):
    """Ctrl-C or SIGTERM: what was finished is kept: exit code 130."""

    exit_code = 130


def printable(text: str) -> str:
    """The same text with control characters as Python writes them: a terminal obeys none that a file brought along."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def shortened(text: str) -> str:
    """The same text with words that no one reads to their end cut: a value of 5,000 digits stays one line."""
    cut = (word if len(word) <= LONGEST else f"{word[:SHOWN]}... ({len(word)} characters)" for word in text.split())
    return " ".join(cut)


def unknown_name(kind: str, name: object, known: Iterable[str], *, where: str | Path = "") -> BadInput:
    """The error for a name that is not in a registry: it names the nearest known one, then all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.55)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return BadInput(f"unknown {kind} {name!r}", where=where, way_out=f"{guess}known: {', '.join(names)}")


def pick(kind: str, name: str, registry: Mapping[str, Entry], *, where: str | Path = "") -> Entry:
    """The entry of that name. Raises BadInput with the known names."""
    if name not in registry:
        raise unknown_name(kind, name, registry, where=where)
    return registry[name]


@contextmanager
def placed(where: str | Path) -> Iterator[None]:
    """Errors from inside that name no place get this one: a room that knows no files raises, the caller knows where."""
    try:
        yield
    except MoesimError as error:
        if error.where:
            raise
        raise type(error)(error.what, where=where, way_out=error.way_out) from None
