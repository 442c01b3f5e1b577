"""What there is to say about prefixes that are found again."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.serving import Served


def cache_notes(served: Served) -> Iterator[str]:
    """Said where tiers behind the HBM have nothing to find."""
    host = served.replicas[0].schedulers[0].host
    if host and (host.cache or host.pool) and not served.book.requests.prefixes:
        yield (
            "kv_offload: prompts have nothing in common, so no tier finds anything (requests.prefix, requests.sessions)"
        )
