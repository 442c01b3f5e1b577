"""The `kv_offload:` of a serving scenario: memory behind the HBM that holds KV."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, model_validator

from moesim.errors import BadInput
from moesim.hardware import Device
from moesim.serving.settings import Settings
from moesim.serving.swap import HostMemory
from moesim.units import Bandwidth, ByteCount, show_bandwidth, show_bytes, to_ps
from moesim.yamlfile import Section

LARGEST: Final = 1 << 50  # bytes
Rate = Annotated[Bandwidth, Field(gt=0)]


class KvPoolSection(Section):
    """A store of KV that all replicas share (Mooncake, LMCache ...)."""

    size: ByteCount = Field(gt=0, le=LARGEST, description="of the whole pool")
    rate: Rate = Field(description="from the pool into the HBM of each GPU, whoever else reads")


class KvOffloadSection(Section):
    """What each GPU has of its host, and how fast; and what all share."""

    host_link: Rate | None = Field(
        None, description="between a GPU and host memory, each direction; default: the topology's device.host_link"
    )
    swap_space: ByteCount = Field(
        0, le=LARGEST,
        description="host memory of a GPU for KV of preempted requests (vLLM's swap_space); 0: they compute it again",
    )  # fmt: skip
    host_cache: ByteCount = Field(
        0, le=LARGEST,
        description="host memory of a GPU for prefixes that fall out of the HBM (SGLang's hicache_size, TensorRT-LLM's "
        "host_cache_size)",
    )  # fmt: skip
    pool: KvPoolSection | None = Field(
        None, description="where prefixes go that fall out of that; all replicas share it"
    )

    @model_validator(mode="after")
    def _some(self) -> KvOffloadSection:
        if not (self.swap_space or self.host_cache or self.pool):
            raise ValueError("give swap_space or host_cache, as '4 GiB', or pool, or leave kv_offload out")
        if self.host_link and not (self.swap_space or self.host_cache):
            raise ValueError("host_link needs swap_space or host_cache")
        return self

    def rate(self, device: Device) -> float:
        """B/s of a GPU. Raises BadInput where nobody says it."""
        rate = self.host_link or device.host_link
        if not rate:
            raise BadInput(
                f"nobody says how fast the link of {device.name} to its host is", where="kv_offload.host_link",
                way_out="a rate, as '50 GB/s', or device.host_link in the topology",
            )  # fmt: skip
        return rate

    def notes(self, device: Device) -> tuple[str, ...]:
        """What is assumed."""
        rates = [f"{show_bandwidth(self.rate(device))} of the host link"] if self.swap_space or self.host_cache else []
        rates += [f"{show_bandwidth(self.pool.rate)} of the pool"] if self.pool else []
        return (f"kv_offload: KV comes back at {' and '.join(rates)}, in one piece before a step: assumed, a lower "
                "bound of what many small copies take",)  # fmt: skip

    def check(self, prompts: Settings, answers: Settings) -> None:
        """The engines that compute prompts, and answers. Raises BadInput for memory that nothing comes to."""
        if self.swap_space and answers.reserved_output == 1.0:
            raise BadInput(
                "nothing is ever preempted: KV of whole answers is held from admission on",
                where="kv_offload.swap_space", way_out="scheduler.reserved_output below 1, or leave it out",
            )  # fmt: skip
        if (self.host_cache or self.pool) and not prompts.prefix_cache:
            key = "host_cache" if self.host_cache else "pool"
            raise BadInput(
                "no prefix is kept", where=f"kv_offload.{key}", way_out="scheduler.prefix_cache: true, or leave it out"
            )

    def memory(self, device: Device, block: float, ranks: int) -> HostMemory:
        """Behind a scheduler of so many ranks, each of which holds `block` bytes of a KV block. Raises BadInput."""
        size, lift = (self.pool.size, int(to_ps(block / self.pool.rate))) if self.pool else (0, 0)
        copy = int(to_ps(block / self.rate(device))) if self.swap_space or self.host_cache else 0
        return HostMemory(
            _blocks("swap_space", self.swap_space, block), copy, round(block * ranks),
            _blocks("host_cache", self.host_cache, block),
            _blocks("pool.size", size, block * ranks), lift,
        )  # fmt: skip


def _blocks(key: str, size: int, block: float) -> int:
    """Raises BadInput where not one of `block` bytes fits."""
    if 0 < size < block:
        raise BadInput(
            f"{show_bytes(size)} hold no KV block of {show_bytes(round(block))}", where=f"kv_offload.{key}",
            way_out="more, or leave it out",
        )  # fmt: skip
    return int(size // block)
