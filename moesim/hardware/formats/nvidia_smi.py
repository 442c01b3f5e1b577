"""The matrix that `nvidia-smi topo -m` prints: NVLinks between GPUs, and how near each NIC is.

Source: legend of the tool. `NV#` is the number of NVLinks of a pair; behind an NVSwitch every pair shows all links.
"""

from __future__ import annotations

import re

import numpy as np

from moesim.errors import BadInput
from moesim.hardware.formats import gpu_links
from moesim.hardware.formats.format import Draft, Format
from moesim.hardware.formats.machine import Ints, NvLinks, nearest_ports
from moesim.yamlfile import Document

SOURCE = "nvidia-smi topo -m"
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
_COLUMN = re.compile(r"GPU\d+|NIC\d+|mlx\d+_\w+")
_STEPS = {"X": 0, "PIX": 1, "PXB": 2, "PHB": 3, "NODE": 4, "SYS": 5, "SOC": 5}
_PRODUCT = re.compile(r"(?:NVIDIA|Tesla)[ -](?:GeForce )?((?:RTX (?:PRO )?)?[A-Z]{0,2}\d{1,4}[A-Z]?)\b")
Rows = dict[str, dict[str, str]]


def recognise(text: str) -> bool:
    """A header that begins with a GPU column."""
    return any(_COLUMN.match(line.strip()) for line in _ESCAPE.sub("", text).splitlines())


def read(text: str, source: str, like: Document) -> Draft:
    """One machine -> one node; NVLink and PCIe rates by the device of `like`, port rates from its node."""
    rows = _rows(text, source)
    gpus = [name for name in rows if name.startswith("GPU")]
    if gpus != [f"GPU{number}" for number in range(len(gpus))] or not gpus:
        raise BadInput(f"rows of GPUs are {', '.join(gpus) or 'missing'}", where=source, way_out="the whole matrix")
    if lacking := [name for name in rows[gpus[0]] if name.startswith("GPU") and name not in rows]:
        raise BadInput(f"column {lacking[0]} has no row", where=source, way_out="the whole matrix")
    named = str(like.data["device"]["name"])
    generation = gpu_links.of_device(named, like.source)
    links = _nvlinks(rows, gpus, generation, source)
    keys, notes = links.keys(generation, SOURCE, source)
    ports = nearest_ports(_distances(rows, gpus))
    notes = [f"{SOURCE} states no rates: they are those of {named}", *_another(text, named), *notes]
    if len(gpus) > 1 and not (links.direct.any() or links.switched.any()):
        notes.append("no pair of GPUs has NVLinks; `nvidia-smi topo -mp` leaves them out, -m shows them")
    return Draft(keys, (*notes, *ports.as_in(like, keys, "it")))


def _another(text: str, named: str) -> list[str]:
    """Where a product is named around the matrix, and it is not the device of `like`."""
    found = _PRODUCT.search(text)
    if len(products := sorted({one[1] for one in _PRODUCT.finditer(text)})) > 1:
        return [f"the text names several GPUs ({', '.join(products)}): all of the machine are taken to be {named}"]
    if found is None or f"{named}-".upper().startswith(f"{found[1].replace(' ', '-').upper()}-"):
        return []
    return [f"the text names {found[0]}, not {named}: `--like` with a topology of that GPU has its rates"]


def _rows(text: str, source: str) -> Rows:
    lines = _ESCAPE.sub("", text).splitlines()
    start = next((i for i, line in enumerate(lines) if _COLUMN.match(line.strip())), None)
    if start is None:
        raise BadInput("no header with GPU0 in it", where=source)
    columns = _COLUMN.findall(lines[start].split("CPU Affinity")[0])
    rows: Rows = {}
    for number, line in enumerate(lines[start + 1 :], start=start + 2):
        cells = line.split()
        if not cells or not _COLUMN.fullmatch(cells[0]):
            break
        if len(cells) <= len(columns) or cells[0] in rows:
            raise BadInput(
                f"row {cells[0]} has {len(cells) - 1} cells for {len(columns)} columns", where=f"{source}:{number}"
            )
        rows[cells[0]] = dict(zip(columns, cells[1:], strict=False))
        strange = [
            cell for cell in rows[cells[0]].values() if cell not in _STEPS and not re.fullmatch(r"NV\d{1,2}", cell)
        ]
        if strange:
            raise BadInput(f"cell {strange[0]!r} is not in the legend", where=f"{source}:{number}")
    return rows


def _nvlinks(rows: Rows, gpus: list[str], generation: gpu_links.Generation, source: str) -> NvLinks:
    """Behind a switch every pair shows all links of a GPU: more in all than a GPU has. Raises BadInput."""
    cells = [[rows[a].get(b, "") for b in gpus] for a in gpus]
    count = np.array([[int(cell[2:]) if cell.startswith("NV") else 0 for cell in row] for row in cells], dtype=np.int64)
    if np.any(count != count.T) or any(cells[i][i] != "X" for i in range(len(gpus))):
        raise BadInput("the matrix is not symmetric with X on its diagonal", where=source)
    links, none = int(count.max()), np.zeros(len(gpus), dtype=np.int64)
    if links > generation.links:
        raise BadInput(f"NV{links} is more than the device of 'like' has ({generation.links})", where=source)
    if count.sum(axis=1).max() <= generation.links:
        return NvLinks(count, none)
    switched = count.max(axis=1)
    if np.any(count != np.minimum(switched[:, None], switched) * ~np.eye(len(gpus), dtype=bool)):
        raise BadInput(
            f"NVLinks are more than a GPU has ({generation.links}), yet not those of one switch",
            where=source,
            way_out="'like' with the GPU of this machine",
        )
    return NvLinks(np.zeros_like(count), switched)


def _distances(rows: Rows, gpus: list[str]) -> Ints:
    """int64[G, N]: how far each NIC is."""
    nics = [name for name in rows[gpus[0]] if not name.startswith("GPU")]
    table = [[_STEPS.get(rows[gpu][nic], 5) for nic in nics] for gpu in gpus]
    return np.array(table, dtype=np.int64).reshape(len(gpus), len(nics))


FORMAT = Format("nvidia-smi", "text of nvidia-smi topo -m", recognise, read)
