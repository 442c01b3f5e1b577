"""By the priority of its class, then by arrival (vLLM's scheduling_policy priority)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moesim.serving.book import Book


def rank_of(book: Book, ttft: float | None) -> Callable[[int], tuple[int, ...]]:
    """Requests without classes have one priority; `ttft` does not matter."""
    classes = book.requests.classes

    def rank(request: int) -> tuple[int, ...]:
        return int(classes.priority[request]) if classes else 0, int(book.sent[request]), request

    return rank
