"""KV blocks of a compiled loop: counts, and of shared prefixes what they hold. As serving/kv.py, in columns.

What a block holds is a node of its scheduler: found by a hash of its content, chained in buckets; those that nobody
uses stand in a second chain, longest unused first. Full blocks that nobody can ask for are one node a request. Nodes
are numbered from 1 on, 0 is none; all schedulers take theirs from one store, from its front, so that memory of no node
is not taken: a table for each would be taken whole, as systems hand out large pages.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.compiled import inner
from moesim.serving.prefixes import PLACES, Documents, Hashed
from moesim.serving.requests import Ints

Int32s = npt.NDArray[np.int32]
# numbers of a row of State.kept, one a scheduler; IDLE: blocks that nobody uses and that keep what they hold
FREE, IDLE, OLDEST, NEWEST, ASKED, FOUND = range(6)
# numbers of Prefixed.store; MADE: nodes so far; UNUSED: a node that held something, which others follow in its chain
MADE, UNUSED = range(2)
# numbers of a row of State.has, one a request: blocks, of them those that others may share, and could share at most
HELD, MINE, OFFERED, REUSED = range(4)
CHAINED = 4  # nodes of a bucket, at most, most often
WHOLE_TEXT = 1 << 40  # tokens that one hash stands for where a text has one


class Prefixed(NamedTuple):
    """Contents: hashes int64[...] of `unit` tokens each, those of request r from begin[r] on. store
    int64[2]: of nodes; heads int32[schedulers, buckets]: the first node of each; key int64[nodes]: content; users,
    chain, older, newer int32[nodes]; many: blocks.
    """

    begin: Ints
    hashes: Ints
    unit: int
    store: Ints
    heads: Int32s
    key: Ints
    users: Int32s
    chain: Int32s
    older: Int32s
    newer: Int32s
    many: Int32s

    @classmethod
    def of(cls, prefixes: object, schedulers: int, blocks: int, size: int) -> tuple[Prefixed, Ints]:
        """Nothing is there yet; and blocks that each request may share, int64[n]."""
        if isinstance(prefixes, Documents):
            begin, hashes, unit, offered = np.arange(len(prefixes) + 1), prefixes.text, WHOLE_TEXT, prefixes.shared
        elif isinstance(prefixes, Hashed):
            begin, hashes, unit = prefixes.begin, prefixes.hashes, prefixes.unit
            offered = np.minimum(prefixes.prompt, np.diff(begin) * unit)
        else:
            begin, hashes, unit, offered = (np.zeros(1, dtype=np.int64),) * 2 + (WHOLE_TEXT, np.zeros(1, np.int64))
        nodes = max(min(blocks, int((offered // size).sum()) + len(begin) - 1), 1)  # each has a block of its own
        buckets = 1 << max(nodes // CHAINED, 1).bit_length()
        columns = [np.zeros(schedulers * nodes, dtype=np.int32) for _ in range(5)]
        made = cls(
            begin.astype(np.int64), hashes.astype(np.int64), unit, np.zeros(2, dtype=np.int64),
            np.zeros((schedulers, buckets), dtype=np.int32), np.zeros(schedulers * nodes, dtype=np.int64), *columns,
        )  # fmt: skip
        return made, offered // size


@inner
def content(s: Any, e: Any, request: Any, number: Any) -> Any:
    """Of a block of a request's prompt, as Prefixes.blocks."""
    p = s.prefixed
    return p.hashes[p.begin[request] + ((number + 1) * e.size - 1) // p.unit] * PLACES + number


@inner
def bucket(s: Any, what: Any) -> Any:
    """Of a content."""
    return ((what * 0x9E3779B97F4A7C1) >> 24) & (s.prefixed.heads.shape[1] - 1)


@inner
def find(s: Any, r: Any, what: Any) -> Any:
    """The node of a content."""
    p = s.prefixed
    node = p.heads[r, bucket(s, what)]
    while node and p.key[node - 1] != what:
        node = p.chain[node - 1]
    return node


@inner
def enter(s: Any, r: Any, what: Any, users: Any, many: Any) -> Any:
    """Blocks with that content, used by so many -> its node."""
    p = s.prefixed
    if p.store[UNUSED]:
        node = p.store[UNUSED]
        p.store[UNUSED] = p.chain[node - 1]
    else:
        p.store[MADE] += 1
        node = p.store[MADE]
    place = bucket(s, what)
    p.key[node - 1], p.users[node - 1], p.chain[node - 1] = what, users, p.heads[r, place]
    p.many[node - 1] = many
    p.heads[r, place] = node
    return node


@inner
def rest(s: Any, r: Any, node: Any) -> Any:
    """Nobody uses it any more."""
    p, kept = s.prefixed, s.kept[r]
    p.older[node - 1], p.newer[node - 1] = kept[NEWEST], 0
    if kept[NEWEST]:
        p.newer[kept[NEWEST] - 1] = node
    else:
        kept[OLDEST] = node
    kept[NEWEST] = node
    kept[IDLE] += p.many[node - 1]


@inner
def wake(s: Any, r: Any, node: Any) -> Any:
    """Somebody uses it again, or it goes."""
    p, kept = s.prefixed, s.kept[r]
    older, newer = p.older[node - 1], p.newer[node - 1]
    if older:
        p.newer[older - 1] = newer
    else:
        kept[OLDEST] = newer
    if newer:
        p.older[newer - 1] = older
    else:
        kept[NEWEST] = older
    kept[IDLE] -= p.many[node - 1]


@inner
def forget(s: Any, r: Any, node: Any) -> Any:
    """Its block is needed for something else."""
    p = s.prefixed
    wake(s, r, node)
    place = bucket(s, p.key[node - 1])
    if p.heads[r, place] == node:
        p.heads[r, place] = p.chain[node - 1]
    else:
        before = p.heads[r, place]
        while p.chain[before - 1] != node:
            before = p.chain[before - 1]
        p.chain[before - 1] = p.chain[node - 1]
    p.chain[node - 1] = p.store[UNUSED]
    p.store[UNUSED] = node


@inner
def take(s: Any, r: Any, many: Any) -> Any:
    """As Blocks._take."""
    kept = s.kept[r]
    kept[FREE] -= many
    while kept[IDLE] > kept[FREE]:
        over, oldest = kept[IDLE] - kept[FREE], kept[OLDEST]
        if s.prefixed.many[oldest - 1] > over:
            s.prefixed.many[oldest - 1] -= over
            kept[IDLE] -= over
        else:
            forget(s, r, oldest)


@inner
def known(s: Any, e: Any, r: Any, request: Any, most: Any) -> Any:
    """As Queue.reusable: blocks of a prompt that are there, from the first on, `most` of them; idle ones among them."""
    idle = 0
    for number in range(min(s.has[request, OFFERED], most)):
        node = find(s, r, content(s, e, request, number))
        if not node:
            return number, idle
        idle += s.prefixed.users[node - 1] == 0
    return min(s.has[request, OFFERED], most), idle


@inner
def admit(s: Any, e: Any, r: Any, request: Any, shared: Any, idle: Any, tokens: Any) -> Any:
    """As Blocks.admit."""
    if max(-(-tokens // e.size) - shared, 0) + idle > s.kept[r, FREE]:
        return False
    for number in range(shared):
        node = find(s, r, content(s, e, request, number))
        if not s.prefixed.users[node - 1]:
            wake(s, r, node)
            take(s, r, 1)
        s.prefixed.users[node - 1] += 1
    if shared:
        s.has[request, HELD] = s.has[request, MINE] = shared
    return hold(s, e, r, request, tokens)


@inner
def offer(s: Any, e: Any, r: Any, request: Any, tokens: Any) -> Any:
    """As Blocks.fill: so many tokens are in the cache."""
    has = s.has[request]
    for number in range(has[MINE], min(has[OFFERED], tokens // e.size)):
        what = content(s, e, request, number)
        if find(s, r, what):
            return
        enter(s, r, what, 1, 1)
        has[MINE] += 1


@inner
def hold(s: Any, e: Any, r: Any, request: Any, tokens: Any) -> Any:
    """As Blocks.hold."""
    more = -(-tokens // e.size) - s.has[request, HELD]
    if more > s.kept[r, FREE]:
        return False
    if more > 0:
        s.has[request, HELD] += more
        take(s, r, more)
    return True


@inner
def return_blocks(s: Any, e: Any, r: Any, request: Any, tokens: Any) -> Any:
    """As Blocks.give_back; tokens: in its cache."""
    has, left = s.has[request], 0
    own = min(tokens // e.size, has[HELD]) - has[MINE]
    if e.cache and own > 0:
        node = find(s, r, -1 - request)
        if node:
            wake(s, r, node)
            s.prefixed.many[node - 1] += own
        else:
            node = enter(s, r, -1 - request, 0, own)
        rest(s, r, node)
    for place in range(has[MINE]):
        node = find(s, r, content(s, e, request, has[MINE] - 1 - place))
        s.prefixed.users[node - 1] -= 1
        if not s.prefixed.users[node - 1]:
            rest(s, r, node)
            left += 1
    s.kept[r, FREE] += has[HELD] - has[MINE] + left
    has[HELD] = has[MINE] = 0
