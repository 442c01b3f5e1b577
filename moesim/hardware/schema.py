"""The keys of a topology file. Every figure carries its source beside it."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, model_validator

from moesim.units import Bandwidth, ByteCount, Flops, Seconds
from moesim.yamlfile import Items, Section

T = TypeVar("T")
Positive = Annotated[Bandwidth, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Sourced(Section, Generic[T]):
    """A figure and where it comes from."""

    value: T
    source: str = Field(min_length=3)


class DeviceSection(Section):
    """One GPU."""

    name: str
    memory: Sourced[ByteCount]
    memory_bandwidth: Sourced[Positive]
    sms: Sourced[Count]
    flops: dict[Literal["fp32", "bf16", "fp8", "fp4"], Sourced[Annotated[Flops, Field(gt=0)]]]


class NodeSection(Section):
    """GPUs that NVLink joins without blocking; rates per GPU and direction."""

    gpus: Count
    nvlink: Sourced[Positive]
    nvlink_kind: str = "nvlink"
    nvlink_latency: Seconds = 0.0
    nic: Sourced[Positive] | None = None
    nic_latency: Seconds = 0.0


class FabricSection(Section):
    """How nodes are joined: `rails` has one leaf per rail (GPU r of every node), `leaves` one leaf per few nodes."""

    kind: Literal["rails", "leaves"] = "rails"
    nodes: Count = 1
    nodes_per_leaf: Count = 4
    oversubscription: Annotated[float, Field(ge=1, le=64)] = 1.0
    source: str = "non-blocking unless oversubscription says otherwise"


class LinkSection(Section):
    """One directed link of an explicit graph; `both_ways` adds the other direction."""

    source: str = Field(alias="from")
    destination: str = Field(alias="to")
    bandwidth: Positive
    latency: Seconds = 0.0
    kind: str = "link"
    both_ways: bool = True
    origin: str = Field("stated in this file", alias="source")


class TopologySection(Section):
    """A topology file: a device, and either node + fabric or an explicit list of links between gpu0.. and switches."""

    moesim_topology: Literal[1]
    name: str
    description: str = ""
    device: DeviceSection
    node: NodeSection | None = None
    fabric: FabricSection | None = None
    links: Items[LinkSection] = ()

    @model_validator(mode="after")
    def _one_shape(self) -> TopologySection:
        if (self.node is None) == (not self.links):
            raise ValueError("give either node (with fabric) or links")
        if self.fabric is not None and self.node is None:
            raise ValueError("fabric needs node")
        return self
