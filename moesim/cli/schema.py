"""`moesim schema`."""

from __future__ import annotations

import click

from moesim.cli.options import print_json


@click.command()
def schema() -> None:
    """Print the JSON Schema of scenario files: every key with what it means, for editors and checkers."""
    from moesim.studies import Scenario

    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "moesim scenario"}
    print_json({**Scenario.model_json_schema(), **dialect})
