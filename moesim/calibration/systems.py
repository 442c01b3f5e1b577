"""Systems: the devices whose records can become a profile, with their peaks and the constants that no table holds.

`calibration/systems.yaml` says which topology knows the device, how drivers report it, and what is assumed of it. A
file of one's own lies over it: a device of one's own is a few lines there, and all else stands as it is shipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator

from moesim import shipped, yamlfile
from moesim.calibration.fit_operator import Peaks
from moesim.calibration.records import Records
from moesim.costs.profile_file import CommunicationSection, HostSection, SustainedSection
from moesim.costs.shapes import ARITHMETIC
from moesim.errors import BadInput, unknown_name
from moesim.hardware import Device, load_cluster
from moesim.units import ByteCount
from moesim.yamlfile import Document, Items, Section

FILE = ("calibration", "systems.yaml")
SOURCED: Final = {"elementwise_of_peak": "elementwise_source", "backward": "backward_source"}
COLD = "cold L2"  # in the provenance of records whose cache the harness evicted


class SystemSection(Section):
    """One device: the topology that knows it, its name in tables, those that drivers give it, its last-level cache
    (that of the topology's device where it is not given).
    """

    topology: str
    table: str = Field("", description="its name in aiconfigurator-core, the system's own if not given")
    reported_as: Items[str] = Field((), description="names beside the system's and the table's")
    cache: ByteCount | None = None
    cache_source: str = ""
    sustained: SustainedSection | None = None


class SystemsSection(Section):
    """All systems, and constants that all their profiles take."""

    elementwise_of_peak: float = Field(gt=0, le=1, description="of peak memory bandwidth, over minimal bytes")
    elementwise_source: str
    families: dict[str, Annotated[float, Field(ge=0)]]
    backward: dict[str, Annotated[float, Field(gt=0)]]
    backward_source: str
    communication: dict[str, CommunicationSection]
    host: dict[Literal["decode", "prefill", "train"], HostSection]
    notes: Items[str] = ()
    systems: dict[str, SystemSection]

    @field_validator("systems")
    @classmethod
    def _named(cls, systems: dict[str, SystemSection]) -> dict[str, SystemSection]:
        """Tables and users call a device by its table's and its system's name too."""
        found = {}
        for name, one in systems.items():
            table = one.table or name
            names = tuple(dict.fromkeys((table, name, *one.reported_as)))
            found[name] = one.model_copy(update={"table": table, "reported_as": names})
        return found


@dataclass(frozen=True)
class System:
    """One system: its name, facts, device, and the plain constants of all systems as they stand in the file."""

    name: str
    facts: SystemSection
    device: Device
    constants: SystemsSection
    raw: dict[str, object]

    def peaks(self, dtype: str) -> Peaks:
        """What kernels of that dtype cannot beat; arithmetic that the device lacks runs as bf16."""
        flops = self.device.peak_flops.get(ARITHMETIC.get(dtype, dtype), self.device.peak_flops["bf16"])
        return Peaks(flops, self.device.memory_bandwidth, self.cache)

    @property
    def cache(self) -> int:
        """Bytes of the last level."""
        return self.device.cache_bytes if self.facts.cache is None else self.facts.cache


def find_system(name: str, file: Path | None = None, topology: str | None = None) -> System:
    """topology: describes the device of a name that the file does not know. Raises BadInput with the known names, and
    where a known one is described again.
    """
    document = _systems(file)
    section = document.validate(SystemsSection)
    if topology is not None and name in section.systems:
        raise BadInput(f"system {name} is known", where="--topology", way_out="leave --topology out")
    if topology is not None:
        return _described(name, topology, section, document.data, warm=True, table=name)
    if name not in section.systems:
        error = unknown_name("system", name, section.systems)
        raise BadInput(error.what, way_out=f"--topology FILE describes the device of another; {error.way_out}")
    facts = section.systems[name]
    device = load_cluster(facts.topology).devices[0]
    return System(name, facts, device, section, document.data)


def system_of(records: Records, file: Path | None = None, topology: str | None = None) -> System:
    """The one system that all records were measured on. Raises BadInput.

    A device that the file does not know is described by a `topology` (a shipped name or a YAML file).
    """
    names = sorted(set(records["device"]))
    if len(names) != 1:
        raise BadInput(f"records of {len(names)} devices ({', '.join(names)})", way_out="a profile is of one device")
    document = _systems(file)
    section = document.validate(SystemsSection)
    if len(set(records["device_class"])) != 1:
        raise BadInput("records of a GPU and of a CPU", way_out="a profile is of one device")
    claims = [name for name, one in section.systems.items() if names[0] in one.reported_as]
    if topology is not None:
        device = load_cluster(topology).devices[0]
        home = section.systems[claims[-1]].topology if claims else topology
        if load_cluster(home).devices[0].name != device.name:
            raise BadInput(f"{names[0]} is known, and is no {device.name}", way_out="leave --topology out")
        warm = not all(COLD in str(text) for text in set(records["provenance"]))
        return _described(names[0], topology, section, document.data, warm=warm)
    if claims:
        return find_system(claims[-1], file)  # the last: of one's own file
    known = [one for facts in section.systems.values() for one in facts.reported_as]
    error = unknown_name("device", names[0], known)
    if records["device_class"][0] == "cpu":
        raise BadInput(error.what, way_out="--topology cpu-host, or a file like it with the peaks of this CPU")
    raise BadInput(
        error.what, way_out=f"--topology FILE describes it (its peaks, see `moesim topo show`); {error.way_out}"
    )


def known_devices() -> frozenset[str]:
    """Names that drivers and tables give the shipped systems."""
    section = _systems(None).validate(SystemsSection)
    return frozenset(name for one in section.systems.values() for name in one.reported_as)


def _systems(file: Path | None) -> Document:
    """The shipped file, or `file` over it. Raises BadInput where that changes a number and not its source."""
    plain = yamlfile.read_yaml(shipped.shipped(*FILE))
    if file is None:
        return plain
    own = yamlfile.read_yaml(file)
    for number, source in SOURCED.items():
        if number in own.data and source not in own.data:
            where = own.where((number,))
            raise BadInput("is changed, and its source is not", where=where, way_out=f"{source}: whose it is")
    return Document(_over(plain.data, own.data), own.source, own.lines)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Key by key. What names its source is one thing, and is replaced whole."""
    merged = dict(below)
    for key, value in above.items():
        old = below.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and "source" not in old:
            value = _over(old, value)
        merged[key] = value
    return merged


def _described(
    reported: str, topology: str, section: SystemsSection, raw: dict[str, object], *, warm: bool, table: str = ""
) -> System:  # fmt: skip
    """A device that only a topology knows. warm: its records may have found their bytes in its last-level cache, which
    is as large as the topology says.
    """
    device = load_cluster(topology).devices[0]
    cache, source = (device.cache_bytes, device.sources.get("cache", "")) if warm else (0, "evicted by the harness")
    own = {
        "topology": topology,
        "reported_as": [reported],
        "cache": f"{cache} B",
        "cache_source": source,
        "table": table,
    }
    return System(device.name, SystemSection.model_validate(own), device, section, raw)
