"""Recipes: questions that people ask, as commands on shipped scenarios. A recipe is a file in workloads/recipes/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import Field

from moesim import shipped, yamlfile
from moesim.errors import pick
from moesim.yamlfile import Items, Section

FOLDER: Final = "workloads/recipes"


class Recipe(Section):
    """A question, the commands that answer it, and how to read what they print."""

    recipe: Literal[1]
    question: str
    commands: Items[str] = Field(min_length=1)
    read: str


def recipes() -> Mapping[str, Recipe]:
    """name -> recipe, all of them. Raises BadInput for a file that is none."""
    return {name: yamlfile.read_yaml(path).validate(Recipe) for name, path in shipped.names(FOLDER, ".yaml").items()}


def find_recipe(name: str) -> Recipe:
    """Raises BadInput with the known names."""
    return pick("recipe", name, recipes())
