"""`moesim schema`."""

from __future__ import annotations

import click

from moesim.cli.options import print_json


@click.command()
@click.option(
    "--mode", type=click.Choice(["step", "serve", "train", "place", "sweep"]), default="step", show_default=True,
    help="Kind of scenario; sweep: the file of a sweep.",
)  # fmt: skip
def schema(mode: str) -> None:
    """Print the JSON Schema of scenario files: every key with what it means, for editors and checkers."""
    from pydantic import BaseModel

    from moesim.routing.routers.schema import REF, definitions
    from moesim.studies import Scenario
    from moesim.studies.serving import ServeScenario
    from moesim.studies.sweeping.place import PlaceFile
    from moesim.studies.sweeping.plan import SweepFile
    from moesim.studies.training import TrainScenario

    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "moesim scenario"}
    if mode in ("place", "sweep"):
        print_json({**(PlaceFile if mode == "place" else SweepFile).model_json_schema(), **dialect})
        return
    kinds: dict[str, type[BaseModel]] = {"step": Scenario, "serve": ServeScenario, "train": TrainScenario}
    document = kinds[mode].model_json_schema()
    document["$defs"] |= definitions()
    router = document["$defs"]["ServeRouting" if mode == "serve" else "RoutingSection"]["properties"]["router"]
    router["anyOf"] = [REF, {"type": "null"}]
    print_json({**document, **dialect})
