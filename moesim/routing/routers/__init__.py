"""Routers: RouterInput -> Assignment, each a composition of score transform, selector, capacity and post transform."""

from __future__ import annotations

from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.input import Column, RouterInput, State
from moesim.routing.routers.registry import registry
from moesim.routing.routers.router import Facts, Router, build_router

__all__ = ["Assignment", "Column", "Facts", "Router", "RouterInput", "State", "Status", "build_router", "registry"]
