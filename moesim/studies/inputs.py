"""The files that a scenario names, and a hash that knows what is in them: a run is what it was computed from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from moesim import foreign, shipped
from moesim.costs import find_profile
from moesim.hardware import find_topology
from moesim.models import find_model
from moesim.models.quantisation import FILE as QUANTISATION_FILE
from moesim.placement.formats import SUFFIXES
from moesim.routing.synth.statistics import SHIPPED
from moesim.studies.load import Loaded
from moesim.studies.routing import trace_path
from moesim.studies.scenario import Setup

Digest = Callable[[Path], str]
STATISTICS = ("workloads", "routing", f"{SHIPPED}.json")


def files_of(scenario: Setup) -> dict[str, Path]:
    """dotted key -> the file that its value names, shipped or the user's. Raises BadInput for unknown names."""
    found = {"cluster.topology": find_topology(scenario.cluster.topology)}
    if isinstance(scenario.model, str):
        found["model"] = find_model(scenario.model)
    if scenario.routing and scenario.routing.trace:
        found["routing.trace"] = trace_path(scenario.routing.trace, "routing.trace")
    if scenario.routing and scenario.routing.sampled:
        found["routing.sampled"] = shipped.shipped(*STATISTICS)
    if Path(scenario.experts.placement).suffix.lower() in SUFFIXES:
        found["experts.placement"] = Path(scenario.experts.placement)
    profile = scenario.costs if isinstance(scenario.costs, str) else scenario.costs.profile
    if (file := find_profile(profile)) is not None:
        found["costs"] = file
    return found


def content_hash(loaded: Loaded) -> str:
    """sha256 of the scenario with the contents of the files in place of their paths: equal for `t.yaml` and `./t.yaml`,
    another one once a file has changed. Raises BadInput for a file that cannot be read.
    """
    return hash_of(loaded.scenario, files_of(loaded.scenario))


def hash_of(scenario: Setup, files: Mapping[str, Path], digest: Digest | None = None) -> str:
    """The same of any kind of scenario, with the files that it names by dotted key; digest: of a file's content, where
    it need not be read again for each of many scenarios. Raises BadInput.
    """
    body: dict[str, Any] = scenario.identity()
    for key, path in files.items():
        _replace(body, key, f"{path.name} {(digest or file_digest)(path)}")
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _replace(body: dict[str, Any], key: str, value: str) -> None:
    """The name that stands at a dotted key; `costs` may be a section that names its profile."""
    *parents, last = key.split(".")
    for parent in parents:
        body = body.setdefault(parent, {})
    held = body.get(last)
    if isinstance(held, Mapping):
        body[last] = {**held, "profile": value}
    else:
        body[last] = f"{held} {value}" if key == "routing.sampled" else value


def file_digest(path: Path) -> str:
    """sha256 of a file, and of the quantisation file beside a config.json."""
    beside = path.with_name(path.name.replace("config.json", QUANTISATION_FILE))
    found = hashlib.sha256()
    for part in (path, *([beside] if beside != path and beside.is_file() else [])):
        foreign.regular(part)
        with foreign.reading(part, "file"), part.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()
