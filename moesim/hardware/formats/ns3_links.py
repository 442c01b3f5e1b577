"""The link list that ns-3 backends read (HPCC's, ASTRA-sim's and SimAI's): counts, ids of switches, one link a line.

`<nodes> <switches> <links>`, or SimAI's `<nodes> <GPUs a server> <NVSwitches> <switches> <links> <GPU>`; then the ids
of all switches, NVSwitches first; then `<from> <to> <rate>bps <delay>s <error rate>`, each link in both directions.
Source: HPCC's and SimAI's simulators and example files, read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from moesim import units
from moesim.errors import BadInput
from moesim.hardware.blueprint import MAX_GPUS
from moesim.hardware.formats.format import Draft, Format, Plain, latency_text, rate_text
from moesim.yamlfile import Document

SOURCE = "ns-3 link list"
_COUNTS = re.compile(r"\d{1,7}( \d{1,7}){2}|\d{1,7}( \d{1,7}){4}( \w{1,20})?")
_RATE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)([GMK]?)bps")
_DELAY = re.compile(r"(\d{1,12}(?:\.\d{1,12})?(?:e-?\d{1,3})?)(ms|us|ns|s)")


@dataclass(frozen=True)
class _Head:
    """gpus: ids of end points; inner: ids of NVSwitches; outer: those of other switches; width: GPUs of a server."""

    gpus: list[int]
    inner: frozenset[int]
    outer: frozenset[int]
    width: int

    def name(self, number: int) -> str:
        """Of an id, in a topology file."""
        if number in self.inner:
            return f"nvswitch{number}"
        return f"switch{number}" if number in self.outer else f"gpu{self.gpus.index(number)}"

    def kind(self, a: int, b: int) -> str:
        """The tier of a link."""
        if self.inner & {a, b}:
            return "nvlink"
        return "leaf" if {a, b} <= self.outer else "nic"


def recognise(text: str) -> bool:
    """Counts, then a line with a rate in bps among the next ones."""
    lines = [line for line in text.splitlines()[:64] if line.strip()]
    return bool(lines) and _COUNTS.fullmatch(" ".join(lines[0].split())) is not None and "bps" in text


def read(text: str, source: str, like: Document) -> Draft:
    """Explicit links; devices by `like`. Raises BadInput with file and line."""
    rows = [(f"{source}:{i}", line.split()) for i, line in enumerate(text.splitlines(), start=1) if line.split()]
    if len(rows) < 3 or _COUNTS.fullmatch(" ".join(rows[0][1])) is None:
        raise BadInput("no line of counts, line of switches and links", where=source)
    head, count = _head(rows[0], rows[1])
    links = [_link(place, words, head) for place, words in rows[2:]]
    if len(links) != count:
        raise BadInput(f"{len(links)} links, its first line says {count}", where=rows[0][0])
    pooled, notes = _pooled(links, head)
    nodes = [[f"gpu{g}" for g in range(i, i + head.width)] for i in range(0, len(head.gpus), head.width)]
    switches = [head.name(number) for number in sorted(head.inner | head.outer)]
    keys = {"switches": switches, "nodes": nodes, "links": pooled}
    return Draft(keys, (*_assumed(rows[0][1], head, like), *notes))


def _assumed(counts: list[str], head: _Head, like: Document) -> list[str]:
    notes = [f"end points 0 to {head.gpus[-1]} are GPUs, {head.width} a node"]
    if len(counts) == 3:
        notes = [f"{notes[0]}: the file does not say which share a server"]
    named = str(like.data["device"]["name"])
    if len(counts) == 6 and counts[5].upper() != named.split("-")[0].upper():
        notes.append(f"the file names {counts[5]}; memory and FLOP/s are those of {named}")
    return notes


def _head(counts: tuple[str, list[str]], ids: tuple[str, list[str]]) -> tuple[_Head, int]:
    place, words = counts
    numbers = [int(word) for word in words[:5]]
    nodes, width, inner, outer, links = numbers if len(numbers) == 5 else (numbers[0], 1, 0, *numbers[1:])
    switches = [int(word) for word in ids[1] if word.isascii() and word.isdigit() and len(word) < 8]
    if len(switches) != len(ids[1]) or len(set(switches)) != inner + outer or max(switches, default=0) >= nodes:
        raise BadInput(f"{inner + outer} ids of switches below {nodes} are expected", where=ids[0])
    gpus = nodes - inner - outer
    if not 0 < gpus <= MAX_GPUS or width < 1 or gpus % width:
        raise BadInput(f"{gpus} GPUs in servers of {width}, at most {MAX_GPUS}", where=place)
    ends = sorted(set(range(nodes)) - set(switches))
    return _Head(ends, frozenset(switches[:inner]), frozenset(switches[inner:]), width), links


def _link(place: str, words: list[str], head: _Head) -> tuple[int, int, float, float, str]:
    """Ends, B/s, s, place."""
    if len(words) != 5:
        raise BadInput(f"{len(words)} words, a link has 5: from, to, rate, delay, error rate", where=place)
    rate, delay = _RATE.fullmatch(words[2]), _DELAY.fullmatch(words[3])
    if rate is None or delay is None:
        raise BadInput(f"{words[2]} {words[3]} are no rate and delay", where=place, way_out="400Gbps 0.0005ms")
    known = len(head.gpus) + len(head.inner) + len(head.outer)
    ends = [int(word) if word.isascii() and word.isdigit() and len(word) < 8 else known for word in words[:2]]
    if max(ends) >= known or ends[0] == ends[1]:
        raise BadInput(f"{words[0]} {words[1]} are no two of ids 0 to {known - 1}", where=place)
    bits = float(rate[1]) * {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}[rate[2]]
    if not bits:
        raise BadInput("a rate of 0", where=place)
    return ends[0], ends[1], bits / 8, units.seconds(f"{delay[1]} {delay[2]}"), place


def _pooled(links: list[tuple[int, int, float, float, str]], head: _Head) -> tuple[list[Plain], list[str]]:
    """One link a pair: parallel ones are as wide as all together."""
    rates: dict[tuple[int, int], list[float]] = {}
    delays: dict[tuple[int, int], float] = {}
    for a, b, rate, delay, _ in links:
        pair = (min(a, b), max(a, b))
        rates.setdefault(pair, []).append(rate)
        delays[pair] = max(delay, delays.get(pair, 0.0))
    made = [
        {
            "from": head.name(a), "to": head.name(b), "bandwidth": rate_text(sum(each)),
            "latency": latency_text(delays[a, b]), "kind": head.kind(a, b), "source": SOURCE,
        }
        for (a, b), each in rates.items()
    ]  # fmt: skip
    several = len(links) - len(made)
    return made, [f"{several} links stand beside another of the same ends: together they act as one"] if several else []


FORMAT = Format("ns3-links", "link list of ns-3 backends: HPCC, ASTRA-sim, SimAI", recognise, read)
