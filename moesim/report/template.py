"""A scenario file with every key in it: those of an example as they are, the others as comments with their defaults."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from moesim.routing.routers import Router
from moesim.studies import Scenario
from moesim.studies.load import SERVE, TRAIN
from moesim.studies.serving import ServeScenario
from moesim.studies.training import TrainScenario

HEAD = "# A moesim scenario. Lines without '#' are set; the others show the default. `moesim schema` has the types."
KINDS: dict[str, type[BaseModel]] = {SERVE: ServeScenario, TRAIN: TrainScenario}
WIDTH = 44  # column at which comments begin


def template(example: Mapping[str, Any]) -> str:
    """The plain data of a scenario -> YAML text with all keys, commented from the schema; it loads to the same."""
    schema: type[BaseModel] = KINDS.get(str(example.get("mode")), Scenario)
    return "\n".join([HEAD, *_section(schema, example, "")]) + "\n"


def _section(schema: type[BaseModel], data: Mapping[str, Any] | None, indent: str) -> Iterator[str]:
    """Lines of one section; where its data is None, the section is not set and all of it is comments."""
    for name, field in schema.model_fields.items():
        if name in getattr(schema, "silent", ()):
            continue
        key = field.alias or name
        given = data is not None and key in data
        value = data[key] if data is not None and given else None
        if name == "router" and value is not None:
            yield from _router(value, indent)
            continue
        short = given and not isinstance(value, Mapping)  # `costs: h100_sxm` where a section could stand
        inner, mark = None if short else _inner(field), "" if given else "# "
        if inner is None:
            default = None if field.is_required() else field.default
            yield _line(f"{mark}{indent}{key}: {_flow(value if given else default)}", field.description or "")
        else:
            yield _line(f"{mark}{indent}{key}:", field.description or (inspect.getdoc(inner) or "").partition("\n")[0])
            yield from _section(inner, value, indent + "  ")


def _router(value: str | Mapping[str, Any], indent: str) -> Iterator[str]:
    """The router that is named, and all its keys."""
    name, given = (value, {}) if isinstance(value, str) else (value["name"], value)
    yield _line(f"{indent}router:", "`moesim list` has the routers")
    yield f"{indent}  name: {_flow(name)}"
    for name_, field in Router.known[name].model_fields.items():
        key = field.alias or name_
        default = field.default.model_dump(mode="json") if isinstance(field.default, BaseModel) else field.default
        shown = given.get(key, "topk_softmax" if isinstance(field.default, Router) else default)
        yield _line(f"{'' if key in given else '# '}{indent}  {key}: {_flow(shown)}", field.description or "")


def _line(text: str, about: str) -> str:
    return f"{text.ljust(WIDTH)}  # {about}" if about else text


def _inner(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a key holds, if it holds one."""
    choices = [field.annotation, *get_args(field.annotation)]
    return next((one for one in choices if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _flow(value: Any) -> str:
    """YAML in one line; text is quoted where it would read as something else."""
    if isinstance(value, str):
        return value if _is_plain(value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


def _is_plain(text: str) -> bool:
    """Letters first, then nothing that YAML gives a meaning to."""
    return (
        text[:1].isalpha()
        and text.isprintable()
        and not set(text) & set(":#,[]{}\"'")
        and text not in ("null", "true", "false")
    )
