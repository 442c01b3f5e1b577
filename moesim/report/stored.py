"""Runs on disk: a folder a run, holding the JSON document, the pictures' data, the scenario as it was played, and the
digest of each: a flipped bit is no result.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from moesim import atomic, foreign
from moesim.errors import BadInput, unknown_name

RUNS: Final = Path("runs")
RESULT, PICTURES, SCENARIO, ADVICE = "result.json", "pictures.json", "scenario.yaml", "advice.json"
PAGE, TRACE, DIGESTS, REQUESTS = "report.html", "trace.json", "digests.json", "requests.csv"
OWN: Final = frozenset({RESULT, PICTURES, SCENARIO, ADVICE, PAGE, TRACE, DIGESTS, REQUESTS})
PART: Final = re.compile(r"\..*\.[0-9a-f]{16}\.part")
MAX_BYTES: Final = 1 << 30  # of a stored document
AGAIN: Final = "run it again"


@dataclass(frozen=True)
class StoredRun:
    """A folder and what lies in it; `document` is what `--json` printed."""

    folder: Path
    document: Mapping[str, Any]
    pictures: Mapping[str, Any]


def run_hash(*parts: object) -> str:
    """12 hexadecimal digits of whatever makes a run what it is; the same everywhere."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:12]


def save(run: StoredRun, scenario: str, requests: str | None = None) -> None:
    """Write the folder as a whole, in place of another run's; requests: rows of a serving run, CSV.

    A folder that holds the very same run stays, with the pages that were made of it since. Raises BadInput where the
    folder holds something else than a run, TryAgain.
    """
    content = {
        SCENARIO: scenario,
        PICTURES: json.dumps(run.pictures, allow_nan=False),
        RESULT: json.dumps(run.document, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        **({} if requests is None else {REQUESTS: requests}),
    }
    content[DIGESTS] = json.dumps({name: _sha256(text.encode()) for name, text in content.items()}, indent=2) + "\n"
    if not _holds(run.folder, content):
        with atomic.folder(run.folder) as part:
            for name, text in content.items():
                (part / name).write_text(text, encoding="utf-8", newline="")


def _holds(folder: Path, content: Mapping[str, str]) -> bool:
    """Whether the folder is this run already. Raises BadInput where it is no run's folder at all."""
    if not folder.is_dir():
        return False
    strangers = sorted(one.name for one in folder.iterdir() if one.name not in OWN and not PART.fullmatch(one.name))
    if strangers:
        way_out = "another folder: a run takes the place of all that is in its own"
        raise BadInput(f"holds {strangers[0]}, which is no part of a run", where=folder, way_out=way_out)
    return all(
        (folder / name).is_file() and (folder / name).read_bytes() == text.encode() for name, text in content.items()
    )


def drawn(run: StoredRun) -> Mapping[str, Any]:
    """Its pictures, and the scenario as it was played: what a page shows. Raises BadInput."""
    text = foreign.read_bytes(run.folder / SCENARIO, MAX_BYTES).decode("utf-8")
    return {**run.pictures, "scenario": text}


def save_advice(run: StoredRun, tried: list[dict[str, Any]]) -> None:
    """Keep the changes that were played beside the run. Raises TryAgain."""
    kept = {"moesim": run.document["provenance"]["moesim"], "tried": tried}
    document = {**kept, "sha256": _sha256(json.dumps(kept, allow_nan=False).encode())}
    atomic.write(run.folder / ADVICE, json.dumps(document, indent=2, allow_nan=False) + "\n")


def read_advice(run: StoredRun) -> list[dict[str, Any]] | None:
    """The changes that were played for it; None where none were. Raises BadInput, also where a bit has flipped."""
    path = run.folder / ADVICE
    if not path.is_file():
        return None
    kept = _read(path)
    if kept.pop("sha256", None) != _sha256(json.dumps(kept).encode()):
        raise BadInput("is not what moesim wrote (its sha256 differs)", where=path, way_out="remove it, and ask again")
    return list(kept["tried"])


def open_run(name: str) -> StoredRun:
    """A run's folder, its result.json, or the first digits of its hash under ./runs. Raises BadInput, also where a file
    is not the one that was written.
    """
    folder = _find(name)
    for file in (RESULT, PICTURES, SCENARIO):
        whole(folder, file)
    return StoredRun(folder, _read(folder / RESULT), _read(folder / PICTURES))


def whole(folder: Path, file: str) -> bytes:
    """The content of one of a run's files. Raises BadInput where it is not what the run wrote."""
    content = foreign.read_bytes(folder / file, MAX_BYTES)
    if _sha256(content) != _read(folder / DIGESTS).get(file):
        raise BadInput("is not what the run wrote (its sha256 differs)", where=folder / file, way_out=AGAIN)
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
    with foreign.reading(path, "JSON that moesim wrote", AGAIN):
        value = json.loads(foreign.read_bytes(path, MAX_BYTES))
        if not isinstance(value, dict):
            raise TypeError(f"the top level is a {type(value).__name__}")
        return value
