"""Router: RouterInput -> Assignment. A new router is one file in this folder with one subclass; its name is the file's.

Most are a score transform and `inner.route(given.with_logits(...))`, or a selector and `rows_of_table`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from moesim import yamlfile
from moesim.errors import BadInput, unknown_name
from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.chores import Chores, gate
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
    learns: its state changes from step to step. training: what acts in training only. merges: its effect needs a
    dispatch that sends a token once to a GPU or node, however many experts it has there.
    """

    needs: frozenset[str] = LOGITS
    causal: bool = True
    batch_dependent: bool = False
    prefetch: Prefetch = "at its layer"
    stand_in: str = ""
    learns: bool = False
    training: str = ""
    merges: bool = False


class Router(Section):
    """The parameters of one router; frozen, so equal parameters route equally. What it learns is in `given.state`."""

    known: ClassVar[dict[str, type[Router]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if lacking := ", ".join(sorted(getattr(cls, "__abstractmethods__", ()))):
            raise TypeError(f"{cls.__module__}: router {cls.__name__} has no {lacking}")
        Router.known[cls.__module__.rpartition(".")[2]] = cls

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """What it needs, and what may be relied on."""

    @abstractmethod
    def route(self, given: RouterInput) -> Assignment:
        """The decision for one layer's batch. Raises BadInput where the input lacks what it needs."""

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """What the decision itself costs: an inner router's chores, or those of a linear gate."""
        inner = getattr(self, "inner", None)
        return inner.chores(given, found) if isinstance(inner, Router) else gate(given)

    def learn(self, given: RouterInput, found: Assignment) -> State | None:
        """The state after a step that routed `given` as `found`: what an inner router learns, or nothing."""
        inner = getattr(self, "inner", None)
        return inner.learn(given, found) if isinstance(inner, Router) else given.state


def build_router(value: object, where: Callable[[yamlfile.Keys], str] = lambda keys: yamlfile.dotted(keys)) -> Router:
    """A router, a name, or a mapping {name: ..., parameters} -> the router. Raises BadInput with the nearest name."""
    if isinstance(value, Router):
        return value
    params: dict[str, Any] = {"name": value} if isinstance(value, str) else {}
    params |= value if isinstance(value, Mapping) else {}
    name = params.pop("name", None)
    if name not in Router.known:
        raise unknown_name("router", name, Router.known, where=where(("name",) if isinstance(value, Mapping) else ()))
    try:
        return yamlfile.validate(Router.known[name], params, where)
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
