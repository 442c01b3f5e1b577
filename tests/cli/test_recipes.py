"""Every recipe's commands run as they stand, and its question is on the list."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest

from moesim.studies.recipes import recipes

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim


@pytest.mark.parametrize("name", list(recipes()))
def test_commands_run_as_they_stand(moesim: Moesim, name: str) -> None:
    for command in recipes()[name].commands:
        done = moesim(*shlex.split(command)[1:])
        assert done.code == 0, done.err
        assert "refused" not in done.out, done.out  # no point of a sweep is


def test_the_list_has_every_question_and_a_name_its_commands(moesim: Moesim) -> None:
    listed = moesim("recipes").out
    for name, recipe in recipes().items():
        assert name in listed and recipe.question in listed
    one = moesim("recipes", "nic-dies")
    assert "moesim run nic-fault-ep16" in one.out and recipes()["nic-dies"].read in one.out
    assert json.loads(moesim("recipes", "nic-dies", "--json").out)["nic-dies"]["commands"]
    unknown = moesim("recipes", "nic-die")
    assert unknown.code == 2 and "did you mean 'nic-dies'?" in unknown.err
