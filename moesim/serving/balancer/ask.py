"""Ask: what a balancer may know of a request."""

from __future__ import annotations

from typing import NamedTuple

from moesim.serving.requests import Requests


class Ask(NamedTuple):
    """number: of the request; group: of those whose prompts begin alike, session: its own, -1 for none."""

    number: int
    group: int = -1
    session: int = -1


def ask_of(requests: Requests, request: int) -> Ask:
    """What there is to know of one of them."""
    prefixes, follows = requests.prefixes, requests.follows
    return Ask(request, prefixes.group(request) if prefixes else -1, int(follows.session[request]) if follows else -1)
