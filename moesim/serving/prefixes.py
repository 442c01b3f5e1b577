"""Prefixes: what of its prompt a request has in common with others, as identities of whole KV blocks.

Two blocks are the same where their identities are: that of a block stands for all tokens up to its end, as the hash
chains of engines do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from moesim.errors import BadInput
from moesim.serving.requests import MOST_TOKENS, Ints

PLACES = MOST_TOKENS + 1  # blocks that one text may have


class Prefixes(Protocol):
    """Of n requests. answers: what one answers may be another's beginning."""

    answers: ClassVar[bool]

    def __len__(self) -> int:
        """n."""

    def blocks(self, request: int, size: int) -> list[int]:
        """Identities of the shared blocks of `size` tokens at the beginning of its prompt."""

    def group(self, request: int) -> int:
        """What it has in common with others, -1 for nothing: what a router may go by."""

    def first(self, n: int) -> Prefixes:
        """Of the first n requests."""


@dataclass(frozen=True)
class Documents:
    """text int64[n]: which text a request begins with; shared int64[n]: so many tokens of it."""

    answers: ClassVar[bool] = False
    text: Ints
    shared: Ints

    def __len__(self) -> int:
        return len(self.text)

    def blocks(self, request: int, size: int) -> list[int]:
        """See Prefixes."""
        first = int(self.text[request]) * PLACES
        return list(range(first, first + int(self.shared[request]) // size))

    def group(self, request: int) -> int:
        """See Prefixes."""
        return int(self.text[request]) if self.shared[request] else -1

    def first(self, n: int) -> Documents:
        """See Prefixes."""
        return Documents(self.text[:n], self.shared[:n])


@dataclass(frozen=True)
class Hashed:
    """Recorded hashes int64[...] of `unit` tokens each, those of request r at begin[r]:begin[r + 1]; each stands for
    all tokens before its end, too. The last one of a prompt may stand for less.
    """

    answers: ClassVar[bool] = False
    begin: Ints
    hashes: Ints
    prompt: Ints
    unit: int

    def __len__(self) -> int:
        return len(self.prompt)

    def blocks(self, request: int, size: int) -> list[int]:
        """See Prefixes: a block is that of the recorded hash in which it ends."""
        own = self.hashes[self.begin[request] : self.begin[request + 1]]
        number = np.arange(min(int(self.prompt[request]), len(own) * self.unit) // size)
        found: list[int] = (own[((number + 1) * size - 1) // self.unit] * PLACES + number).tolist()
        return found

    def group(self, request: int) -> int:
        """See Prefixes: the second hash, as the first is mostly a system prompt, which is everybody's."""
        own = self.hashes[self.begin[request] : self.begin[request + 1]]
        return int(own[min(1, len(own) - 1)]) if len(own) else -1

    def first(self, n: int) -> Hashed:
        """See Prefixes."""
        return Hashed(self.begin[: n + 1], self.hashes, self.prompt[:n], self.unit)


@dataclass(frozen=True)
class Continued:
    """What was said in sessions. base int64[n]: the request, or n and more a text, whose beginning a prompt has, -1 for
    none; shared int64[n]: so many tokens of it; whole int64[n]: tokens of prompt and answer; session int64[n].
    """

    answers: ClassVar[bool] = True
    base: Ints
    shared: Ints
    whole: Ints
    session: Ints

    def __len__(self) -> int:
        return len(self.whole)

    def blocks(self, request: int, size: int) -> list[int]:
        """See Prefixes: a block is that of the request that wrote its last token."""
        parts, at, end = [], request, int(self.whole[request])
        while 0 <= at < len(self):
            begin = int(self.shared[at])
            parts.append(range(at * PLACES + begin // size, at * PLACES + end // size))
            at, end = int(self.base[at]), min(begin, end)
        if at >= 0:
            parts.append(range(at * PLACES, at * PLACES + end // size))
        return [block for part in reversed(parts) for block in part]

    def group(self, request: int) -> int:
        """See Prefixes."""
        return int(self.session[request])

    def first(self, n: int) -> Continued:
        """See Prefixes."""
        return Continued(self.base[:n], self.shared[:n], self.whole[:n], self.session[:n])


def check_blocks(unit: int, size: int) -> None:
    """Raises BadInput where blocks do not lie inside recorded hashes."""
    if unit % size:
        raise BadInput(
            f"hashes stand for {unit} tokens each, which are no whole blocks of {size}",
            where="scheduler.block_size", way_out=f"a divisor of {unit}, or prefix_cache: false",
        )  # fmt: skip
