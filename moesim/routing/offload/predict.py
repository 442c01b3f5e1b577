"""Which experts a layer is expected to need, before its router has run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim import streams
from moesim.errors import unknown_name
from moesim.routing.offload.passes import Bools, Passes

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
STORE: Final = 1000  # passes whose experts an expert map remembers (fMoE keeps about a thousand)


class Asked(NamedTuple):
    """What a predictor may look at: the passes (only those before `at`, and of this one the layers up to `known`), the
    pass, the layer that is asked for, and the last layer whose router has run (-1: none yet).
    """

    passes: Passes
    at: int
    layer: int
    known: int

    @property
    def before(self) -> Bools:
        """bool[passes before, layers, E]"""
        return self.passes.used[: self.at]

    @property
    def wanted(self) -> int:
        """How many experts are named: as many as a layer needed on the average so far."""
        seen = self.before[:, self.layer]
        return round(float(seen.sum(axis=1).mean())) if len(seen) else 0

    def best(self, score: Floats) -> Ints:
        """The `wanted` experts with the highest scores above zero, highest first."""
        order = np.argsort(-score, kind="stable")[: self.wanted]
        return order[score[order] > 0].astype(np.int64)


Predictor = Callable[[Asked], Ints]


def _none(asked: Asked) -> Ints:
    return np.empty(0, dtype=np.int64)


def _oracle(asked: Asked) -> Ints:
    """What the layer will need: routers that are known before the pass (Read-ME's pre-gating)."""
    return np.flatnonzero(asked.passes.used[asked.at, asked.layer])


def _frequency(asked: Asked) -> Ints:
    """What the layer needed most often so far."""
    return asked.best(asked.before[:, asked.layer].sum(axis=0).astype(np.float64))


def _task(asked: Asked) -> Ints:
    """What the layer needed most often in earlier passes of the same domain (eMoE's tasks); of all before that."""
    domain = asked.passes.domain
    same = (domain[: asked.at] == domain[asked.at]) & (domain[asked.at] >= 0)
    return (
        asked.best(asked.before[same, asked.layer].sum(axis=0).astype(np.float64)) if same.any() else _frequency(asked)
    )


def _path(asked: Asked) -> Ints:
    """What most often followed the experts of the last known layer; before any is known the most frequent."""
    if asked.known < 0:
        return _frequency(asked)
    here, there = asked.before[:, asked.known], asked.before[:, asked.layer]
    now = asked.passes.used[asked.at, asked.known]
    return asked.best((here[:, now].sum(axis=1) @ there).astype(np.float64))


def _expert_map(asked: Asked) -> Ints:
    """What the layer needed in the earlier pass whose experts so far are most like this one's (fMoE's maps); before any
    are known the pass before.
    """
    store = asked.before[-STORE:]
    if not len(store):
        return np.empty(0, dtype=np.int64)
    if asked.known < 0:
        return np.flatnonzero(store[-1, asked.layer])
    now = asked.passes.used[asked.at, : asked.known + 1]
    alike = (store[:, : asked.known + 1] & now).sum(axis=(1, 2))
    newest = len(alike) - 1 - int(np.argmax(alike[::-1]))
    return np.flatnonzero(store[newest, asked.layer])


def _token_id(asked: Asked) -> Ints:
    """What the layer needed when it saw this token last; nothing for a new token, or several."""
    token = asked.passes.token[asked.at]
    same = np.flatnonzero((asked.passes.token[: asked.at] == token) & (token >= 0))
    return np.flatnonzero(asked.before[same[-1], asked.layer]) if len(same) else np.empty(0, dtype=np.int64)


def gate(accuracy: float, seed: int) -> Predictor:
    """The next layer's gate on this layer's input (Fate): a stand-in that is right about an expert with a given
    probability and names another one otherwise, since traces have no hidden states. Drawn by (pass, layer).
    """

    def predict(asked: Asked) -> Ints:
        right = np.flatnonzero(asked.passes.used[asked.at, asked.layer])
        others = np.flatnonzero(~asked.passes.used[asked.at, asked.layer])
        draw = streams.stream(seed, "offload", "gate", asked.at, asked.layer)
        wrong = draw.random(len(right)) >= accuracy
        return np.concatenate([right[~wrong], draw.permutation(others)[: int(wrong.sum())]])

    return predict


PREDICTORS: Final[dict[str, Predictor]] = {
    "none": _none, "oracle": _oracle, "frequency": _frequency, "path": _path, "expert_map": _expert_map,
    "token_id": _token_id, "task": _task,
}  # fmt: skip


def find_predictor(name: str, accuracy: float, seed: int) -> Predictor:
    """The predictor of that name. Raises BadInput with the known ones."""
    if name == "gate":
        return gate(accuracy, seed)
    if name not in PREDICTORS:
        raise unknown_name("predictor", name, (*PREDICTORS, "gate"))
    return PREDICTORS[name]
