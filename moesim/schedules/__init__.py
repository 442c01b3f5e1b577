"""Orders of work: which verb of which layer and part runs next on every rank. Integers only, no clock."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from moesim.errors import pick
from moesim.schedules.backward import add_backward
from moesim.schedules.gradients import Fill
from moesim.schedules.nodes import COMM, COMPUTE, INTRA, TRANSFERS, WHOLE, Node, Part, Verb, Way
from moesim.schedules.order import Order
from moesim.schedules.schedule import Schedule

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")  # a schedule registers itself

registry = dict(sorted(Schedule.known.items()))


def find_schedule(name: str, where: str = "") -> type[Schedule]:
    """The schedule of that name. Raises BadInput with the known names."""
    return pick("schedule", name, registry, where=where)


__all__ = [
    "COMM", "COMPUTE", "INTRA", "TRANSFERS", "WHOLE", "Fill", "Node", "Order", "Part", "Schedule", "Verb", "Way",
    "add_backward", "find_schedule", "registry",
]  # fmt: skip
