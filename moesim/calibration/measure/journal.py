"""The journal: a folder that keeps every finished case, so that a run that was stopped goes on where it was.

run.json          what is measured, on what; another plan or device is refused
trying/N.txt      case N is under way: whoever finds it later knows which case ended the process
cases/N.parquet   the records of case N      failed/N.txt   why case N has none
records.parquet   all of them, once the plan is complete; until then partial.parquet
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from moesim import atomic
from moesim.calibration.measure.sentinel import without_drift
from moesim.calibration.records import Records, join, read_records, write_records
from moesim.errors import BadInput

WHOLE: Final = "records.parquet"
PARTIAL: Final = "partial.parquet"


@dataclass(frozen=True)
class Journal:
    """Written by rank 0 alone; every file is whole or not there. run: the identity that it got when it began."""

    folder: Path
    run: str

    @staticmethod
    def open(folder: Path, facts: Mapping[str, Any]) -> Journal:
        """Begin, or go on with, the run that `facts` describe. Raises BadInput where the folder holds another one."""
        path = folder / "run.json"
        if folder.exists() and not folder.is_dir():
            raise BadInput("is a file", where=folder, way_out="-o names the folder of the run")
        if not path.exists():
            if folder.exists() and any(folder.iterdir()):
                raise BadInput("is not empty and no run of this harness", where=folder, way_out="a new folder")
            atomic.write(path, json.dumps(facts, indent=2, sort_keys=True) + "\n")
        known = _known(path)
        _same(known, facts, path)
        journal = Journal(folder, str(known["run"]))
        journal._mend()
        return journal

    def done(self) -> set[int]:
        """Numbers of the cases that have records."""
        return {int(path.stem) for path in (self.folder / "cases").glob("[0-9]*.parquet")}

    def failures(self) -> dict[int, str]:
        """Number of each case that failed -> why."""
        return {int(path.stem): path.read_text().strip() for path in (self.folder / "failed").glob("[0-9]*.txt")}

    def begin(self, number: int, case: str) -> None:
        """The case is tried now: one that ends the process is not tried a second time."""
        atomic.write(self._file("trying", number), case + "\n")

    def keep(self, number: int, records: Records) -> None:
        """A finished case."""
        write_records(records, self.folder / "cases" / f"{number:05d}.parquet")
        self._file("trying", number).unlink(missing_ok=True)

    def fail(self, number: int, reason: str) -> None:
        """A case without records, and why."""
        atomic.write(self._file("failed", number), reason + "\n")
        self._file("trying", number).unlink(missing_ok=True)

    def forget_failures(self) -> None:
        """Cases that failed are measured again."""
        for number in self.failures():
            self._file("failed", number).unlink()

    def _mend(self) -> None:
        """Cases that ended an earlier process have failed; damaged records are measured again."""
        for mark in sorted((self.folder / "trying").glob("[0-9]*.txt")):
            self.fail(int(mark.stem), "the process ended while it was measured")
        for path in sorted((self.folder / "cases").glob("[0-9]*.parquet")):
            try:
                read_records(path)
            except BadInput:
                path.unlink()

    def finish(self, total: int, drift: float) -> tuple[Path | None, bool]:
        """All records in one file, None where there are none, and whether every case is measured or failed."""
        parts = [read_records(path) for path in sorted((self.folder / "cases").glob("[0-9]*.parquet"))]
        missing = set(range(total)) - self.done() - set(self.failures())
        if not parts:
            return None, not missing
        path = self.folder / (PARTIAL if missing else WHOLE)
        write_records(without_drift(join(parts), drift), path)
        if not missing:
            (self.folder / PARTIAL).unlink(missing_ok=True)
        return path, not missing

    def _file(self, kind: str, number: int) -> Path:
        return self.folder / kind / f"{number:05d}.txt"


def _known(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot be read: {error}", where=path, way_out="a new folder") from None
    if not isinstance(known, dict) or "run" not in known:
        raise BadInput("describes no run", where=path, way_out="a new folder")
    return known


def _same(found: Mapping[str, Any], facts: Mapping[str, Any], path: Path) -> None:
    """Raises BadInput that names the first difference; the identity of the run is the folder's."""
    for name in facts:
        if name != "run" and found.get(name) != json.loads(json.dumps(facts[name])):
            raise BadInput(
                f"this folder belongs to a run with another {name}: {_difference(found.get(name), facts[name])}",
                where=path,
                way_out="a new folder",
            )


def _difference(found: Any, wanted: Any) -> str:
    if isinstance(found, dict) and isinstance(wanted, Mapping):
        name = next((n for n in wanted if found.get(n) != json.loads(json.dumps(wanted[n]))), "")
        found, wanted = found.get(name), wanted.get(name)
        return f"{name} was {found!r}, is {wanted!r}"[:160]
    return f"it was {found!r}, is {wanted!r}"[:160]
