"""Which prices a part of a batch has that are the same in every layer, by the name of the task that costs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from moesim.step.batch import Batch
from moesim.step.ops import LayerOps
from moesim.step.work import Work

LAYER_PRICES: Final[dict[str, Callable[[LayerOps, Batch], Work]]] = {
    "attention": LayerOps.attention,
    "attention_prepare": LayerOps.attention_prepare,
    "attention_core": LayerOps.attention_core,
    "core": LayerOps.core,
    "router": LayerOps.router,
    "shared": LayerOps.shared,
    "mlp": LayerOps.dense,
    "head": LayerOps.head,
}
