"""Verb and way -> maker: what tasks a node becomes. A new verb is one file here and its lines in MAKERS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from moesim.schedules import Verb, Way
from moesim.step.chain import Chain
from moesim.step.makers import attention, combine, dispatch, experts, gradients, head, mlp, router, shared

Maker = Callable[[Chain], None]
GRADIENTS = (Way.BACKWARD, Way.BACKWARD_DATA, Way.BACKWARD_WEIGHT)
MAKERS: Final[dict[tuple[Verb, Way], Maker]] = {
    (Verb.HOST, Way.FORWARD): head.host,
    (Verb.EMBEDDING, Way.FORWARD): head.embedding,
    (Verb.EMBEDDING, Way.BACKWARD): head.embedding_backward,
    (Verb.EMBEDDING, Way.BACKWARD_DATA): head.embedding_backward,
    (Verb.ATTENTION, Way.FORWARD): attention.forward,
    (Verb.ATTENTION_PREPARE, Way.FORWARD): attention.prepare,
    (Verb.ATTENTION_CORE, Way.FORWARD): attention.core,
    (Verb.ROUTER, Way.FORWARD): router.forward,
    (Verb.GATHER, Way.FORWARD): shared.gather,
    (Verb.GATHER, Way.REPLAY): shared.gather,
    (Verb.GATHER, Way.BACKWARD): shared.gather_backward,
    (Verb.GATHER, Way.BACKWARD_DATA): shared.gather_backward,
    (Verb.DISPATCH, Way.FORWARD): dispatch.forward,
    (Verb.DISPATCH, Way.REPLAY): dispatch.replay,
    (Verb.DISPATCH, Way.BACKWARD): dispatch.backward,
    (Verb.DISPATCH, Way.BACKWARD_DATA): dispatch.backward,
    (Verb.SHARED, Way.FORWARD): shared.forward,
    (Verb.SHARED, Way.REPLAY): shared.forward,
    (Verb.EXPERTS, Way.FORWARD): experts.forward,
    (Verb.EXPERTS, Way.REPLAY): experts.forward,
    (Verb.COMBINE, Way.FORWARD): combine.forward,
    (Verb.COMBINE, Way.REPLAY): combine.forward,
    (Verb.COMBINE, Way.BACKWARD): combine.backward,
    (Verb.COMBINE, Way.BACKWARD_DATA): combine.backward,
    (Verb.MLP, Way.FORWARD): mlp.forward,
    (Verb.HEAD, Way.FORWARD): head.forward,
    (Verb.GRADIENTS, Way.BACKWARD): gradients.reduce,
    **{(Verb.ATTENTION, way): attention.backward for way in GRADIENTS},
    **{(Verb.ROUTER, way): router.backward for way in GRADIENTS},
    **{(Verb.SHARED, way): shared.backward for way in GRADIENTS},
    **{(Verb.EXPERTS, way): experts.backward for way in GRADIENTS},
    **{(Verb.MLP, way): mlp.backward for way in GRADIENTS},
    **{(Verb.HEAD, way): head.backward for way in GRADIENTS},
}

__all__ = ["MAKERS", "Maker"]
