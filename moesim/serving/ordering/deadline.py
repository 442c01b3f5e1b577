"""Least slack first: by the time at which the first token has to be there, as the TTFT limit of its class says.

The slack of a request is its deadline less the time, which is the same for all: least slack is earliest deadline, the
order that meets all deadlines of those that wait for one server wherever some order does (Jackson 1955), and that of
QoS-aware engines before they weigh lengths (Niyama, arXiv 2503.22562).
Requests without a limit come after all that have one, by arrival.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from moesim.units import to_ps

if TYPE_CHECKING:
    from moesim.serving.book import Book

UNHURRIED: Final = 1 << 62  # ps after sending, later than any limit


def rank_of(book: Book, ttft: float | None) -> Callable[[int], tuple[int, ...]]:
    """ttft: seconds, the limit of requests whose class has no limits of its own."""
    classes = book.requests.classes
    allowed = [_ps(ttft if own is None else own.get("ttft")) for own in (classes.limits if classes else (None,))]

    def rank(request: int) -> tuple[int, ...]:
        sent = int(book.sent[request])
        return sent + allowed[classes.kind[request] if classes else 0], sent, request

    return rank


def _ps(seconds: float | None) -> int:
    return UNHURRIED if seconds is None else int(to_ps(seconds))
