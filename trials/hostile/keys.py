"""Every key of the scenario's schema and of every router, with values that no key takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel

from moesim.models import InlineModel, find_model, load_model
from moesim.routing.routers import registry
from moesim.studies import Scenario
from trials.hostile.room import Case

FREE_TEXT: Final = {"description", "name", "published.source", "model.name"}
BAD: Final = ("[[[]]]", "{zzz: 1}", '"\\e[2J"', "-1.0e+300", "1e9e9", ".nan")
VALUES: Final[tuple[Any, ...]] = ([], {}, "x", -1, 0, 1.5, True, None, 10**30, [None] * 3)
LISTS: Final = {"faults", "training.recompute", "published.missing"}
MODELS: Final = ("Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-V3", "openai/gpt-oss-120b", "mistralai/Mixtral-8x7B-v0.1")


def scenario_keys() -> Iterator[Case]:
    """`run` with one bad value by --set."""
    for key in _walk(Scenario, ""):
        for value in BAD:
            if key not in FREE_TEXT or value in BAD[:3]:
                yield _set(f"{key}={value}")
        yield _set(f"{key}x=1")


def router_keys() -> Iterator[Case]:
    """The same of routers."""
    for name, router in registry.items():
        for key, field in router.model_fields.items():
            for value in BAD:
                yield _set(f"routing={{router: {{name: {name}, {field.alias or key}: {value}}}}}")


def _set(text: str) -> Case:
    return Case(text, lambda: ["run", "demo-tiny", "--set", text])


def model_keys() -> Iterator[Case]:
    """A config.json with one value of another kind: refused, or of no matter, never a defect."""
    for name in MODELS:
        config = json.loads(find_model(name).read_text())
        for key in sorted(config):
            for value in VALUES:
                yield Case(f"{name} {key}={value!r:.20}", partial(_with, {**config, key: value}), must=False)


def _with(config: dict[str, Any]) -> Callable[[], object]:
    Path("config.json").write_text(json.dumps(config))
    return partial(load_model, "config.json")


def _walk(schema: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in schema.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = next((one for one in _types(field.annotation) if issubclass(one, BaseModel)), None)
        if key in LISTS or inner is InlineModel:
            continue
        yield key
        if inner is not None:
            yield from _walk(inner, f"{key}.")


def _types(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type):
        yield annotation
    for one in get_args(annotation):
        yield from _types(one)
