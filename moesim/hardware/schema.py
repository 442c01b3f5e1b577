"""The keys of a topology file. Every figure carries its source beside it."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from moesim.units import Bandwidth, ByteCount, Flops, Seconds
from moesim.yamlfile import Items, Section

T = TypeVar("T")
Positive = Annotated[Bandwidth, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]

MOST_WAYS = 64  # that one message is divided over

INSIDE = ("nvlink", "hccs", "ub", "xgmi", "pcie")
BETWEEN = ("nic", "roce", "tcp")


class Sourced(Section, Generic[T]):
    """A figure and where it comes from."""

    value: T
    source: str = Field(min_length=3)


class DeviceSection(Section):
    """One GPU."""

    name: str
    like: str = Field(
        "", description="shipped profile whose kernels are played at this device's rates where nobody measured it"
    )
    memory: Sourced[Annotated[ByteCount, Field(gt=0)]]
    memory_bandwidth: Sourced[Positive]
    sms: Sourced[Count]
    cache: Sourced[Annotated[ByteCount, Field(gt=0)]] | None = Field(
        None,
        description="last-level cache, whose content a carried kernel may find there; left out: the measured one's",
    )
    host_link: Sourced[Positive] | None = Field(
        None, description="between the GPU and memory of its host, each direction"
    )
    flops: dict[Literal["fp32", "bf16", "fp8", "fp4"], Sourced[Annotated[Flops, Field(gt=0)]]]


class BetweenSection(Sourced[Positive]):
    """Rate of one port and direction, and the latency of one crossing from GPU to GPU."""

    latency: Seconds = 0.0


class InsideSection(BetweenSection):
    """`switch`: one port per GPU into a crossbar. `mesh`: the rate is divided over direct links to every other GPU.

    in_switch_reduction: the crossbar adds up what several GPUs hold, and copies what one sends (NVLS; NVSwitch of the
    third generation and later). `racks`: the GPUs hang on so many switches, one a rack, which a second tier of switches
    joins; what leaves a rack has 1/`oversubscription` of its GPUs' rates.
    """

    in_switch_reduction: bool = False
    shape: Literal["switch", "mesh"] = "switch"
    racks: Count = 1
    oversubscription: Annotated[float, Field(ge=1, le=64)] = 1.0

    @model_validator(mode="after")
    def _racked(self) -> InsideSection:
        if self.racks > 1 and self.shape == "mesh":
            raise ValueError("racks are joined by switches: shape: switch")
        if self.racks == 1 and self.oversubscription != 1:
            raise ValueError("oversubscription inside a node is that between its racks, and needs racks")
        return self


class NodeSection(Section):
    """GPUs of one node: one tier that joins them, at most one tier that leaves the node; rates per port and direction.

    `nics` is the number of ports that leave the node, which GPUs share evenly; `port_of` names the port of each GPU
    where they do not; without either every GPU has its own. Where the tier inside is PCIe, traffic to the port passes
    over the GPU's PCIe link too. `hosts` is the number of machines that one node is made of (a rack of trays).
    """

    gpus: Count
    nvlink: InsideSection | None = None
    hccs: InsideSection | None = None
    ub: InsideSection | None = None
    xgmi: InsideSection | None = None
    pcie: InsideSection | None = None
    nic: BetweenSection | None = None
    roce: BetweenSection | None = None
    tcp: BetweenSection | None = None
    nics: Count | None = None
    port_of: Items[Annotated[int, Field(ge=0)]] = ()
    hosts: Count = 1

    @property
    def ports(self) -> tuple[int, ...]:
        """The port of each GPU, numbered from 0 without gaps."""
        each = self.gpus // (self.nics or self.gpus)
        return self.port_of or tuple(gpu // each for gpu in range(self.gpus))

    @property
    def inside(self) -> tuple[str, InsideSection]:
        """Name and figures of the tier that joins the GPUs."""
        return next((name, tier) for name in INSIDE if (tier := getattr(self, name)) is not None)

    @property
    def between(self) -> tuple[str, BetweenSection] | None:
        """Name and figures of the tier that leaves the node."""
        return next(((name, tier) for name in BETWEEN if (tier := getattr(self, name)) is not None), None)

    @model_validator(mode="after")
    def _tiers(self) -> NodeSection:
        if sum(getattr(self, name) is not None for name in INSIDE) != 1:
            raise ValueError(f"a node needs exactly one of {', '.join(INSIDE)}")
        if sum(getattr(self, name) is not None for name in BETWEEN) > 1:
            raise ValueError(f"a node has at most one of {', '.join(BETWEEN)}")
        if self.nics is not None and (self.between is None or self.gpus % self.nics):
            raise ValueError(f"nics has to divide gpus, and needs one of {', '.join(BETWEEN)}")
        if self.port_of and (self.between is None or self.nics is not None or len(self.port_of) != self.gpus):
            raise ValueError(f"port_of names a port for each GPU, without nics, and needs one of {', '.join(BETWEEN)}")
        if sorted(set(self.port_of)) != list(range(len(set(self.port_of)))):
            raise ValueError("port_of numbers ports from 0 without gaps")
        if self.gpus % self.hosts:
            raise ValueError("hosts has to divide gpus")
        if self.gpus % self.inside[1].racks:
            raise ValueError("racks has to divide gpus")
        return self


class FabricSection(Section):
    """How nodes are joined: one file of `hardware/fabrics` a kind, which names the keys that act in it.

    `rails` has one leaf per rail (port r of every node) under spines, `leaves` one per few nodes, `three_tier` pods of
    such leaves under cores; `rail_only` has no spines; `dragonfly` groups of routers, `torus` a grid of nodes.
    `adaptive` routing spreads traffic evenly over all uplinks of a switch, which then act as one. `ecmp` sends every
    queue pair between two ports over the one of `spines` that a hash picks; a message is divided over `queue_pairs`.
    `spray` divides every message over all `spines` evenly. A dragonfly is routed `minimal` or `valiant`. `planes` are
    copies of the whole fabric: a port is divided among them, and so is every message.
    """

    kind: Literal["rails", "leaves", "three_tier", "rail_only", "dragonfly", "torus"] = "rails"
    nodes: Count = 1
    nodes_per_leaf: Count = 4
    leaves_per_pod: Count = 4
    routers_per_group: Count = 4
    dims: Items[Count] = ()
    oversubscription: Annotated[float, Field(ge=1, le=64)] = 1.0
    core_oversubscription: Annotated[float, Field(ge=1, le=64)] = 1.0
    routing: Literal["adaptive", "ecmp", "spray", "minimal", "valiant"] = "adaptive"
    planes: Annotated[int, Field(ge=1, le=16)] = 1
    spines: Annotated[int, Field(ge=1, le=4096)] = 1
    queue_pairs: Annotated[int, Field(ge=1, le=64)] = 1
    latency: Seconds = 0.0
    source: str = "non-blocking unless oversubscription says otherwise"

    @model_validator(mode="after")
    def _hashing(self) -> FabricSection:
        if (self.spines != 1 and self.routing not in ("ecmp", "spray")) or (
            self.queue_pairs != 1 and self.routing not in ("ecmp", "valiant")
        ):
            raise ValueError("spines matter to 'routing: ecmp' and spray only, queue_pairs to ecmp and valiant")
        if (self.kind == "dragonfly") == (self.routing in ("adaptive", "ecmp", "spray")):
            known = "minimal or valiant" if self.kind == "dragonfly" else "adaptive, ecmp or spray"
            raise ValueError(f"routing of {self.kind} is {known}")
        ways = self.planes * (self.spines if self.routing == "spray" else self.queue_pairs)
        if ways > MOST_WAYS:
            raise ValueError(f"a message is divided over {ways} ways, at most {MOST_WAYS}")
        return self


class LinkSection(Section):
    """One link of an explicit graph; `both_ways` adds the other direction."""

    source: str = Field(alias="from")
    destination: str = Field(alias="to")
    bandwidth: Positive
    latency: Seconds = 0.0
    kind: str = "link"
    both_ways: bool = True
    origin: str = Field("stated in this file", alias="source")


class OthersSection(Section):
    """Nodes whose GPUs are of another kind than the others'."""

    device: DeviceSection | str = Field(description="its figures, or the name of a device that a shipped topology has")
    nodes: Items[Annotated[int, Field(ge=0)]] = Field(min_length=1, description="numbered from 0")


class TopologySection(Section):
    """A topology file: a device, and either node + fabric or an explicit list of links between gpu0.. and switches.

    `others` are nodes with other GPUs, on the same links.
    `switches` names every end of a link that is no GPU; `nodes` lists the GPUs of each node (default: one node).
    `spray`: a message is divided evenly over so many of its equally good paths, where there are as many.
    """

    moesim_topology: Literal[1]
    name: str
    description: str = ""
    device: DeviceSection
    others: Items[OthersSection] = ()
    node: NodeSection | None = None
    fabric: FabricSection | None = None
    links: Items[LinkSection] = ()
    switches: Items[str] = ()
    nodes: Items[Items[str]] = ()
    spray: Annotated[int, Field(ge=1, le=MOST_WAYS)] = 1

    @field_validator("device", mode="before")
    @classmethod
    def _one_kind(cls, device: object) -> object:
        if isinstance(device, list):
            raise ValueError(
                f"is the kind of most nodes, this is a list of {len(device)}; try the others' nodes beside it: "
                "others: [{device: H200-SXM-141GB, nodes: [1]}]"
            )
        return device

    @model_validator(mode="after")
    def _one_shape(self) -> TopologySection:
        if (self.node is None) == (not self.links):
            raise ValueError("give either node (with fabric) or links")
        if self.fabric is not None and self.node is None:
            raise ValueError("fabric needs node")
        if (self.switches or self.nodes or self.spray > 1) and not self.links:
            raise ValueError("switches, nodes and spray belong to links")
        return self
