"""Slurm's host lists: "tux[0-3,12],login" -> names."""

from __future__ import annotations

import itertools
import re

from moesim.errors import BadInput

MAX_HOSTS = 10_000
_ITEM = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])+")
_PIECE = re.compile(r"\[[^\[\]]*\]|[^\[\]]+")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


def expand(text: str, place: str) -> list[str]:
    """Names in order, zero padding kept. Raises BadInput for malformed lists and beyond MAX_HOSTS names."""
    found: list[str] = []
    if _ITEM.sub("", text).strip(","):
        raise BadInput(f"host list {text[:60]!r} has an odd bracket", where=place)
    for item in _ITEM.findall(text):
        parts = [_numbers(piece[1:-1], text, place) if piece[0] == "[" else [piece] for piece in _PIECE.findall(item)]
        size = 1
        for part in parts:
            size *= len(part)
        if len(found) + size > MAX_HOSTS:
            raise BadInput(f"host list {text[:60]!r} names more than {MAX_HOSTS} hosts", where=place)
        found += ["".join(choice) for choice in itertools.product(*parts)]
    return found


def _numbers(inside: str, text: str, place: str) -> list[str]:
    found: list[str] = []
    for piece in inside.split(","):
        match = _RANGE.fullmatch(piece.strip())
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise BadInput(f"host list {text[:60]!r}: {piece!r} is no range", where=place)
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first >= MAX_HOSTS:
            raise BadInput(f"host list {text[:60]!r} names more than {MAX_HOSTS} hosts", where=place)
        found += [str(number).zfill(len(match[1])) for number in range(first, last + 1)]
    return found
