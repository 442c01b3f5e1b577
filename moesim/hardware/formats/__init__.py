"""Topologies from and for other tools. One file a format, one line in the registry.

`import_topology(path)` makes the text of a topology file from another tool's; `export_topology(cluster, format)` writes
another tool's. What is assumed on the way in, or lost on the way out, is in `notes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moesim import foreign, yamlfile
from moesim.errors import BadInput, unknown_name
from moesim.hardware.census import census
from moesim.hardware.cluster import Cluster
from moesim.hardware.formats import astra_sim, graphml, nccl_xml, ns3_links, nvidia_smi, slurm_conf, slurm_yaml
from moesim.hardware.formats.format import Format, Written, yaml_text
from moesim.hardware.load import find_topology, seal

__all__ = ["REGISTRY", "Format", "Imported", "Written", "export_topology", "import_topology"]

REGISTRY: dict[str, Format] = {
    each.name: each
    for each in (
        astra_sim.FORMAT,
        graphml.FORMAT,
        nccl_xml.FORMAT,
        ns3_links.FORMAT,
        nvidia_smi.FORMAT,
        slurm_conf.FORMAT,
        slurm_yaml.FORMAT,
    )
}


@dataclass(frozen=True)
class Imported:
    """text: a topology file; cluster: what it describes; found: counts and rates in a sentence; notes: what the source
    did not say and was assumed.
    """

    text: str
    cluster: Cluster
    found: str
    notes: tuple[str, ...]


def import_topology(path: str | Path, *, format: str | None = None, like: str = "dgx-h100") -> Imported:
    """Read another tool's file; a shipped topology or file `like` lends the device and the rates that it lacks.

    Without `format` the content decides. Raises BadInput with file and line, or with the known formats.
    """
    text, source = yamlfile.read_text(Path(path)), str(path)
    reader = _reader(text, source, format)
    lender = yamlfile.read_yaml(find_topology(like))
    assert reader.read is not None
    with foreign.reading(path, f"{reader.name} topology"):
        draft = reader.read(text, source, lender)
    head = {
        "moesim_topology": 1,
        "name": Path(path).stem,
        "description": f"imported from {Path(path).name} ({reader.name}); device of {like}",
        "device": lender.data["device"],
    }
    made = yaml_text({**head, **draft.keys})
    document = yamlfile.parse_yaml(made, f"import of {source}")
    return Imported(made, seal(document), census(document).sentence(), draft.notes)


def export_topology(cluster: Cluster, format: str) -> Written:
    """Write a cluster for another tool. Raises BadInput for an unknown format or what the format cannot say."""
    writers = {name: each for name, each in REGISTRY.items() if each.write is not None}
    if format not in writers:
        raise unknown_name("export format", format, writers)
    write = writers[format].write
    assert write is not None
    return write(cluster)


def _reader(text: str, source: str, name: str | None) -> Format:
    readers = {key: each for key, each in REGISTRY.items() if each.read is not None}
    if name is not None:
        if name not in readers:
            raise unknown_name("import format", name, readers)
        return readers[name]
    fitting = [each for each in readers.values() if each.recognise is not None and each.recognise(text)]
    if len(fitting) != 1:
        raise BadInput("its format is not recognised", where=source, way_out=f"name it: {', '.join(readers)}")
    return fitting[0]
