"""`moesim schema`."""

from __future__ import annotations

import click

from moesim.cli.options import print_json


@click.command()
def schema() -> None:
    """Print the JSON Schema of scenario files: every key with what it means, for editors and checkers."""
    from moesim.routing.routers.schema import REF, definitions
    from moesim.studies import Scenario

    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "moesim scenario"}
    document = Scenario.model_json_schema()
    document["$defs"] |= definitions()
    router = document["$defs"]["RoutingSection"]["properties"]["router"]
    router["anyOf"] = [REF, {"type": "null"}]
    print_json({**document, **dialect})
