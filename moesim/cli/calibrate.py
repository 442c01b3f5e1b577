"""`moesim calibrate`."""

from __future__ import annotations

import click

from moesim.cli.calibrate_measure import measure, truth


@click.group()
def calibrate() -> None:
    """Measure kernels, fit profiles to them, and check how good they are."""


calibrate.add_command(measure)
calibrate.add_command(truth)
