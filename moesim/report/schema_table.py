"""A JSON Schema of scenario files as a Markdown table: each key with its values, its default and what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

HEAD: Final = ("| key | values | default | what it is |\n", "|---|---|---|---|\n")
ITEM: Final = "[]"  # after the key of a list of sections
Node = Mapping[str, Any]


def table(document: Node) -> str:
    """Keys in the order in which a file has them, sections after their own line; routers are `moesim list`'s."""
    rows = "".join(
        f"| `{key}` | {values} | {default} | {_cell(what)} |\n" for key, values, default, what in keys(document)
    )
    return "".join(HEAD) + rows


def keys(document: Node) -> Iterator[tuple[str, str, str, str]]:
    """(dotted key, values, default, description) of all of them. A section within itself ends where it begins anew."""
    yield from _section(document, document, "", ())


def _section(document: Node, node: Node, before: str, above: tuple[str, ...]) -> Iterator[tuple[str, str, str, str]]:
    required = node.get("required", ())
    for name, value in node.get("properties", {}).items():
        key = f"{before}{name}"
        inner = [(ref, many) for ref, many in _sections(value) if ref not in above and ref != "Router"]
        what = value.get("description") or " ".join(
            document["$defs"][ref].get("description", "").partition("\n\n")[0] for ref, _ in inner[:1]
        )
        yield key, _values(value), "" if name in required else _default(value), what
        for ref, many in inner:
            yield from _section(document, document["$defs"][ref], f"{key}{ITEM if many else ''}.", (*above, ref))


def _alternatives(node: Node) -> list[Node]:
    return [one for name in ("anyOf", "oneOf") for one in node.get(name, ())] or [node]


def _sections(node: Node) -> Iterator[tuple[str, bool]]:
    """Names of the sections that a value may be, and whether it is a list of them."""
    for one in _alternatives(node):
        if "$ref" in one:
            yield one["$ref"].rpartition("/")[2], False
        elif "$ref" in one.get("items", {}):
            yield one["items"]["$ref"].rpartition("/")[2], True


def _values(node: Node) -> str:
    """What may stand there, in a few words."""
    return " or ".join(dict.fromkeys(filter(None, map(_kind, _alternatives(node)))))


def _kind(node: Node) -> str:
    if "$ref" in node:
        return "a router" if node["$ref"].endswith("/Router") else "section"
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{one}`" for one in node["enum"])
    if node.get("examples"):
        return f"e.g. `{node['examples'][0]}`"
    if node.get("type") == "array":
        return f"list of {_values(node.get('items', {})) or 'values'}"
    words = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text",
             "object": "mapping"}  # fmt: skip
    return " ".join(filter(None, (words.get(node.get("type", ""), ""), _range(node))))


def _range(node: Node) -> str:
    low = [f">= {node['minimum']:g}"] if "minimum" in node else []
    low += [f"> {node['exclusiveMinimum']:g}"] if "exclusiveMinimum" in node else []
    high = [f"<= {node['maximum']:g}"] if "maximum" in node else []
    return ", ".join(low + high)


def _default(node: Node) -> str:
    """Of single values: a section's are at its own keys."""
    value = node.get("default")
    plain = value is None or isinstance(value, (dict, list))
    return "" if plain or value == "" else f"`{json.dumps(value).strip(chr(34))}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
