"""Ask: what a balancer may know of a request."""

from __future__ import annotations

from typing import NamedTuple


class Ask(NamedTuple):
    """number: of the request; group: of those whose prompts begin alike, -1 for none."""

    number: int
    group: int = -1
