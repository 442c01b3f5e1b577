"""NCCL's topology XML (NCCL_TOPO_FILE): GPUs, their NVLinks and the network ports of one machine.

<system><cpu><pci class= link_speed= link_width=><gpu dev= sm= rank=><nvlink target= count= tclass=/></gpu></pci>
<nic><net name= dev= speed=Mb/s/></nic></cpu></system>. Source: NCCL's xml.cc and topo.h, read. The files that clouds
ship list PCI devices alone, which NCCL completes when it starts: then PCI classes tell GPUs and ports, and NVLinks are
those that the device is known to have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from moesim.errors import BadInput
from moesim.hardware.formats import gpu_links, safe_xml
from moesim.hardware.formats.format import Draft, Format, Plain, rate_text
from moesim.hardware.formats.machine import Ints, NvLinks, nearest_ports
from moesim.hardware.formats.safe_xml import Element
from moesim.yamlfile import Document

SOURCE = "NCCL topology XML"
SWITCH_CLASS = "0x0680"  # PCI classes: bridge of another kind, which an NVSwitch is
GPU_CLASSES = ("0x0302", "0x0300")  # 3D controller, VGA controller
NVIDIA = "0x10de"  # beside its GPUs a server's management controller may be a VGA device
PORT_CLASSES = ("0x0207", "0x0200")  # InfiniBand, Ethernet
DUMP = "the file that NCCL writes where NCCL_TOPO_DUMP_FILE names it"


class Place(NamedTuple):
    """An element and the elements above it, outermost first."""

    element: Element
    above: tuple[Element, ...]

    def distance(self, port: Place) -> int:
        """As nvidia-smi counts: 1 to 3 bridges up to a common one, 4 in the same socket, 5 elsewhere."""
        way = (*self.above, self.element)
        shared = sum(a is b for a, b in zip(way, port.above, strict=False))
        if not shared:
            return 5
        bridged = any(each.tag == "pci" for each in way[:shared])
        return min(max(len(way), len(port.above) + 1) - shared, 3) if bridged else 4


def recognise(text: str) -> bool:
    """A <system> element."""
    return text.lstrip().startswith("<") and "<system" in text


def read(text: str, source: str, like: Document) -> Draft:
    """One machine -> one node. Raises BadInput for unknown generations and for links to nowhere."""
    system = safe_xml.parse(text, source)
    places = list(_places(system, ()))
    slots = [place for place in places if place.element.tag == "pci" and _gpu(place.element) is not None]
    if slots:
        return _completed(slots, places, source, like)
    shown = [place for place in places if _is_class(place.element, GPU_CLASSES)]
    bare = [place for place in shown if _vendor(place) == NVIDIA] or shown
    if system.tag != "system" or not bare:
        raise BadInput("no <system> with GPUs, as <gpu> or as PCI devices", where=system.where, way_out=DUMP)
    ports = [place for place in places if _is_class(place.element, PORT_CLASSES)]
    made, others = _bare(bare, ports, like), len(shown) - len(bare)
    left = f"{others} display controllers of other vendors than NVIDIA are left out"
    return replace(made, notes=(*made.notes, left)) if others else made


def _distances(gpus: Sequence[Place], ports: Sequence[Place]) -> Ints:
    """int64[G, N]."""
    table = [[gpu.distance(port) for port in ports] for gpu in gpus]
    return np.array(table, dtype=np.int64).reshape(len(gpus), len(ports))


def _places(element: Element, above: tuple[Element, ...]) -> Iterator[Place]:
    """Every element below, in document order."""
    for child in element.children:
        yield Place(child, above)
        yield from _places(child, (*above, child))


def _gpu(pci: Element) -> Element | None:
    return next((child for child in pci.children if child.tag == "gpu"), None)


def _is_class(element: Element, classes: tuple[str, ...]) -> bool:
    return element.tag == "pci" and element.attributes.get("class", "").lower().startswith(classes)


def _bare(gpus: list[Place], ports: list[Place], like: Document) -> Draft:
    """PCI devices alone: NVLinks by the device, and the rate of ports by the topology `like`. Raises BadInput for GPUs
    of several generations.
    """
    named, first = str(like.data["device"]["name"]), gpus[0].element
    every = [gpu_links.of_pci(_id(gpu)) for gpu in gpus]
    _same([(_id(gpu), one) for gpu, one in zip(gpus, every, strict=True)], gpus)
    known = every[0]
    found = known or gpu_links.of_device(named, like.source)
    links = np.full(len(gpus), found.links, dtype=np.int64)
    nvlinks = NvLinks(np.zeros((len(links), len(links)), dtype=np.int64), links)
    keys, notes = nvlinks.keys(found, f"{SOURCE}, its PCI devices", first.where)
    whose = "by the GPUs' PCI device id" if known else f"as {named} has, since the file does not say which GPUs it has"
    notes.append(f"the file lists PCI devices only: {found.links} NVLinks a GPU into a switch are assumed, {whose}")
    nearest = nearest_ports(_distances(gpus, ports))
    notes += nearest.as_in(like, keys, "the file")
    return Draft(keys, (*notes, *_mixed(gpus), *_other_device(found, named)))


def _vendor(slot: Place) -> str:
    return slot.element.attributes.get("vendor", "").lower()


def _id(slot: Place) -> str:
    """PCI device id, "" where the file does not say."""
    return slot.element.attributes.get("device", "").lower()


def _same(named: Sequence[tuple[str, object]], slots: Sequence[Place]) -> None:
    """named: what the file calls each slot's GPU, and what is known by that. Raises BadInput where that differs."""
    for number, (name, what) in enumerate(named):
        if what != named[0][1]:
            raise BadInput(
                f"is a GPU of another kind ({name or 'no id'}) than the first ({named[0][0] or 'no id'})",
                where=slots[number].element.where,
                way_out="a file of each machine: a node's GPUs are of one kind, a topology's `others:` has other nodes",
            )


def _mixed(slots: Sequence[Place]) -> list[str]:
    """Said where GPUs have the same links and slots, and other ids."""
    ids = sorted({_id(slot) for slot in slots})
    said = f"the file's GPUs have {len(ids)} PCI device ids ({', '.join(one or 'none' for one in ids)})"
    return [f"{said}: all are taken to be of one kind"] if len(ids) > 1 else []


def _other_device(found: gpu_links.Generation, named: str) -> list[str]:
    if gpu_links.of_device(named, named) == found:
        return []
    own = gpu_links.shipped(found)
    way_out = f"; --like {own} has theirs" if own else ""
    return [f"the file's GPUs are of another generation than {named}, whose memory and FLOP/s are used{way_out}"]


def _completed(slots: list[Place], places: list[Place], source: str, like: Document) -> Draft:
    """With <gpu> and <net> elements. Raises BadInput for GPUs of several generations."""
    slots = sorted(slots, key=lambda place: _numbered(place.element))
    numbers = [_numbered(place.element) for place in slots]
    if len(set(numbers)) < len(numbers):
        raise BadInput(f"two GPUs are dev {numbers[0]}", where=source, way_out="a file of one machine")
    gpu = _gpu(slots[0].element)
    assert gpu is not None
    _same([(f"sm {sm}", sm) for sm in map(_capability, slots)], slots)
    generation = gpu_links.of_sm(gpu.integer("sm"), gpu.where)
    generation = generation._replace(pcie=_slot_rate(slots[0].element, generation))
    nvlinks, notes = _nvlinks([slot.element for slot in slots])
    keys, said = nvlinks.keys(generation, SOURCE, gpu.where)
    nets = {place.element.attributes.get("name", place.element.where): place for place in places if _is_net(place)}
    notes += [*said, *_add_ports(keys, slots, list(nets.values()))]
    known = gpu_links.of_sm(gpu.integer("sm"), gpu.where)
    return Draft(keys, (*notes, *_mixed(slots), *_other_device(known, str(like.data["device"]["name"]))))


def _capability(slot: Place) -> int:
    gpu = _gpu(slot.element)
    assert gpu is not None
    return gpu.integer("sm")


def _numbered(pci: Element) -> int:
    gpu = _gpu(pci)
    assert gpu is not None
    return gpu.integer("dev")


def _is_net(place: Place) -> bool:
    return place.element.tag == "net"


def _nvlinks(slots: list[Element]) -> tuple[NvLinks, list[str]]:
    number = {pci.attributes.get("busid", "").lower(): index for index, pci in enumerate(slots)}
    direct = np.zeros((len(slots), len(slots)), dtype=np.int64)
    switched = np.zeros(len(slots), dtype=np.int64)
    for index, pci in enumerate(slots):
        for link in (link for child in pci.children if child.tag == "gpu" for link in child.all("nvlink")):
            target = number.get(link.attributes.get("target", "").lower())
            if target is not None:
                direct[index, target] += link.integer("count", 1)
            elif link.attributes.get("tclass", "").lower().startswith(SWITCH_CLASS):
                switched[index] += link.integer("count", 1)
            else:
                raise BadInput(f"target {link.attributes.get('target')!r} is no GPU of the file", where=link.where)
    notes = []
    if loops := int(np.trace(direct)):
        notes.append(f"{loops} NVLinks lead from GPUs to themselves and are left out (a GPU alone in its partition)")
        np.fill_diagonal(direct, 0)
    if np.any(direct != direct.T):
        a, b = (int(i) for i in np.argwhere(direct != direct.T)[0])
        raise BadInput(f"GPUs {a} and {b} count their NVLinks differently", where=slots[a].where)
    return NvLinks(direct, switched), notes


def _slot_rate(pci: Element, generation: gpu_links.Generation) -> float:
    """B/s of "16.0 GT/s PCIe" x 16 lanes, nominal as the device tables give it; the generation's where not stated."""
    words = pci.attributes.get("link_speed", "").split()
    try:
        return float(words[0]) * 1e9 / 8 * pci.integer("link_width", 16) or generation.pcie
    except (IndexError, ValueError):
        return generation.pcie


def _add_ports(keys: Plain, slots: list[Place], nets: list[Place]) -> list[str]:
    """Ports of the highest speed into `keys`; notes."""
    speeds = [net.element.integer("speed") for net in nets]
    if nets and not max(speeds):
        raise BadInput("speed=0", where=nets[0].element.where)
    fastest = [net for net, speed in zip(nets, speeds, strict=True) if speed == max(speeds)]
    ports = nearest_ports(_distances(slots, fastest))
    slower = [f"{len(nets) - len(fastest)} ports that are slower are left out"] if len(nets) > len(fastest) else []
    rate = rate_text(max(speeds, default=0) * 1e6 / 8 * ports.pooled)
    return [*ports.add_to(keys, rate, f"{SOURCE}: speed of its <net> elements"), *slower]


FORMAT = Format("nccl-xml", "NCCL topology XML", recognise, read)
