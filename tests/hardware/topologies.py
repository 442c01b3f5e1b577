"""Text of small topology files for tests."""

from __future__ import annotations

from moesim import yamlfile
from moesim.hardware.cluster import Cluster
from moesim.hardware.load import seal

DEVICE = """\
moesim_topology: 1
name: small
device:
  name: toy
  memory: {value: 80 GB, source: a test}
  memory_bandwidth: {value: 3 TB/s, source: a test}
  sms: {value: 100, source: a test}
  flops:
    bf16: {value: 1000 TFLOP/s, source: a test}
"""
NODE = DEVICE + "node: {gpus: 4, nvlink: {value: 450 GB/s, source: a test}, nic: {value: 400 Gb/s, source: a test}}\n"


def sealed(text: str) -> Cluster:
    """A topology's text -> Cluster."""
    return seal(yamlfile.parse_yaml(text, "small.yaml"))


def graph(links: list[str], switches: str = "", nodes: str = "") -> str:
    """Flow mappings of links -> a topology's text."""
    rows = [f"  - {{{link}}}" for link in links]
    extra = [f"switches: [{switches}]"] * bool(switches) + [f"nodes: {nodes}"] * bool(nodes)
    return DEVICE + "\n".join([*extra, "links:", *rows]) + "\n"
