"""Routers: RouterInput -> Assignment, each a composition of score transform, selector, capacity and post transform."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.chores import Chores
from moesim.routing.routers.input import Column, RouterInput, State
from moesim.routing.routers.router import Facts, Router, build_router

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")  # a router registers itself

registry = dict(sorted(Router.known.items()))

__all__ = [
    "Assignment", "Chores", "Column", "Facts", "Router", "RouterInput", "State", "Status", "build_router", "registry",
]  # fmt: skip
