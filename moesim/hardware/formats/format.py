"""What a format of topologies is: a reader of text, a writer of text, or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from moesim.errors import BadInput
from moesim.hardware.cluster import Cluster
from moesim.yamlfile import Document

Plain = dict[str, Any]


@dataclass(frozen=True)
class Draft:
    """A topology file in the making: the keys beside name and device, and what was assumed or left out."""

    keys: Plain
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """The text of a file in another tool's format, and what that format cannot say."""

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """`read(text, source, like)`: text -> Draft, with device and rates that the text lacks from the topology `like`.

    `recognise(text)` tells whether a text looks like this format. Readers raise BadInput with file and line.
    """

    name: str
    about: str
    recognise: Callable[[str], bool] | None = None
    read: Callable[[str, str, Document], Draft] | None = None
    write: Callable[[Cluster], Written] | None = None


def rate_text(rate: float) -> str:
    """5e10 B/s -> "50 GB/s", exact to the last digit."""
    return f"{rate / 1e9!r} GB/s".replace(".0 GB", " GB")


def latency_text(seconds: float) -> str:
    """1e-06 s -> "1000.0 ns"."""
    return f"{seconds * 1e9!r} ns"


def node_of_like(like: Document, why: str) -> Plain:
    """The `node` section of the topology that lends what a file does not say. Raises BadInput where it has none."""
    node = like.data.get("node")
    if not isinstance(node, dict):
        raise BadInput(f"it has no node section to take {why} from", where=like.source, way_out="another 'like'")
    return node


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def yaml_text(data: Plain) -> str:
    """Plain data -> YAML text that the strict reader accepts."""
    return str(yaml.dump(data, Dumper=_PlainDumper, sort_keys=False, default_flow_style=None, width=120))
