"""Orders of the queue: who of those that wait is next. An order is one file here, `rank_of(book, ttft)`, and one line
in REGISTRY. The last by it of those that run is who loses its cache when blocks run out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from moesim.serving.ordering import deadline, priority

if TYPE_CHECKING:
    from moesim.serving.book import Book

Rank = Callable[[int], tuple[int, ...]]  # of a request, less is first; no two are the same

REGISTRY: Final[Mapping[str, Callable[[Book, float | None], Rank]]] = {
    "priority": priority.rank_of,
    "deadline": deadline.rank_of,
}


def order_of(policy: str, book: Book, ttft: float | None) -> Rank | None:
    """Of a scheduling_policy; None for first come, first served, where who was preempted is in front. ttft: seconds,
    the scenario's limit, None where it has none.
    """
    return REGISTRY[policy](book, ttft) if policy in REGISTRY else None


__all__ = ["REGISTRY", "Rank", "order_of"]
