"""Router: RouterInput -> Assignment. A new router is one file with one subclass, and one line in the registry.

Most are a score transform and `inner.route(given.with_logits(...))`, or a selector and `rows_of_table`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from moesim import yamlfile
from moesim.errors import BadInput, unknown_name
from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput, State
from moesim.yamlfile import Section

LOGITS = frozenset({"logits"})
Prefetch = Literal[
    "at its layer", "partly by token id", "by token id", "layers ahead", "by request", "before the model"
]
Count = Annotated[int, Field(ge=1, le=65534)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Facts(NamedTuple):
    """needs: columns it reads. causal: no later token of the request decides. batch_dependent: co-batched requests may
    change a token's rows. prefetch: how early the decision is known. stand_in: which trained effect is only modelled.
    learns: its state changes from step to step.
    """

    needs: frozenset[str] = LOGITS
    causal: bool = True
    batch_dependent: bool = False
    prefetch: Prefetch = "at its layer"
    stand_in: str = ""
    learns: bool = False


class Router(Section):
    """The parameters of one router; frozen, so equal parameters route equally. What it learns is in `given.state`."""

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """What it needs, and what may be relied on."""

    @abstractmethod
    def route(self, given: RouterInput) -> Assignment:
        """The decision for one layer's batch. Raises BadInput where the input lacks what it needs."""

    def learn(self, given: RouterInput, found: Assignment) -> State | None:
        """The state after a step that routed `given` as `found`: what an inner router learns, or nothing."""
        inner = getattr(self, "inner", None)
        return inner.learn(given, found) if isinstance(inner, Router) else given.state


def build_router(value: object, where: Callable[[yamlfile.Keys], str] = lambda keys: yamlfile.dotted(keys)) -> Router:
    """A router, a name, or a mapping {name: ..., parameters} -> the router. Raises BadInput with the nearest name."""
    from moesim.routing.routers.registry import registry

    if isinstance(value, Router):
        return value
    params: dict[str, Any] = {"name": value} if isinstance(value, str) else {}
    params |= value if isinstance(value, Mapping) else {}
    name = params.pop("name", None)
    if name not in registry:
        raise unknown_name("router", name, registry, where=where(("name",) if isinstance(value, Mapping) else ()))
    try:
        return yamlfile.validate(registry[name], params, where)
    except BadInput as error:
        if error.where:
            raise
        raise BadInput(error.what, where=where(("inner",)), way_out=error.way_out) from None


def _inner(value: object) -> Router:
    return build_router(value, lambda keys: "")


Inner = Annotated[Router, BeforeValidator(_inner)]


def inherit(inner: Router, **changed: Any) -> Facts:
    """The facts of a router around another one."""
    return inner.facts._replace(**changed)
