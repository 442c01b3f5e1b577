"""The store of sweeps: a folder with a file a point, each whole or not there, under the hash of what it was run from.

    store.json               whose store it is, and of which version
    points/ab/abcdef...json  a line with the sha256 of the rest, the store and the exit code; then the record
    plan.json                keys of the points that were asked for last: worked out once
    results.csv .parquet     the points that were asked for last, and summary.json what they were made of

One process writes at a time: it holds a lock on `lock`, which goes with the process. What others left half written
when they were killed is swept once the lock is held. Two sweeps of one scenario share their points; stores of
different scenarios do not go into one folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from moesim import atomic, foreign
from moesim.errors import BadInput, TryAgain
from moesim.studies.expression import values_of
from moesim.version import __version__

FORMAT: Final = 1
HEADER, PLAN, LOCK, POINTS = "store.json", "plan.json", "lock", "points"
MAX_BYTES: Final = 1 << 26  # of a record, a plan
DIGEST: Final = 64  # hexadecimal digits of a sha256
OTHER: Final = "another --out"  # where this one will not do
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Kept:
    """A point as it lies in the store: its exit code and first line; the record is read when somebody asks."""

    code: int
    head: bytes
    body: bytes

    @cached_property
    def record(self) -> Record:
        """What was kept of the run."""
        found: Record = json.loads(self.body)
        return found

    @property
    def numbers(self) -> dict[str, Any]:
        """name -> number of its metrics and parts."""
        return values_of(self.record)


@dataclass(frozen=True)
class Store:
    """A folder; owner: hash of the scenario whose points it holds."""

    folder: Path
    owner: str

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Make it or go on with it, alone. Raises TryAgain where another process writes, BadInput for another store."""
        self._check()
        with _held(self.folder / LOCK):
            self._check()
            self._sweep()
            if not (self.folder / HEADER).is_file():
                head = {"store": FORMAT, "moesim": __version__, "owner": self.owner, "scenario": name}
                atomic.write(self.folder / HEADER, json.dumps(head, indent=2) + "\n")
            yield

    def write(self, key: str, code: int, record: Record) -> Kept:
        """Keep a point: on the disk when this returns. Raises TryAgain."""
        rest = f" {self.owner} {code}\n{json.dumps(record, allow_nan=False)}".encode()
        content = hashlib.sha256(rest).hexdigest().encode() + rest
        atomic.write(Path(self._path(key)), content)
        return self._kept(key, content)

    def read(self, key: str) -> Kept | None:
        """A point; None where there is none, or none that is whole. Raises BadInput for another store's."""
        content = self._content(key)
        return self._kept(key, content) if content is not None and _whole(content) else None

    def damaged(self, key: str) -> bool:
        """Whether a point is there that cannot be read."""
        content = self._content(key)
        return content is not None and not _whole(content)

    def _content(self, key: str) -> bytes | None:
        try:
            with open(self._path(key), "rb") as stream:  # noqa: PTH123  (Path.open is half of the time of 10,000)
                return stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TryAgain(f"cannot be read: {error.strerror}", where=self._path(key), way_out=OTHER) from None

    def _kept(self, key: str, content: bytes) -> Kept:
        head, _, body = content.partition(b"\n")
        _, owner, code = head.decode().split(" ")
        if owner != self.owner:
            raise BadInput(f"belongs to the store {owner[:12]}, two stores are mixed here", where=self._path(key),
                           way_out="remove it, or another --out")  # fmt: skip
        return Kept(int(code), head, body)

    def _path(self, key: str) -> str:
        return f"{self.folder}/{POINTS}/{key[:2]}/{key}.json"

    def _check(self) -> None:
        """Raises BadInput where the folder is something else than this store."""
        path = self.folder / HEADER
        if not path.exists():
            self._check_empty()
            return
        with foreign.reading(path, "store of moesim", "another --out"):
            head = json.loads(foreign.read_bytes(path, MAX_BYTES))
            found = (head["store"], head["moesim"], head["owner"])
        if found[:2] != (FORMAT, __version__):
            raise BadInput(
                f"is a store of moesim {found[1]} (format {found[0]}), this is {__version__} (format {FORMAT})",
                where=path, way_out="another --out: numbers of two versions do not stand side by side",
            )  # fmt: skip
        if found[2] != self.owner:
            raise BadInput(f"is the store of another scenario, {head.get('scenario')!r}", where=path,
                           way_out="another --out: sweeps share a folder where they vary one scenario")  # fmt: skip

    def _check_empty(self) -> None:
        strangers = [one.name for one in self.folder.iterdir()] if self.folder.is_dir() else []
        strangers = [name for name in strangers if name != LOCK and not name.endswith(".part")]
        if strangers:
            raise BadInput(f"holds {min(strangers)}, which is no part of a store", where=self.folder,
                           way_out="another --out")  # fmt: skip

    def _sweep(self) -> None:
        """What writers that are no more left half written."""
        for part in self.folder.rglob(".*.part"):
            with contextlib.suppress(OSError):
                shutil.rmtree(part) if part.is_dir() else part.unlink()


def packed(value: Any) -> str:
    """Text of plain data under its sha256."""
    rest = f"\n{json.dumps(value, allow_nan=False)}"
    return f"{hashlib.sha256(rest.encode()).hexdigest()}{rest}"


def unpacked(path: Path) -> Any:
    """What `packed` made; None where it is not there or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return json.loads(content[DIGEST:]) if _whole(content) else None


def _whole(content: bytes) -> bool:
    return hashlib.sha256(content[DIGEST:]).hexdigest().encode() == content[:DIGEST]


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """The lock on a file, which stays. Raises TryAgain where another process has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except FileExistsError:
        raise BadInput("is a file, not a folder", where=path.parent, way_out=OTHER) from None
    except OSError as error:
        raise TryAgain(f"cannot be written: {error.strerror}", where=path, way_out=OTHER) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TryAgain(
            "another sweep writes here", where=path.parent, way_out="wait for it, or another --out"
        ) from None
    else:
        yield
    finally:
        os.close(lock)
