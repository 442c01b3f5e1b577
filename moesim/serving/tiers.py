"""Tiers behind the HBM: host memory of an engine, a pool that all share. What falls out of one goes to the next.

A tier holds contents of whole KV blocks, the one longest unused goes first. What is asked for comes back into the HBM:
an engine's own tier gives it up then, a shared one keeps it for others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from moesim.errors import BrokenInvariant


@dataclass
class Tier:
    """`total` blocks; copy: ps that one takes back into the HBM; shared: by several engines; below: where goes what
    falls out, None: it is lost. came: blocks that came and were not there; hits: blocks that were asked for and
    found; left: those of them that it gave up; known: contents that were computed again meanwhile; fallen: that it had
    no room for.
    """

    total: int
    copy: int = 0
    shared: bool = False
    below: Tier | None = None
    came: int = 0
    hits: int = 0
    left: int = 0
    known: int = 0
    fallen: int = 0
    used: int = 0
    _there: OrderedDict[int, int] = field(default_factory=OrderedDict)  # content -> blocks

    def put(self, content: int, blocks: int = 1) -> None:
        """It has fallen out of what is above, and is the latest used here. What nobody asks for (below 0) adds up."""
        had = self._there.pop(content, 0)
        new = blocks if content < 0 or not had else 0
        self._there[content] = had + new
        self.came += new
        self.used += new
        while self.used > self.total:
            oldest, many = next(iter(self._there.items()))
            self._drop(oldest, min(many, self.used - self.total), many)

    def _drop(self, content: int, gone: int, many: int) -> None:
        """So many of its blocks fall out."""
        self.used -= gone
        self.fallen += gone
        if gone < many:
            self._there[content] = many - gone
        else:
            del self._there[content]
        if self.below:
            self.below.put(content, gone)

    def find(self, content: int) -> Tier | None:
        """The first tier from here on that has it."""
        if content in self._there:
            return self
        return self.below.find(content) if self.below else None

    def lift(self, content: int) -> int:
        """It comes back into the HBM, from the first tier that has it -> ps of the copy."""
        tier = self.find(content)
        assert tier is not None
        tier.hits += 1
        if tier.shared:
            tier._there.move_to_end(content)
        else:
            del tier._there[content]
            tier.used -= 1
            tier.left += 1
        return tier.copy

    def forget_one(self, content: int) -> None:
        """It was computed again: an engine's own copy is none that is needed."""
        if content in self._there and not self.shared:
            del self._there[content]
            self.used -= 1
            self.known += 1

    def forget(self) -> None:
        """Its engine died: what is shared stays."""
        if not self.shared:
            self.fallen += self.used
            self.used = 0
            self._there.clear()

    def check_integrity(self, above: Callable[[int], bool]) -> None:
        """above: does the HBM have a content? Raises BrokenInvariant where some were lost, made up, or are twice in
        one engine.
        """
        if self.used != sum(self._there.values()) or self.used > self.total:
            raise BrokenInvariant(
                f"{self.used} blocks of {self.total} used in a tier, {sum(self._there.values())} held"
            )
        if self.came != self.left + self.known + self.fallen + self.used:
            told = f"{self.came} came, {self.left} left, {self.known} computed again, {self.fallen} fell out"
            raise BrokenInvariant(f"{self.used} blocks of {self.total} in a tier: {told}")
        if not self.shared and any(above(content) for content in self._there if content >= 0):
            raise BrokenInvariant("a block is in the HBM and in its engine's host memory")
        if self.below:
            self.below.check_integrity(above)
