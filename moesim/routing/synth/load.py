"""Knobs of synthetic routing from a YAML file and `key=value` overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moesim import yamlfile
from moesim.errors import BadInput
from moesim.routing.synth.knobs import Knobs


def load_knobs(path: Path | None, overrides: Sequence[str] = ()) -> Knobs:
    """The file's knobs (default: none), then the overrides. Raises BadInput with file and line, or the override."""
    document = yamlfile.read_yaml(path) if path else yamlfile.Document({}, "knobs")
    for text in overrides:
        _override(document.data, text)
    return yamlfile.validate(Knobs, document.data, document.where)


def _override(data: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise BadInput(f"--set {text!r} is not key=value", way_out="--set popularity.zipf=0.8")
    target = data
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise BadInput(f"{part!r} holds no keys", where=f"--set {key}")
    target[parts[-1]] = yamlfile.parse_yaml(f"value: {value}", f"--set {key}").data["value"]
