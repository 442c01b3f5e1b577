"""`moesim schema`."""

from __future__ import annotations

from typing import Any

import click

from moesim.cli.options import print_json


@click.command()
@click.option(
    "--mode", type=click.Choice(["step", "serve", "train", "place", "sweep"]), default="step", show_default=True,
    help="Kind of scenario; sweep: the file of a sweep.",
)  # fmt: skip
@click.option("--table", "as_table", is_flag=True, help="Print a Markdown table of the keys instead.")
def schema(mode: str, as_table: bool) -> None:
    """Print the JSON Schema of scenario files: every key with what it means, for editors and checkers."""
    from moesim.report.schema_table import table

    document = schema_of(mode)
    if as_table:
        print(table(document), end="")
    else:
        print_json(document)


def schema_of(mode: str) -> dict[str, Any]:
    """The document of a kind of scenario."""
    from pydantic import BaseModel

    from moesim.routing.routers.schema import REF, definitions
    from moesim.studies import Scenario
    from moesim.studies.serving import ServeScenario
    from moesim.studies.sweeping.place import PlaceFile
    from moesim.studies.sweeping.plan import SweepFile
    from moesim.studies.training import TrainScenario

    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "moesim scenario"}
    if mode in ("place", "sweep"):
        return {**(PlaceFile if mode == "place" else SweepFile).model_json_schema(), **dialect}
    kinds: dict[str, type[BaseModel]] = {"step": Scenario, "serve": ServeScenario, "train": TrainScenario}
    document = kinds[mode].model_json_schema()
    document["$defs"] |= definitions()
    router = document["$defs"]["ServeRouting" if mode == "serve" else "RoutingSection"]["properties"]["router"]
    router["anyOf"] = [REF, {"type": "null"}]
    return {**document, **dialect}
