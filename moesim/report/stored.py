"""Runs on disk: a folder a run, holding the JSON document, the pictures' data and the scenario as it was played."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from moesim import atomic
from moesim.errors import BadInput, unknown_name

RUNS: Final = Path("runs")
RESULT, PICTURES, SCENARIO, ADVICE = "result.json", "pictures.json", "scenario.yaml", "advice.json"
PAGE, TRACE = "report.html", "trace.json"


@dataclass(frozen=True)
class StoredRun:
    """A folder and what lies in it; `document` is what `--json` printed."""

    folder: Path
    document: Mapping[str, Any]
    pictures: Mapping[str, Any]


def run_hash(*parts: object) -> str:
    """12 hexadecimal digits of whatever makes a run what it is; the same everywhere."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:12]


def save(run: StoredRun, scenario: str) -> None:
    """Write the folder; the JSON document comes last, so that a folder that has one is whole. Raises TryAgain."""
    atomic.write(run.folder / SCENARIO, scenario)
    atomic.write(run.folder / PICTURES, json.dumps(run.pictures, allow_nan=False))
    atomic.write(run.folder / RESULT, json.dumps(run.document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def save_advice(run: StoredRun, tried: list[dict[str, Any]]) -> None:
    """Keep the changes that were played beside the run. Raises TryAgain."""
    document = {"moesim": run.document["provenance"]["moesim"], "tried": tried}
    atomic.write(run.folder / ADVICE, json.dumps(document, indent=2, allow_nan=False) + "\n")


def read_advice(run: StoredRun) -> list[dict[str, Any]] | None:
    """The changes that were played for it; None where none were. Raises BadInput."""
    path = run.folder / ADVICE
    return list(_read(path)["tried"]) if path.is_file() else None


def open_run(name: str) -> StoredRun:
    """A run's folder, its result.json, or the first digits of its hash under ./runs. Raises BadInput."""
    folder = _find(name)
    return StoredRun(folder, _read(folder / RESULT), _read(folder / PICTURES))


def _find(name: str) -> Path:
    path = Path(name)
    if path.name == RESULT:
        path = path.parent
    if (path / RESULT).is_file():
        return path
    known = sorted(folder.name for folder in RUNS.glob("*") if (folder / RESULT).is_file())
    matching = [folder for folder in known if folder.startswith(name)]
    if len(matching) == 1:
        return RUNS / matching[0]
    if matching:
        raise BadInput(f"{name!r} begins {len(matching)} runs: {', '.join(matching)}", way_out="more digits")
    if not known:
        raise BadInput(f"no run {name!r}, and none under ./{RUNS}", way_out="moesim run --demo")
    raise unknown_name("run", name, known)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", where=path, way_out="run it again") from None
    except (ValueError, RecursionError):
        raise BadInput("is not the JSON that moesim wrote", where=path, way_out="run it again") from None
    if not isinstance(value, dict):
        raise BadInput("is not the JSON that moesim wrote", where=path, way_out="run it again")
    return value
