"""The JSON Schema of `routing.router`: a name, or a mapping with the keys of the router that it names."""

from __future__ import annotations

from typing import Any, Final

from moesim.routing.routers.router import Router

DEFINITION: Final = "Router"
REF: Final = {"$ref": f"#/$defs/{DEFINITION}"}


def definitions() -> dict[str, Any]:
    """`$defs` of all routers: "Router" itself, and the sections that their keys hold."""
    found: dict[str, Any] = {}
    known = dict(sorted(Router.known.items()))
    mappings = [_mapping(name, router, found) for name, router in known.items()]
    return {**found, DEFINITION: {"anyOf": [{"type": "string", "enum": list(known)}, *mappings]}}


def _mapping(name: str, router: type[Router], found: dict[str, Any]) -> dict[str, Any]:
    schema = router.model_json_schema()
    found.update({key: one for key, one in schema.pop("$defs", {}).items() if key != DEFINITION})
    keys = {key: _without_default(one) for key, one in schema.get("properties", {}).items()}
    return {**schema, "properties": {"name": {"const": name}, **keys}, "required": ["name"]}


def _without_default(key: dict[str, Any]) -> dict[str, Any]:
    """An inner router's default is an object of parameters without a name, which no scenario could say."""
    return {name: value for name, value in key.items() if name != "default"} if key.get("$ref") == REF["$ref"] else key
