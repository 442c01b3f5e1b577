"""Swap: KV of preempted requests in host memory, of one scheduler.

A request that decodes and loses its blocks may leave its KV there; it comes back before anybody is admitted, and its
answer goes on. Copies run before the step that is put together, one after the other (vLLM's preemption mode "swap").
"""

from __future__ import annotations

from dataclasses import dataclass, field

from moesim.errors import BrokenInvariant
from moesim.serving.tiers import Tier


@dataclass(frozen=True)
class HostMemory:
    """Behind one scheduler: `swap` blocks for KV of preempted requests, `cache` for prefixes that fall out of the HBM;
    copy: ps of a block over the host links; block_bytes: of a block, of all its ranks; pool: blocks behind that of all
    engines, pool_copy ps each.
    """

    swap: int = 0
    copy: int = 0
    block_bytes: int = 0
    cache: int = 0
    pool: int = 0
    pool_copy: int = 0

    def shared(self) -> Tier | None:
        """A new pool, where there is one."""
        return Tier(self.pool, self.pool_copy, shared=True) if self.pool else None

    def tiers(self, pool: Tier | None) -> Tier | None:
        """What is behind a new HBM."""
        return Tier(self.cache, self.copy, below=pool) if self.cache else pool


@dataclass
class Swap:
    """held: request -> its blocks there; out, back, lost: blocks that went there, came back, and died with it; full:
    preempted requests for which it had no room.
    """

    memory: HostMemory
    held: dict[int, int] = field(default_factory=dict)
    used: int = 0
    out: int = 0
    back: int = 0
    lost: int = 0
    full: int = 0

    def take(self, request: int, blocks: int) -> bool:
        """Its KV goes to the host; False, and nothing, where there is no room."""
        if self.used + blocks > self.memory.swap:
            self.full += 1
            return False
        self.held[request] = blocks
        self.used += blocks
        self.out += blocks
        return True

    def give_back(self, request: int) -> int:
        """Its KV is in the HBM again -> blocks."""
        blocks = self.held.pop(request)
        self.used -= blocks
        self.back += blocks
        return blocks

    def forget(self) -> None:
        """The engine died."""
        self.lost += self.used
        self.held.clear()
        self.used = 0

    def check_integrity(self) -> None:
        """Raises BrokenInvariant where blocks were lost or made up."""
        if self.used != sum(self.held.values()) or not 0 <= self.used <= self.memory.swap:
            raise BrokenInvariant(f"{self.used} of {self.memory.swap} blocks swapped, {sum(self.held.values())} held")
        if self.out != self.back + self.lost + self.used:
            raise BrokenInvariant(f"{self.out} blocks swapped out, {self.back} in, {self.lost} lost, {self.used} there")
