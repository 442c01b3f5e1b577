"""Where the files that travel with moesim are: in a checkout at its top level, in a wheel under `moesim/_shipped/`."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_ROOT = _PACKAGE / "_shipped" if (_PACKAGE / "_shipped").is_dir() else _PACKAGE.parent


def shipped(*parts: str) -> Path:
    """The path of a shipped file or folder, e.g. `shipped("topologies", "dgx-h100.yaml")`; it need not exist."""
    return _ROOT.joinpath(*parts)


def names(folder: str, suffix: str) -> dict[str, Path]:
    """{stem: path} of the shipped files with that suffix below the folder, sorted by name."""
    return {path.name.removesuffix(suffix): path for path in sorted(shipped(folder).rglob(f"*{suffix}"))}
