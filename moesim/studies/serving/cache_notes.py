"""What there is to say about prefixes that are found again."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.serving import Served
from moesim.serving.prefixes import Documents


def cache_notes(served: Served) -> Iterator[str]:
    """Said where engines would have to forget something: they keep all full blocks, and shared texts make room for
    what nobody asks for again.
    """
    book, pool = served.book, served.pools[0]
    host = pool[0].schedulers[0].host
    if host and (host.cache or host.pool) and not book.requests.prefixes:
        yield (
            "kv_offload: prompts have nothing in common, so no tier finds anything (requests.prefix, requests.sessions)"
        )
    if not isinstance(book.requests.prefixes, Documents) or not pool[0].schedulers[0].settings.prefix_cache:
        return
    room = sum(one.blocks.total * one.blocks.size for replica in pool for one in replica.schedulers)
    asked = int(book.prompt.sum()) + (0 if served.entry else int(book.output.sum()))
    if asked > room:
        yield (
            "prefix cache: shared texts alone are kept, and stay longer than in engines, which keep what else prompts "
            "and answers hold, too: an upper bound of what is found (requests.sessions: {turns: 1} keeps all)"
        )
