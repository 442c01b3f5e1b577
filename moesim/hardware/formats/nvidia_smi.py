"""The matrix that `nvidia-smi topo -m` prints: NVLinks between GPUs, and how near each NIC is.

Source: legend of the tool. `NV#` is the number of NVLinks of a pair; behind an NVSwitch every pair shows all links.
"""

from __future__ import annotations

import re

import numpy as np

from moesim.errors import BadInput
from moesim.hardware.formats import gpu_links, wiring
from moesim.hardware.formats.format import Draft, Format, node_of_like
from moesim.yamlfile import Document

SOURCE = "nvidia-smi topo -m"
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
_COLUMN = re.compile(r"GPU\d+|NIC\d+|mlx\d+_\w+")
_NEAR = {"X": 0, "PIX": 1, "PXB": 2, "PHB": 3, "NODE": 4, "SYS": 5, "SOC": 5}
Rows = dict[str, dict[str, str]]


def recognise(text: str) -> bool:
    """A header of GPU columns and rows of GPUs."""
    return re.search(r"(?m)^\s*(\x1b\[4m)?\s*GPU0\s", text) is not None


def read(text: str, source: str, like: Document) -> Draft:
    """One machine -> one node; NVLink and PCIe rates by the device of `like`, port rates from its node."""
    rows = _rows(text, source)
    gpus = [name for name in rows if name.startswith("GPU")]
    if gpus != [f"GPU{number}" for number in range(len(gpus))] or not gpus:
        raise BadInput(f"rows of GPUs are {', '.join(gpus) or 'missing'}", where=source, way_out="the whole matrix")
    generation = gpu_links.of_device(str(like.data["device"]["name"]), like.source)
    keys = _inside(rows, gpus, generation, source)
    ports, _, left_out = wiring.fit_ports(len(gpus), _ports(rows, gpus))
    notes = [f"nvidia-smi states no rates: they are those of {like.data['device']['name']}", *left_out]
    if ports and "node" in keys:
        outer = next((tier for key in ("nic", "roce", "tcp") if (tier := node_of_like(like, "a port").get(key))), None)
        if outer is None:
            raise BadInput("its node has no port whose rate could be taken", where=like.source)
        keys = wiring.with_ports(keys, ports, outer["value"], f"{SOURCE}; rate as in {like.data['name']}", source)
    elif ports:
        notes.append(f"{ports} NICs are left out: uneven NVLinks are listed link by link")
    return Draft(keys, tuple(notes))


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
            cell for cell in rows[cells[0]].values() if cell not in _NEAR and not re.fullmatch(r"NV\d{1,2}", cell)
        ]
        if strange:
            raise BadInput(f"cell {strange[0]!r} is not in the legend", where=f"{source}:{number}")
    return rows


def _inside(rows: Rows, gpus: list[str], generation: gpu_links.Generation, source: str) -> dict[str, object]:
    cells = [[rows[a].get(b, "") for b in gpus] for a in gpus]
    count = np.array([[int(cell[2:]) if cell.startswith("NV") else 0 for cell in row] for row in cells], dtype=np.int64)
    if np.any(count != count.T) or any(cells[i][i] != "X" for i in range(len(gpus))):
        raise BadInput("the matrix is not symmetric with X on its diagonal", where=source)
    links = int(count.max())
    if not links:
        return wiring.host_only(len(gpus), generation, SOURCE)
    if not generation.links or links > generation.links:
        raise BadInput(f"NV{links} is more than the device of 'like' has ({generation.links})", where=source)
    every = count[~np.eye(len(gpus), dtype=bool)]
    if np.all(every == links) and links * (len(gpus) - 1) > generation.links:
        return wiring.switched(len(gpus), links, generation, SOURCE)
    return wiring.direct(count, generation, SOURCE)


def _ports(rows: Rows, gpus: list[str]) -> int:
    """The number of NICs that are as near as any to some GPU; 0 where some GPU has none below its own PCIe root."""
    near: dict[str, None] = {}
    for gpu in gpus:
        distance = {name: _NEAR.get(cell, 9) for name, cell in rows[gpu].items() if not name.startswith("GPU")}
        nearest = min(distance.values(), default=9)
        if nearest > _NEAR["PHB"]:
            return 0
        near |= {name: None for name, steps in distance.items() if steps == nearest}
    return len(near)


FORMAT = Format("nvidia-smi", "text of nvidia-smi topo -m", recognise, read)
