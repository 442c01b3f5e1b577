"""NCCL's topology XML (NCCL_TOPO_FILE): GPUs, their NVLinks and the network ports of one machine.

<system><cpu><pci class= link_speed= link_width=><gpu dev= sm= rank=><nvlink target= count= tclass=/></gpu></pci>
<nic><net name= dev= speed=Mb/s/></nic></cpu></system>. Source: NCCL's xml.cc and topo.h, read.
"""

from __future__ import annotations

import numpy as np

from moesim.errors import BadInput
from moesim.hardware.formats import gpu_links, safe_xml, wiring
from moesim.hardware.formats.format import Draft, Format, Plain, rate_text
from moesim.hardware.formats.safe_xml import Element
from moesim.yamlfile import Document

SOURCE = "NCCL topology XML"
SWITCH_CLASS = "0x068000"  # PCI class of an NVSwitch; 0x0302 and 0x0300 are GPUs


def recognise(text: str) -> bool:
    """A <system> element."""
    return text.lstrip().startswith("<") and "<system" in text


def read(text: str, source: str, like: Document) -> Draft:
    """One machine -> one node. Raises BadInput for unknown generations and for links to nowhere."""
    system = safe_xml.parse(text, source)
    slots = [pci for pci in system.all("pci") if any(child.tag == "gpu" for child in pci.children)]
    if system.tag != "system" or not slots:
        raise BadInput("no <system> with <gpu> elements", where=system.where)
    slots.sort(key=lambda pci: _gpu(pci).integer("dev"))
    devices = [_gpu(pci).integer("dev") for pci in slots]
    if len(set(devices)) < len(devices):
        raise BadInput(f"two GPUs are dev {devices[0]}", where=source, way_out="a file of one machine")
    generation = gpu_links.of_sm(_gpu(slots[0]).integer("sm"), _gpu(slots[0]).where)
    keys = _inside(slots, generation)
    ports, rate, notes = _ports(system, len(slots))
    if "node" not in keys and ports:
        notes.append(f"{ports} ports are left out: uneven NVLinks are listed link by link")
    keys = wiring.with_ports(keys, ports, rate_text(rate), f"{SOURCE}: speed of its <net> elements", source)
    named = str(like.data["device"]["name"])
    if gpu_links.BY_DEVICE.get(named.split("-")[0]) != generation:
        notes.append(f"the file's GPUs are of another generation than {named}, whose memory and FLOP/s are used")
    return Draft(keys, tuple(notes))


def _gpu(pci: Element) -> Element:
    return next(child for child in pci.children if child.tag == "gpu")


def _inside(slots: list[Element], generation: gpu_links.Generation) -> Plain:
    number = {pci.attributes.get("busid", "").lower(): index for index, pci in enumerate(slots)}
    direct = np.zeros((len(slots), len(slots)), dtype=np.int64)
    to_switch = np.zeros(len(slots), dtype=np.int64)
    for index, pci in enumerate(slots):
        for link in _gpu(pci).all("nvlink"):
            target = number.get(link.attributes.get("target", "").lower())
            if target is not None:
                direct[index, target] += link.integer("count", 1)
            elif link.attributes.get("tclass", "").lower().startswith(SWITCH_CLASS[:6]):
                to_switch[index] += link.integer("count", 1)
            else:
                raise BadInput(f"target {link.attributes.get('target')!r} is no GPU of the file", where=link.where)
    return _shape(direct, to_switch, slots, generation)


def _shape(
    direct: wiring.Ints, to_switch: wiring.Ints, slots: list[Element], generation: gpu_links.Generation
) -> Plain:
    if np.any(direct != direct.T):
        a, b = (int(i) for i in np.argwhere(direct != direct.T)[0])
        raise BadInput(f"GPUs {a} and {b} count their NVLinks differently", where=_gpu(slots[a]).where)
    if to_switch.any() and (direct.any() or len(set(to_switch.tolist())) > 1):
        raise BadInput("GPUs differ in their NVLinks to the switch", where=_gpu(slots[0]).where)
    if to_switch.any():
        return wiring.switched(len(slots), int(to_switch[0]), generation, SOURCE)
    if not direct.any():
        return wiring.host_only(len(slots), generation._replace(pcie=_slot_rate(slots[0], generation)), SOURCE)
    return wiring.direct(direct, generation, SOURCE)


def _slot_rate(pci: Element, generation: gpu_links.Generation) -> float:
    """B/s of "16.0 GT/s PCIe" x 16 lanes, nominal as the device tables give it; the generation's where not stated."""
    words = pci.attributes.get("link_speed", "").split()
    try:
        return float(words[0]) * 1e9 / 8 * pci.integer("link_width", 16) or generation.pcie
    except (IndexError, ValueError):
        return generation.pcie


def _ports(system: Element, gpus: int) -> tuple[int, float, list[str]]:
    """Ports of the highest speed among those near GPUs, B/s of each, notes."""
    nets = _near_gpus(system)
    if not nets:
        return 0, 0.0, ["no <net> elements: the node has no way out"]
    speeds = [net.integer("speed") for net in nets.values()]
    fastest = max(speeds)
    if fastest == 0:
        raise BadInput("speed=0", where=next(iter(nets.values())).where)
    found = speeds.count(fastest)
    left_out = len({net.attributes.get("name") for net in system.all("net")}) - found
    ports, pooled, notes = wiring.fit_ports(gpus, found)
    slower = [f"{left_out} ports that are slower or away from GPUs are left out"] if left_out else []
    return ports, fastest * 1e6 / 8 * pooled, [*notes, *slower]


def _near_gpus(system: Element) -> dict[str, Element]:
    """name -> <net> of the PCIe trees that hold a GPU; of the whole machine where no tree holds both."""
    roots = [pci for cpu in system.all("cpu") for pci in cpu.children if pci.tag == "pci"]
    near = [net for root in roots if root.all("gpu") for net in root.all("net")]
    return {net.attributes.get("name", net.where): net for net in near or system.all("net")}


FORMAT = Format("nccl-xml", "NCCL topology XML", recognise, read)
