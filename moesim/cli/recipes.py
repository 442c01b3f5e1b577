"""`moesim recipes`."""

from __future__ import annotations

import click

from moesim.cli.options import json_option, print_json


@click.command()
@click.argument("name", required=False)
@json_option
def recipes(name: str | None, as_json: bool) -> None:
    """Questions people ask, each as commands that run as they stand: all of them, or NAME with how to read the answer.

    Take the scenario of a command (`moesim list scenarios`, `moesim init`) and put in your model, cluster and traffic.
    """
    from moesim.studies.recipes import find_recipe
    from moesim.studies.recipes import recipes as every

    chosen = every() if name is None else {name: find_recipe(name)}
    if as_json:
        print_json({one: recipe.model_dump(mode="json", exclude={"recipe"}) for one, recipe in chosen.items()})
        return
    for one, recipe in chosen.items():
        if name is None:
            print(f"{one:22}{recipe.question}")
            continue
        print(recipe.question, *(f"  {command}" for command in recipe.commands), recipe.read, sep="\n")
