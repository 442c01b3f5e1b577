"""What tools that print a machine's wiring leave out: how fast one NVLink or PCIe slot of a generation is.

Nominal, per direction. NVLink 3 and 4: 25 GB/s a link, NVLink 5: 50 GB/s (NVIDIA A100, H100 and Blackwell data sheets:
600 GB/s over 12, 900 over 18 and 1,800 over 18 links, both ways together). NCCL reckons 20.0, 20.6 and 40.1 GB/s for
what a link achieves (its xml.cc and topo.h); achieved rates belong in profiles, so they are not used here.
"""

from __future__ import annotations

from typing import NamedTuple

from moesim.errors import BadInput


class Generation(NamedTuple):
    """nvlink: B/s of one link and direction; links: of one GPU; pcie: B/s of its x16 slot and direction."""

    nvlink: float
    links: int
    pcie: float


BY_SM = {80: Generation(25e9, 12, 32e9), 90: Generation(25e9, 18, 64e9), 100: Generation(50e9, 18, 64e9)}
BY_SM[103] = BY_SM[100]  # B300: NVLink 5 too
BY_DEVICE = {
    **dict.fromkeys(("A100", "A800"), BY_SM[80]),
    **dict.fromkeys(("H20", "H100", "H200", "H800"), BY_SM[90]),
    **dict.fromkeys(("B200", "GB200", "B300", "GB300"), BY_SM[100]),
    **dict.fromkeys(("H100-PCIe", "RTX-5090", "RTX-PRO"), Generation(0.0, 0, 64e9)),
    **dict.fromkeys(("L40S", "RTX-4090"), Generation(0.0, 0, 32e9)),
}

# NVIDIA's PCI device ids (pci.ids, 2025) of data centre GPUs; PCIe cards have a bridge at most
BY_PCI = {
    **dict.fromkeys(("0x20b0", "0x20b2"), BY_SM[80]),  # A100 SXM4 40 and 80 GB
    **dict.fromkeys(("0x20b5", "0x20f1"), BY_SM[80]._replace(links=0)),  # A100 PCIe 80 and 40 GB
    "0x2324": BY_SM[90]._replace(links=8),  # H800: 400 GB/s both ways together
    **dict.fromkeys(("0x2329", "0x2330", "0x2335"), BY_SM[90]),  # H20, H100 SXM5, H200 SXM
    # H100 NVL, H800 PCIe, H100 PCIe, H200 NVL
    **dict.fromkeys(("0x2321", "0x2322", "0x2331", "0x233b"), BY_SM[90]._replace(links=0)),
    **dict.fromkeys(("0x2901", "0x2941", "0x3182", "0x31c2", "0x31c3"), BY_SM[100]),  # B200, GB200, B300, GB300 twice
    "0x2684": BY_DEVICE["RTX-4090"],
    **dict.fromkeys(("0x2b85", "0x2bb5"), BY_DEVICE["RTX-5090"]),  # RTX 5090, RTX PRO 6000
}
SHIPPED = {"dgx-a100": BY_SM[80], "dgx-h100": BY_SM[90], "dgx-b200": BY_SM[100]}


def shipped(generation: Generation) -> str:
    """A shipped topology of GPUs with such links and slots, however many links a GPU has; "" where there is none."""
    return next((name for name, one in SHIPPED.items() if one._replace(links=generation.links) == generation), "")


def of_pci(device: str) -> Generation | None:
    """By a PCI device id such as "0x2330"; None for one that is not known."""
    return BY_PCI.get(device.lower())


def of_sm(sm: int, where: str) -> Generation:
    """By compute capability without the dot. Raises BadInput for one that is not known."""
    if sm not in BY_SM:
        raise BadInput(f"sm {sm} is not known", where=where, way_out=f"one of {', '.join(map(str, BY_SM))}")
    return BY_SM[sm]


def of_device(name: str, where: str) -> Generation:
    """By the longest family that a device's name begins with. Raises BadInput for one that is not known."""
    families = [family for family in BY_DEVICE if name == family or name.startswith(f"{family}-")]
    if not families:
        raise BadInput(f"device {name} is not known", where=where, way_out=f"'like' with one of {', '.join(BY_DEVICE)}")
    return BY_DEVICE[max(families, key=len)]
