"""Dispatch over replicas: one file and one line in REGISTRY each."""

from __future__ import annotations

from moesim.errors import pick
from moesim.placement.dispatch.by_place import ByPlace
from moesim.placement.dispatch.even import Even
from moesim.placement.dispatch.lplb import PerBatchLP
from moesim.placement.dispatch.rule import DispatchRule
from moesim.placement.dispatch.ways import FIRST, MODULO, NEAREST
from moesim.placement.dispatch.weighted import Weighted

_ALL: tuple[DispatchRule, ...] = (
    Even(),
    Weighted(),
    PerBatchLP(),
    ByPlace("nearest", "own GPU, else own node, else anywhere; equals share evenly", NEAREST),
    ByPlace("sglang", "own GPU, else the first replica of the own node, else any (SGLang's static table)", FIRST),
    ByPlace("vllm-ascend", "rank r takes replica r modulo their number", MODULO),
)
REGISTRY: dict[str, DispatchRule] = {rule.name: rule for rule in _ALL}


def find(name: str, where: str = "") -> DispatchRule:
    """The rule of that name. Raises BadInput with the known names."""
    return pick("dispatch rule", name, REGISTRY, where=where)


__all__ = ["REGISTRY", "DispatchRule", "find"]
