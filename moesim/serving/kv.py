"""Paged KV cache of one scheduler: blocks are counted; those of shared prefixes are known by what they hold.

A full block keeps what it holds when nobody uses it any more, until it is needed for something else: the one longest
unused goes first, of one request's the last first (vLLM). That holds for those whose content others may ask for and for
all others: of these a request's are one entry. Where there are tiers behind it what it held goes there, and comes back
when it is asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from moesim.errors import BrokenInvariant
from moesim.serving.requests import Ints
from moesim.serving.tiers import Tier


class Blocks:
    """`total` blocks of `size` tokens; free: those that nobody uses, with content or without; held int64[requests]:
    blocks of a request, shared ones among them; below: the tier behind it; copies: ps of copies from there and to it
    that the step which is put together has to wait for.
    """

    def __init__(self, total: int, size: int, requests: int, below: Tier | None = None) -> None:
        self.below, self.copies = below, 0
        self.total, self.size, self.free = total, size, total
        self.held: Ints = np.zeros(requests, dtype=np.int64)
        self.taken = self.returned = 0
        self.asked = self.found = 0  # tokens of prompts that were looked for, and found
        self._users: dict[int, int] = {}  # content -> requests that use its block
        self._idle: OrderedDict[int, int] = OrderedDict()  # content -> blocks that nobody uses, longest unused first
        self._kept = 0  # all of these
        self._shared: dict[int, list[int]] = {}  # request -> content of its shared blocks

    def of(self, tokens: int) -> int:
        """Blocks that so many tokens take."""
        return -(-tokens // self.size)

    @property
    def unseen(self) -> int:
        """Blocks that can be taken unseen by others: what falls into a shared tier is there for them."""
        shared = self.below and (self.below.shared or self.below.below)
        return self.free - self._kept if shared else self.free

    def known(self, contents: Sequence[int]) -> int:
        """How many of these blocks, from the first on, are there."""
        users, idle, below = self._users, self._idle, self.below
        for number, content in enumerate(contents):
            if content not in users and content not in idle and not (below and below.find(content)):
                return number
        return len(contents)

    def _here(self, content: int) -> bool:
        return content in self._users or content in self._idle

    def admit(self, request: int, contents: Sequence[int], tokens: int) -> bool:
        """Give a request these known blocks, and empty ones up to so many tokens; False, and nothing, where there are
        not enough.
        """
        idle = sum(content in self._idle for content in contents)
        apart = [content for content in contents if not self._here(content)] if self.below else []
        if max(self.of(tokens) - len(contents), 0) + idle + len(apart) > self.free:
            return False
        for content in contents:
            if content in self._idle:
                del self._idle[content]
                self._kept -= 1
                self._take(1)
            self._users[content] = self._users.get(content, 0) + 1
        if contents:
            self._shared[request] = list(contents)
            self.held[request] = len(contents)
        if apart and self.below:
            self.copies += sum(map(self.below.lift, apart))
            self._take(len(apart))  # after all of them have left: what falls out now may push others out below
        return self.hold(request, tokens)

    def fill(self, request: int, contents: Sequence[int]) -> None:
        """The request has computed these blocks, from its first on: who asks for them finds them from now on. Where
        another has them already, its own stay its own.
        """
        mine = self._shared.setdefault(request, [])
        for content in contents[len(mine) :]:
            if self._here(content):
                return
            if self.below:
                self.below.forget_one(content)
            self._users[content] = 1
            mine.append(content)

    def hold(self, request: int, tokens: int) -> bool:
        """Give a request what it lacks for so many tokens; False, and nothing, where there are not enough."""
        more = self.of(tokens) - int(self.held[request])
        if more > self.free:
            return False
        if more > 0:
            self.held[request] += more
            self._take(more)
        return True

    def lacking(self, requests: Ints, cached: Ints) -> Ints:
        """int64: of these requests, those who need a block for one token more than the cached int64[...]."""
        return requests[cached >= self.held[requests] * self.size]

    def grow(self, requests: Ints) -> None:
        """One block more for each, which has to be free."""
        if not len(requests):
            return
        self.held[requests] += 1
        self._take(len(requests))

    def hold_all(self, requests: Ints, tokens: Ints) -> None:
        """Give each what it lacks for so many tokens, int64[...] each; there have to be enough."""
        more = np.maximum(-(-tokens // self.size) - self.held[requests], 0)
        self.held[requests] += more
        self._take(int(more.sum()))

    def give_back(self, request: int, tokens: int = 0) -> None:
        """All of a request's; shared ones stay others', or keep their content, as do those that so many tokens fill."""
        many, mine = int(self.held[request]), self._shared.pop(request, [])
        left, own = 0, min(tokens // self.size, many) - len(mine)
        if own > 0:
            self._keep(-1 - request, own + self._idle.pop(-1 - request, 0), own)
        for content in reversed(mine):
            self._users[content] -= 1
            if not self._users[content]:
                del self._users[content]
                self._keep(content, 1, 1)
                left += 1
        self.held[request] = 0
        back = many - len(mine) + left
        self.free += back
        self.returned += back

    def _keep(self, content: int, blocks: int, new: int) -> None:
        """So many blocks hold it, the latest used; new of them did not until now."""
        self._idle[content] = blocks
        self._kept += new

    def forget(self) -> None:
        """What blocks hold that nobody uses, and what this engine has behind them."""
        self._idle.clear()
        self._kept = self.copies = 0
        if self.below:
            self.below.forget()

    def _take(self, many: int) -> None:
        """Of the free ones; content is lost where no empty one is left."""
        self.free -= many
        self.taken += many
        while (over := self._kept - max(self.free, 0)) > 0:
            oldest, blocks = next(iter(self._idle.items()))
            gone = min(blocks, over)
            self._kept -= gone
            if gone < blocks:
                self._idle[oldest] = blocks - gone
            else:
                del self._idle[oldest]
            if self.below:
                self.below.put(oldest, gone)

    def check_integrity(self) -> None:
        """Raises BrokenInvariant where blocks were lost, made up, or handed out twice."""
        used = int(self.held.sum()) - sum(map(len, self._shared.values())) + len(self._users)
        if self.free < 0 or (self.held < 0).any() or self.free + used != self.total:
            raise BrokenInvariant(f"{self.free} blocks free and {used} used of {self.total}")
        if self.taken - self.returned != used:
            raise BrokenInvariant(f"{self.taken} blocks taken, {self.returned} returned, {used} used")
        if sum(self._users.values()) != sum(map(len, self._shared.values())) or self._kept > self.free:
            raise BrokenInvariant("shared blocks are used by others than hold them")
        if self._kept != sum(self._idle.values()):
            raise BrokenInvariant(f"{self._kept} blocks keep content, not {sum(self._idle.values())}")
        if self.below:
            self.below.check_integrity(self._here)
