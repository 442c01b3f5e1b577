"""Slurm's topology.conf: a tree of switches (SwitchName=) or blocks of nodes (BlockName=).

Source: man page topology.conf(5). LinkSpeed is information only there, and has no unit: it is noted, not used.
"""

from __future__ import annotations

import re

from moesim.errors import BadInput
from moesim.hardware.formats import tree
from moesim.hardware.formats.format import Draft, Format
from moesim.hardware.formats.hostlist import expand
from moesim.yamlfile import Document

_PAIR = re.compile(r"\b(\w+)\s*=\s*(\S+)")  # from the start of a word only: from each letter it grows as their square
_KEYS = {"switchname", "switches", "nodes", "linkspeed", "blockname", "blocksizes"}


def recognise(text: str) -> bool:
    """It names switches or blocks."""
    return any(line.lstrip().lower().startswith(("switchname", "blockname")) for line in text.splitlines())


def read(text: str, source: str, like: Document) -> Draft:
    """Switches or blocks -> Draft."""
    switches, blocks, notes = list[tree.Switch](), list[tree.Switch](), list[str]()
    for number, line in enumerate(text.replace("\\\n", " \n").splitlines(), start=1):
        place = f"{source}:{number}"
        pairs = _pairs(line.split("#", 1)[0].strip(), place)
        if "linkspeed" in pairs and not notes:
            notes.append("LinkSpeed was not used: it has no unit")
        if "switchname" in pairs:
            children, hosts = (expand(pairs.get(key, ""), place) for key in ("switches", "nodes"))
            switches.append(tree.switch_of(pairs["switchname"], place, children, hosts))
        elif "blockname" in pairs:
            blocks.append(tree.Switch(pairs["blockname"], place, hosts=expand(pairs.get("nodes", ""), place)))
        elif pairs and "blocksizes" not in pairs:
            raise BadInput("neither SwitchName nor BlockName", where=place)
    if blocks and switches:
        raise BadInput("switches and blocks in one file", where=source, way_out="the lines of one topology plugin")
    made = tree.blocks_draft(blocks, like, source) if blocks else tree.draft(switches, like, source)
    return Draft(made.keys, (*made.notes, *notes))


def _pairs(line: str, place: str) -> dict[str, str]:
    rest = _PAIR.sub("", line).strip()
    pairs = {key.lower(): value for key, value in _PAIR.findall(line)}
    unknown = sorted(set(pairs) - _KEYS)
    if rest or unknown:
        raise BadInput(f"{rest or unknown[0]!r} is not understood", where=place, way_out="Key=Value pairs, # comments")
    return pairs


FORMAT = Format("slurm-conf", "Slurm topology.conf", recognise, read)
