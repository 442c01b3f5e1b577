"""Placement files of engines. A new format is one file here and one line in the registry.

`read_placement(path, frame)` makes a Placement of a file, `written(placement, format)` makes a file of a Placement; a
round trip gives the same Placement back. What an engine cannot express is refused, never written as something else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from moesim import atomic, foreign
from moesim.errors import BadInput, pick
from moesim.layout import Placement
from moesim.placement.formats.eplb import EPLB
from moesim.placement.formats.format import Format, Frame, Written
from moesim.placement.formats.omniinfer import OMNIINFER
from moesim.placement.formats.sglang import SGLANG
from moesim.placement.formats.source import Source, open_source
from moesim.placement.formats.trtllm import TRTLLM
from moesim.placement.formats.vllm import VLLM
from moesim.placement.formats.vllm_ascend import VLLM_ASCEND

REGISTRY: Final[dict[str, Format]] = {
    "eplb": EPLB,
    "omniinfer": OMNIINFER,
    "sglang": SGLANG,
    "trtllm": TRTLLM,
    "vllm": VLLM,
    "vllm-ascend": VLLM_ASCEND,
}

MAX_FILE: Final = 1 << 28  # bytes: 64 devices, 61 layers and 256 experts take 1 MB
SUFFIXES: Final = frozenset(suffix for each in REGISTRY.values() for suffix in each.suffixes)

__all__ = [
    "REGISTRY",
    "SUFFIXES",
    "Format",
    "Frame",
    "Written",
    "find_format",
    "format_for",
    "format_of",
    "read_placement",
    "write_placement",
    "written",
]


def find_format(name: str) -> Format:
    """The format of that name. Raises BadInput with the known ones."""
    return pick("placement format", name, REGISTRY)


def read_placement(path: str | Path, frame: Frame | None = None, *, format: str | None = None) -> Placement:
    """A placement file of any format; without `format` its content decides. Raises BadInput.

    `frame` adds what the file does not say: most formats need the number of ranks.
    """
    foreign.regular(Path(path), MAX_FILE)
    with foreign.reading(Path(path), "placement"):
        source = open_source(Path(path))
        chosen = find_format(format) if format else _recognised(source)
        return chosen.read(source, frame or Frame())


def format_of(path: str | Path) -> Format:
    """The format of a placement file, by its content. Raises BadInput."""
    foreign.regular(Path(path), MAX_FILE)
    with foreign.reading(Path(path), "placement"):
        return _recognised(open_source(Path(path)))


def _recognised(source: Source) -> Format:
    fitting = [each for each in REGISTRY.values() if each.recognise(source)]
    if len(fitting) != 1:
        raise BadInput("is no placement that is known", where=source.path, way_out=f"one of {', '.join(REGISTRY)}")
    return fitting[0]


def format_for(path: Path, name: str | None) -> Format:
    """The format of a new file: the named one, or the only one of that suffix. Raises BadInput."""
    fitting = [each for each in REGISTRY.values() if path.suffix.lower() in each.suffixes]
    if name is None and len(fitting) == 1:
        return fitting[0]
    if name is None:
        raise BadInput("its format is not told by its name", where=path, way_out=f"--format {' | '.join(REGISTRY)}")
    chosen = find_format(name)
    if chosen not in fitting:
        raise BadInput(f"{name} is not written there", where=path, way_out=f"a file {' or '.join(chosen.suffixes)}")
    return chosen


def written(placement: Placement, format: str, frame: Frame | None = None, suffix: str | None = None) -> Written:
    """The file of a placement. Raises BadInput for what the format's engine cannot express."""
    chosen = find_format(format)
    return chosen.write(placement, frame or Frame(), suffix or chosen.suffixes[0])


def write_placement(placement: Placement, path: Path, format: str | None = None, frame: Frame | None = None) -> Written:
    """Write a file, whole or not at all, and say what a reader of it has to know. Raises BadInput, TryAgain."""
    chosen = format_for(path, format)
    made = chosen.write(placement, frame or Frame(), path.suffix.lower())
    atomic.write(path, made.content)
    return made
