"""Recording: forward hooks on the routers of a torch model write down which experts each token took.

Any module counts as a router whose output holds integer ids [tokens, k]; scores [tokens, experts] that are zero or
-inf but for k of them (Llama 4); or, for plain top-k gates (JetMoE), logits. Most routers of transformers 5 return
(logits, scores, ids). Families without a router module of their own (Doge's product keys) need `routers=`. torch is
imported by the recording and unpacking modules of this room and by `calibration` only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from moesim.errors import BadInput
from moesim.routing.shape import NO_EXPERT
from moesim.routing.trace import RoutingTrace, TraceHeader, make_trace

ROUTER_CLASS: Final = re.compile(r"(Router|TopKGating|Gate|MoEGate)(V\d)?$")
PLAIN_GATE: Final = re.compile(r"TopKGating$")
OF_ATTENTION: Final = re.compile(r"(^|\.)(self_)?att(entio)?n(\.|$)")  # JetMoE: experts are projections there


def is_router(name: str, module: nn.Module) -> bool:
    """Routers by the names that model families give their classes, but for those inside attention: JetMoE has one
    there and one in its FFN, in every layer.
    """
    return ROUTER_CLASS.search(type(module).__name__) is not None and OF_ATTENTION.search(name) is None


@dataclass(frozen=True)
class Choice:
    """What one router said about its tokens: ids int64[T, k] heaviest first, weight and logits where it gave them."""

    ids: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32] | None
    logits: npt.NDArray[np.float32] | None


@dataclass
class Recorder:
    """`with Recorder(model) as recorder: model(ids); recorder.mark(request=..., position=...)`, then `trace(...)`.

    After each forward pass `mark` says who its tokens were, in the order in which the model flattens them; tokens whose
    request is negative are padding and left out. Layers are in the order of the model's modules.
    """

    model: nn.Module
    routers: Callable[[str, nn.Module], bool] = is_router
    keep_logits: bool = False
    _seen: dict[str, list[Choice]] = field(default_factory=dict, init=False)
    _rows: list[dict[str, npt.NDArray[Any]]] = field(default_factory=list, init=False)
    _passes: list[list[Choice]] = field(default_factory=list, init=False)
    _hooks: list[Any] = field(default_factory=list, init=False)
    _order: tuple[str, ...] = field(default=(), init=False)

    def __enter__(self) -> Recorder:
        named = [(name, module) for name, module in self.model.named_modules() if self.routers(name, module)]
        self._order = tuple(name for name, _ in named)
        self._hooks = [module.register_forward_hook(self._hook(name)) for name, module in named]
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            del inputs
            choice = read_router_output(output) or _from_plain_gate(module, output)
            if choice is not None:
                self._seen.setdefault(name, []).append(choice)

        return hook

    def mark(self, *, request: npt.ArrayLike, position: npt.ArrayLike, **columns: npt.ArrayLike) -> None:
        """Name the T tokens of the forward pass since the last mark: arrays [T] or [batch, length], or one value.

        Columns: phase, domain, step, source_rank, token_id. Raises BadInput where the router rows are not T.
        """
        layers = [joined(self._seen[name]) for name in self._order if name in self._seen]
        self._seen.clear()
        if not layers:
            raise BadInput(
                f"no router of {type(self.model).__name__} gave top-k ids",
                way_out="Recorder(model, routers=lambda name, module: ...) chooses the modules",
            )
        who = np.asarray(request).reshape(-1)
        values = {"request": who, "position": position, **columns}
        rows = {n: np.broadcast_to(np.asarray(v).reshape(-1), who.shape) for n, v in values.items()}
        for layer, choice in enumerate(layers):
            if len(choice.ids) != len(who):
                raise BadInput(f"layer {layer}: the router saw {len(choice.ids)} tokens, {len(who)} were named")
        kept = who >= 0
        self._rows.append({name: values[kept] for name, values in rows.items()})
        self._passes.append([_kept(choice, kept) for choice in layers])

    def trace(self, header: TraceHeader, *, zero_experts: int = 0) -> RoutingTrace:
        """All marked tokens. `moe_layers`, `num_experts` and `top_k` of the header must be the model's; see `shape`.

        `zero_experts` ids after the real ones name experts that compute nothing: no expert in the trace.
        """
        if not self._passes:
            raise BadInput("nothing was recorded", way_out="call mark() after each forward pass")
        expert = np.concatenate([_stacked(layers, "ids") for layers in self._passes])
        zero = (expert >= header.num_experts) & (expert < header.num_experts + zero_experts)
        expert = np.where(zero, NO_EXPERT, expert)
        rows = {name: np.concatenate([r[name] for r in self._rows]) for name in self._rows[0]}
        first = self._passes[0][0]
        optional = {"weight": first.weight is not None, "logits": self.keep_logits and first.logits is not None}
        extra = {n: np.concatenate([_stacked(p, n) for p in self._passes]) for n, given in optional.items() if given}
        return make_trace(header, expert, **rows, **extra, where=header.model)

    @property
    def shape(self) -> tuple[int, int]:
        """(MoE layers, top-k) as recorded."""
        return len(self._passes[0]), self._passes[0][0].ids.shape[1]


def read_router_output(output: Any) -> Choice | None:
    """A router's output -> its choices, heaviest first; None where it holds neither ids nor sparse scores."""
    parts = output if isinstance(output, tuple | list) else (output,)
    tensors = [_flat(part) for part in parts if isinstance(part, torch.Tensor) and part.dim() >= 2]
    ids = next((t for t in tensors if not t.is_floating_point() and t.dtype != torch.bool and t.shape[1] <= 1024), None)
    floats = [t.float() for t in tensors if t.is_floating_point()]
    if ids is None:
        return _from_sparse_scores(floats)
    weight = next((t for t in floats if t.shape == ids.shape), None)
    logits = next((t for t in floats if len(t) == len(ids) and t.shape[1] > ids.shape[1]), None)
    if weight is None and logits is not None:
        weight = logits.gather(1, ids.long()).softmax(-1)
    return _sorted(ids, weight, logits)


def _from_sparse_scores(floats: Sequence[torch.Tensor]) -> Choice | None:
    for scores in floats:
        used = torch.isfinite(scores) & (scores != 0)
        number = used.sum(1)
        if len(scores) and number.min() == number.max() and 0 < int(number[0]) < scores.shape[1]:
            weight, ids = torch.where(used, scores, -torch.inf).topk(int(number[0]), dim=1)
            logits = next((t for t in floats if t is not scores and t.shape == scores.shape), None)
            return _sorted(ids, weight, logits)
    return None


def _from_plain_gate(module: nn.Module, output: Any) -> Choice | None:
    """JetMoE's gate chooses the top-k logits and returns them beside sorted indices that name no token."""
    if PLAIN_GATE.search(type(module).__name__) is None or not isinstance(output, tuple):
        return None
    logits = _flat(output[-1]).float()
    values, ids = logits.topk(int(module.top_k), dim=1)
    return _sorted(ids, values.softmax(-1), logits)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1, tensor.shape[-1]).cpu()


def _sorted(ids: torch.Tensor, weight: torch.Tensor | None, logits: torch.Tensor | None) -> Choice:
    if weight is not None:
        weight, order = weight.sort(dim=1, descending=True, stable=True)
        ids = ids.gather(1, order)
    as_numpy = [None if t is None else t.numpy().astype(np.float32) for t in (weight, logits)]
    return Choice(ids.numpy().astype(np.int64), as_numpy[0], as_numpy[1])


def joined(choices: Sequence[Choice]) -> Choice:
    """Several calls of one router in a forward pass, one after the other, as one."""
    if len(choices) == 1:
        return choices[0]
    parts = [[getattr(choice, name) for choice in choices] for name in ("ids", "weight", "logits")]
    ids, weight, logits = (None if part[0] is None else np.concatenate(part) for part in parts)
    assert ids is not None
    return Choice(ids, weight, logits)


def _kept(choice: Choice, rows: npt.NDArray[np.bool_]) -> Choice:
    parts = (choice.weight, choice.logits)
    return Choice(choice.ids[rows], *(None if part is None else part[rows] for part in parts))


def _stacked(layers: Iterable[Choice], name: str) -> npt.NDArray[Any]:
    return np.stack([getattr(choice, name) for choice in layers], axis=1)


def trace_from_replay(header: TraceHeader, layers: Sequence[torch.Tensor], **columns: npt.ArrayLike) -> RoutingTrace:
    """Megatron core's routing replay, `get_recorded_data()`: one [tokens, k] tensor a local MoE layer -> RoutingTrace.

    Raises BadInput where the layers differ in shape. Columns as in `make_trace`.
    """
    shapes = {tuple(layer.shape) for layer in layers}
    if len(shapes) != 1:
        raise BadInput(f"layers of different shapes {sorted(shapes)}", where=header.model)
    ids = torch.stack([layer.detach().cpu() for layer in layers], dim=1).numpy()
    return make_trace(header, np.where(ids < 0, NO_EXPERT, ids), where=header.model, **columns)
