"""Slurm's topology.yaml: a list of named topologies, each a tree, blocks, or flat.

Source: man page topology.yaml(5). Slurm reads it before topology.conf.
"""

from __future__ import annotations

import re

from pydantic import Field, model_validator

from moesim import yamlfile
from moesim.errors import BadInput
from moesim.hardware.formats import tree
from moesim.hardware.formats.format import Draft, Format
from moesim.hardware.formats.hostlist import expand
from moesim.hardware.formats.slurm_conf import block_tree
from moesim.yamlfile import Items, Section


class SwitchRow(Section):
    """One switch."""

    switch: str
    children: str = ""
    nodes: str = ""


class BlockRow(Section):
    """One block."""

    block: str
    nodes: str


class TreeSection(Section):
    """`tree:`."""

    switches: Items[SwitchRow]


class BlockSection(Section):
    """`block:`."""

    block_sizes: Items[int] = ()
    blocks: Items[BlockRow]


class TopologyRow(Section):
    """One named topology: exactly one of tree, block, flat."""

    topology: str
    cluster_default: bool = False
    tree: TreeSection | None = None
    block: BlockSection | None = None
    flat: bool = False

    @model_validator(mode="after")
    def _one(self) -> TopologyRow:
        if (self.tree is not None) + (self.block is not None) + self.flat != 1:
            raise ValueError("a topology is exactly one of tree, block, flat: true")
        return self


class File(Section):
    """The whole file."""

    topologies: Items[TopologyRow] = Field(min_length=1)


def recognise(text: str) -> bool:
    """A list whose items are named topologies."""
    return re.search(r"(?m)^\s*-\s+topology\s*:", text) is not None


def read(text: str, source: str, like: yamlfile.Document) -> Draft:
    """The cluster's default topology, or else the first -> Draft."""
    document = yamlfile.parse_yaml(text, source, list_key="topologies")
    rows = document.validate(File).topologies
    number = next((i for i, row in enumerate(rows) if row.cluster_default), 0)
    made = tree.draft(_switches(rows[number], number, document), like, source)
    others = [row.topology for i, row in enumerate(rows) if i != number]
    skipped = (f"topology {rows[number].topology} was read, not {', '.join(others)}",) if others else ()
    return Draft(made.keys, (*made.notes, *skipped))


def _switches(row: TopologyRow, number: int, document: yamlfile.Document) -> list[tree.Switch]:
    keys: yamlfile.Keys = ("topologies", number)
    if row.flat:
        raise BadInput("a flat topology names no hosts", where=document.where((*keys, "flat")), way_out="a shipped one")
    if row.block is not None:
        place = document.where((*keys, "block", "blocks"))
        blocks = [tree.Switch(block.block, place, hosts=expand(block.nodes, place)) for block in row.block.blocks]
        return block_tree(blocks, place)
    assert row.tree is not None
    found = []
    for index, each in enumerate(row.tree.switches):
        place = document.where((*keys, "tree", "switches", index))
        found.append(tree.switch_of(each.switch, place, expand(each.children, place), expand(each.nodes, place)))
    return found


FORMAT = Format("slurm-yaml", "Slurm topology.yaml", recognise, read)
