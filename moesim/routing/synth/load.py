"""Knobs of synthetic routing from a YAML file and `key=value` overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moesim import yamlfile
from moesim.routing.synth.knobs import Knobs


def load_knobs(path: Path | None, overrides: Sequence[str] = ()) -> Knobs:
    """The file's knobs (default: none), then the overrides. Raises BadInput with file and line, or the override."""
    document = yamlfile.read_yaml(path) if path else yamlfile.Document({}, "knobs")
    for text in overrides:
        yamlfile.override(document.data, text, "popularity.zipf=0.8")
    return yamlfile.validate(Knobs, document.data, document.where)
