"""`moesim topo`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from moesim.cli.options import deliver

_OUT = click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="New file.  [default: stdout]")


@click.group()
def topo() -> None:
    """Show, check, import and export cluster topologies: a shipped name (see `moesim list`) or a YAML file."""


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


@topo.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", metavar="NAME", help="See `moesim list 'topology formats'`.  [default: by content]")
@click.option("--like", default="dgx-h100", show_default=True, help="Topology whose device and rates fill the gaps.")
@_OUT
def import_(file: Path, format: str | None, like: str, out: Path | None) -> None:
    """Make a topology file from another tool's; what it found and what had to be assumed goes to stderr."""
    from moesim.hardware.formats import import_topology

    made = import_topology(file, format=format, like=like)
    deliver(made.text, out)
    print(f"found: {made.found}", file=sys.stderr)
    _say(made.notes)


@topo.command("export")
@click.argument("topology")
@click.option("--format", required=True, metavar="NAME", help="See `moesim list 'topology formats'`.")
@_size_options
@_OUT
def export(topology: str, format: str, nodes: int | None, oversubscription: float | None, out: Path | None) -> None:
    """Write a topology for another tool; what it cannot say goes to stderr."""
    from moesim.hardware import load_cluster
    from moesim.hardware.formats import export_topology

    made = export_topology(load_cluster(topology, nodes=nodes, oversubscription=oversubscription), format)
    deliver(made.text, out)
    _say(made.notes)


def _say(notes: tuple[str, ...]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
