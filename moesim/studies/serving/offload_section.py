"""The `kv_offload:` of a serving scenario: memory behind the HBM that holds KV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field, model_validator

from moesim.errors import BadInput
from moesim.hardware import Device
from moesim.serving.settings import Settings
from moesim.serving.swap import HostMemory
from moesim.units import Bandwidth, ByteCount, show_bandwidth, show_bytes, to_ps
from moesim.yamlfile import Section

LARGEST: Final = 1 << 50  # bytes of a GPU


class KvOffloadSection(Section):
    """What each GPU has of its host, and how fast."""

    host_link: Annotated[Bandwidth, Field(gt=0)] | None = Field(
        None, description="between a GPU and host memory, each direction; default: the topology's device.host_link"
    )
    swap_space: ByteCount = Field(
        0, le=LARGEST,
        description="host memory of a GPU for KV of preempted requests (vLLM's swap_space); 0: they compute it again",
    )  # fmt: skip

    @model_validator(mode="after")
    def _some(self) -> KvOffloadSection:
        if not self.swap_space:
            raise ValueError("give swap_space, as '4 GiB', or leave kv_offload out")
        return self

    def rate(self, device: Device) -> float:
        """B/s of a GPU. Raises BadInput where nobody says it."""
        rate = self.host_link or device.host_link
        if not rate:
            raise BadInput(
                f"device {device.name} has no link to its host", where="kv_offload.host_link",
                way_out="a rate, as '50 GB/s', or device.host_link in the topology",
            )  # fmt: skip
        return rate

    def notes(self, device: Device) -> tuple[str, ...]:
        """What is assumed."""
        rate = show_bandwidth(self.rate(device))
        return (f"KV moves to host memory and back at {rate} a GPU, the link's whole rate in one piece, before a step: "
                "assumed, a lower bound of what many small copies take",)  # fmt: skip

    def check(self, engines: Sequence[Settings]) -> None:
        """engines: that may preempt. Raises BadInput where none does."""
        if all(one.reserved_output == 1.0 for one in engines):
            raise BadInput(
                "nothing is ever preempted: KV of whole answers is held from admission on",
                where="kv_offload.swap_space", way_out="scheduler.reserved_output below 1, or leave it out",
            )  # fmt: skip

    def memory(self, device: Device, block: float, ranks: int) -> HostMemory:
        """Behind a scheduler of so many ranks, each of which holds `block` bytes of a KV block. Raises BadInput."""
        if self.swap_space < block:
            raise BadInput(
                f"{show_bytes(self.swap_space)} hold no KV block of {show_bytes(block)}",
                where="kv_offload.swap_space", way_out="more, or leave it out",
            )  # fmt: skip
        return HostMemory(int(self.swap_space // block), int(to_ps(block / self.rate(device))), round(block * ranks))
