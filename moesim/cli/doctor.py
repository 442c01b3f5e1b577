"""`moesim doctor`."""

from __future__ import annotations

import sys

import click


@click.command()
def doctor() -> None:
    """Check this installation: Python, libraries, shipped files, caches, and what the extras would add."""
    from moesim.errors import BadInput
    from moesim.report import tables
    from moesim.report.health import examine

    findings = examine()
    tables.show(tables.health_table(findings), sys.stdout)
    wrong = [finding.what for finding in findings if finding.state == "wrong"]
    if wrong:
        raise BadInput(
            f"{len(wrong)} thing(s) are wrong: {', '.join(wrong)}", way_out="pip install --force-reinstall moesim"
        )
