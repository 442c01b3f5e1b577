"""`moesim schema`: what it prints accepts all that ships, and refuses what a run refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moesim import shipped, yamlfile
from tests.cli.conftest import Moesim

jsonschema = pytest.importorskip("jsonschema")
SCENARIOS = sorted(shipped.shipped("workloads", "scenarios").glob("*.yaml"))


def checker(moesim: Moesim, mode: str) -> Any:
    schema = json.loads(moesim("schema", "--mode", mode).out)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_every_shipped_scenario_is_accepted(moesim: Moesim) -> None:
    """Times and rates were numbers in it: every serving scenario and the one with faults were refused."""
    check = {mode: checker(moesim, mode) for mode in ("step", "serve", "train")}
    for path in SCENARIOS:
        data = yamlfile.read_yaml(path).data
        errors = [error.message for error in check[data.get("mode", "step")].iter_errors(data)]
        assert not errors, (path.name, errors)


@pytest.mark.parametrize(
    "wrong", [{"ttft": 2.0}, {"ttft": "2 parsecs"}, {"ttft": "2"}, {"ttft": "-2 s"}, {"ttfb": "2 s"}]
)
def test_units_are_in_it(moesim: Moesim, wrong: dict[str, object]) -> None:
    data = yamlfile.read_yaml(next(path for path in SCENARIOS if path.stem == "qwen3-serve")).data
    assert not checker(moesim, "serve").is_valid({**data, "slo": wrong})


@pytest.mark.parametrize("key", ["phase", "dispatch_dtype", "routing"])
def test_names_are_in_it(moesim: Moesim, key: str) -> None:
    section = {"phase": "batch", "dispatch_dtype": "comm", "routing": "cluster"}[key]
    data = yamlfile.read_yaml(next(path for path in SCENARIOS if path.stem == "demo-tiny")).data
    check = checker(moesim, "step")
    assert check.is_valid(data) and not check.is_valid({**data, section: {**data.get(section, {}), key: "nonsense"}})


def test_keys_of_a_step_say_what_they_are(moesim: Moesim) -> None:
    schema = json.loads(moesim("schema").out)
    sections = (one for name, one in schema["$defs"].items() if name.endswith("Section") or name.startswith("Inline"))
    keys = [(name, key) for one in sections for name, key in one["properties"].items()]
    assert [name for name, key in keys if not {"description", "$ref"} & set(key)] == []
    assert len(keys) > 70
