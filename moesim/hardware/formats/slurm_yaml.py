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
from moesim.yamlfile import Items, Section

_ITEM = re.compile(r"\s{0,64}-\s{1,8}topology\s{0,8}:")


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
    return any(_ITEM.match(line) for line in text.splitlines())


def read(text: str, source: str, like: yamlfile.Document) -> Draft:
    """The cluster's default topology, or else the first -> Draft."""
    document = yamlfile.parse_yaml(text, source, list_key="topologies")
    rows = document.validate(File).topologies
    number = next((i for i, row in enumerate(rows) if row.cluster_default), 0)
    made = _draft(rows[number], number, document, like)
    others = [row.topology for i, row in enumerate(rows) if i != number]
    skipped = (f"topology {rows[number].topology} was read, not {', '.join(others)}",) if others else ()
    return Draft(made.keys, (*made.notes, *skipped))


def _draft(row: TopologyRow, number: int, document: yamlfile.Document, like: yamlfile.Document) -> Draft:
    keys: yamlfile.Keys = ("topologies", number)
    if row.flat:
        raise BadInput("a flat topology names no hosts", where=document.where((*keys, "flat")), way_out="a shipped one")
    if row.block is not None:
        place = document.where((*keys, "block", "blocks"))
        blocks = [tree.Switch(block.block, place, hosts=expand(block.nodes, place)) for block in row.block.blocks]
        return tree.blocks_draft(blocks, like, place)
    assert row.tree is not None
    found = []
    for index, each in enumerate(row.tree.switches):
        place = document.where((*keys, "tree", "switches", index))
        found.append(tree.switch_of(each.switch, place, expand(each.children, place), expand(each.nodes, place)))
    return tree.draft(found, like, document.where(keys))


FORMAT = Format("slurm-yaml", "Slurm topology.yaml", recognise, read)
