"""Systems: the devices whose records can become a profile, with their peaks and the constants that no table holds.

`calibration/systems.yaml` says which topology knows the device, how drivers report it, and what is assumed of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from moesim import shipped, yamlfile
from moesim.calibration.fit_operator import Peaks
from moesim.calibration.records import Records
from moesim.costs.profile_file import CommunicationSection, HostSection, SustainedSection
from moesim.costs.shapes import ARITHMETIC
from moesim.errors import BadInput, unknown_name
from moesim.hardware import Device, load_cluster
from moesim.units import ByteCount
from moesim.yamlfile import Items, Section

FILE = ("calibration", "systems.yaml")
COLD = "cold L2"  # in the provenance of records whose cache the harness evicted


class SystemSection(Section):
    """One device: the topology that knows it, the names that drivers and tables give it, its last-level cache."""

    topology: str
    reported_as: Items[str]
    cache: ByteCount
    cache_source: str
    table: str = Field("", description="its name in aiconfigurator-core")
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
        return Peaks(flops, self.device.memory_bandwidth, self.facts.cache)


def find_system(name: str, file: Path | None = None, topology: str | None = None) -> System:
    """topology: describes the device of a name that the file does not know. Raises BadInput with the known names, and
    where a known one is described again.
    """
    document = yamlfile.read_yaml(file or shipped.shipped(*FILE))
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
    document = yamlfile.read_yaml(file or shipped.shipped(*FILE))
    section = document.validate(SystemsSection)
    if len(set(records["device_class"])) != 1:
        raise BadInput("records of a GPU and of a CPU", way_out="a profile is of one device")
    home = next((one for one in section.systems.values() if names[0] in one.reported_as), None)
    if topology is not None:
        device = load_cluster(topology).devices[0]
        if home and load_cluster(home.topology).devices[0].name != device.name:
            raise BadInput(f"{names[0]} is known, and is no {device.name}", way_out="leave --topology out")
        warm = not all(COLD in str(text) for text in set(records["provenance"]))
        return _described(names[0], topology, section, document.data, warm=warm)
    for name, facts in section.systems.items():
        if names[0] in facts.reported_as:
            return find_system(name, file)
    known = [one for facts in section.systems.values() for one in facts.reported_as]
    error = unknown_name("device", names[0], known)
    raise BadInput(
        error.what, way_out=f"--topology FILE describes it (its peaks, see `moesim topo show`); {error.way_out}"
    )


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
