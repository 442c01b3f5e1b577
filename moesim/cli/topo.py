"""`moesim topo`."""

from __future__ import annotations

import click


@click.group()
def topo() -> None:
    """Show and check cluster topologies: a shipped name (see `moesim list`) or a YAML file."""


def _size_options(function: click.decorators.FC) -> click.decorators.FC:
    ratio = click.option("--oversubscription", type=float, help="Leaf to spine, 1 = non-blocking.")
    return click.option("--nodes", type=click.IntRange(1), help="Instead of the file's.")(ratio(function))


@topo.command("show")
@click.argument("topology")
@_size_options
def show(topology: str, nodes: int | None, oversubscription: float | None) -> None:
    """Print devices, links with their rates and sources, and routes."""
    from moesim.hardware import load_cluster
    from moesim.hardware.show import show as as_text

    print(as_text(load_cluster(topology, nodes=nodes, oversubscription=oversubscription)))


@topo.command("validate")
@click.argument("topology")
@_size_options
def validate(topology: str, nodes: int | None, oversubscription: float | None) -> None:
    """Check that everything is connected, that rates are plausible, and what the links add up to."""
    from moesim.hardware.validate import validate as check

    print(check(topology, nodes=nodes, oversubscription=oversubscription).text)
