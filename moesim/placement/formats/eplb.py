"""DeepSeek EPLB's answer: phy2log [layers, replicas], log2phy [layers, experts, most], logcnt [layers, experts].

Source: deepseek-ai/EPLB @d52c72d, `rebalance_experts`.
"""

from __future__ import annotations

from moesim.layout import Placement
from moesim.placement.formats.format import Format, Frame, Written
from moesim.placement.formats.replicas import Names, as_file, read_tables, write_tables
from moesim.placement.formats.source import Source

NAMES = Names("phy2log", "log2phy", "logcnt")


def recognise(source: Source) -> bool:
    """A mapping or archive with phy2log."""
    return NAMES.slot_expert in source.names


def read(source: Source, frame: Frame) -> Placement:
    """Raises BadInput."""
    return read_tables(source, NAMES, frame)


def write(placement: Placement, frame: Frame, suffix: str) -> Written:
    """JSON or npz. Raises BadInput for uneven GPUs."""
    return as_file(write_tables(placement, NAMES, "EPLB"), suffix)


EPLB = Format("eplb", "DeepSeek EPLB: phy2log, log2phy, logcnt", (".json", ".npz"), recognise, read, write)
