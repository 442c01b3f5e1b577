"""`moesim calibrate`."""

from __future__ import annotations

import click

from moesim.cli.calibrate_fit import check, fit, import_, select
from moesim.cli.calibrate_measure import measure, truth


@click.group()
def calibrate() -> None:
    """Measure kernels, fit profiles to them, and check how good they are."""


for command in (measure, import_, fit, select, check, truth):
    calibrate.add_command(command)
