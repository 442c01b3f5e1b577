"""Strict YAML: every value keeps its line, and what YAML 1.1 would guess silently is refused.

Measured on PyYAML: `1e9` is a string, `017` is 15, `NO` is False, a duplicate key keeps the last one, a 341-byte alias
bomb grows to millions of nodes, and the C loader crashes at a nesting of 100,000. So: events are guarded before
anything is composed, and plain scalars resolve by JSON's rules, with the rest left as text for the schema to judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moesim import foreign, units
from moesim.errors import BadInput, unknown_name

Keys = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)
Item = TypeVar("Item")

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32
MAX_NODES: Final = 100_000
WANTED: Final = "Input should be "  # how pydantic begins

_SECTION: Final = re.compile(r"a valid dictionary or instance of \w+")
_INT: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class Section(BaseModel):
    """Base of every schema: unknown keys are refused, text is never coerced into a number, NaN and inf are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Items = Annotated[tuple[Item, ...], Field(strict=False)]  # a YAML list; strict pydantic would refuse it as a tuple


@dataclass(frozen=True)
class Document:
    """Plain data of one YAML file and the line of each key; `where(path)` gives "file:line key" for errors."""

    data: dict[str, Any]
    source: str
    lines: dict[Keys, int] = field(default_factory=dict, compare=False)

    def where(self, keys: Keys = ()) -> str:
        """Text such as "file.yaml:12 cluster.nodes", with the line of the deepest key that stands in the file."""
        known = keys
        while known and known not in self.lines:
            known = known[:-1]
        line = f":{self.lines[known]}" if known in self.lines else ""
        return f"{self.source}{line}{' ' if keys else ''}{dotted(keys)}"

    def validate(self, schema: type[Model]) -> Model:
        """The data as `schema`; raises BadInput with file, line, key, value and the nearest known key."""
        return validate(schema, self.data, self.where)


def validate(schema: type[Model], data: Any, where: Callable[[Keys], str]) -> Model:
    """Plain data -> `schema`; `where(path)` places the first error. Raises BadInput."""
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])  # a misspelt key is also missing
        keys = _keys_in(data, first["loc"])
        if first["type"] == "extra_forbidden":
            raise _unknown_key(schema, keys, where(keys)) from None
        if first["type"] == "missing":
            raise _missing_key(schema, keys, where(keys)) from None
        same = [each for each in errors if _keys_in(data, each["loc"]) == keys]
        raise BadInput(_message(same), where=where(keys)) from None


def _keys_in(data: Any, location: Keys) -> Keys:
    """pydantic's location without the names of union members, which are no keys of the file."""
    keys: list[str | int] = []
    for number, name in enumerate(location):
        stands = isinstance(data, (dict, list)) and (name in data if isinstance(data, dict) else isinstance(name, int))
        if stands:
            data = data[name] if isinstance(data, dict) or int(name) < len(data) else None
        if stands or (isinstance(data, dict) and number == len(location) - 1):
            keys.append(name)
    return tuple(keys)


def _unknown_key(schema: type[BaseModel], keys: Keys, where: str) -> BadInput:
    """With the places below the same section where a key of that name is known, before those that stand beside it."""
    beside = _known_keys(schema, keys[:-1])
    error = unknown_name("key", keys[-1], beside, where=where)
    section = dotted((*keys[:-1], "")) if len(keys) > 1 else ""
    elsewhere = [place for place in _places_of(str(keys[-1]), schema) if place.startswith(section)][:2]
    way_out = f"{' or '.join(elsewhere)}; {error.way_out}" if elsewhere else error.way_out
    return BadInput(error.what, where=where, way_out=way_out)


def _missing_key(schema: type[BaseModel], keys: Keys, where: str) -> BadInput:
    """With what it is, where its section says so, and the keys of a section."""
    fields = [field_ for model in _sections_at(schema, keys[:-1]) for name, field_ in model.model_fields.items()
              if (field_.alias or name) == keys[-1]]  # fmt: skip
    says = next((f" ({field_.description})" for field_ in fields if field_.description), "")
    section = any(isinstance(field_.annotation, type) and _models_in(field_.annotation) for field_ in fields)
    choices = [str(one) for field_ in fields if get_origin(field_.annotation) is Literal
               for one in get_args(field_.annotation)]  # fmt: skip
    way_out = f"give it some of {', '.join(_known_keys(schema, keys))}" if section else (
        f"{keys[-1]}: {' or '.join(dict.fromkeys(choices)) or '...'}")  # fmt: skip
    return BadInput(f"missing, and has no default{says}", where=where, way_out=way_out)


def _places_of(name: str, schema: type[BaseModel], above: str = "", depth: int = 4) -> Iterator[str]:
    """Dotted keys of that name; none inside of lists."""
    for key, field_ in schema.model_fields.items():
        place = f"{above}{field_.alias or key}"
        if (field_.alias or key) == name:
            yield place
        for inner in dict.fromkeys(_models_in(field_.annotation, lists=False)) if depth else ():
            yield from _places_of(name, inner, f"{place}.", depth - 1)


def _message(errors: Sequence[Any]) -> str:
    """Of the errors of one key: what each member of a union wants of a plain value is one of several ways."""
    first, value = errors[0], errors[0].get("input")
    text = str(first["msg"]).removeprefix("Value error, ")
    wanted = [_of_yaml(str(error["msg"]).removeprefix(WANTED)) for error in errors
              if str(error["msg"]).startswith(WANTED)]  # fmt: skip
    text = f"has to be {' or '.join(dict.fromkeys(wanted))}" if wanted else text
    if isinstance(value, (dict, list)) or (not wanted and repr(value) in text):
        return text
    return f"{text}, not {value!r}{_hint(str(first['type']), str(value).lower())}"


def _of_yaml(wanted: str) -> str:
    """Without the names that Python has for things of YAML."""
    return _SECTION.sub("a section of keys", wanted).replace("a valid tuple", "a list")


def _hint(kind: str, text: str) -> str:
    """Spellings that YAML 1.2 does not take, said with the one that it does."""
    if kind.startswith("bool") and text in ("yes", "on", "no", "off"):
        return f"; a yes or no is written {'true' if text in ('yes', 'on') else 'false'}"
    if kind.startswith("int") and text.isascii() and text.isdigit() and text[0] == "0":
        return f"; without the leading zero it is {text.lstrip('0') or '0'}"
    if kind.startswith("float") and _FLOAT.fullmatch(text) and "." not in text:
        return f"; with a point it is {text.replace('e', '.0e')}"
    return ""


def _known_keys(schema: type[BaseModel], keys: Keys) -> list[str]:
    """The keys that the (nested) schema at `keys` knows."""
    models = _sections_at(schema, keys)
    return sorted({field_.alias or name for model in models for name, field_ in model.model_fields.items()})


def _sections_at(schema: type[BaseModel], keys: Keys) -> list[type[BaseModel]]:
    """Unions and containers are walked through."""
    models: list[type[BaseModel]] = [schema]
    for name in keys:
        inner = [model.model_fields[name].annotation for model in models if name in model.model_fields]
        models = [found for annotation in inner for found in _models_in(annotation)] or models
    return models


def _models_in(annotation: Any, *, lists: bool = True) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if not lists and get_origin(annotation) in (tuple, list, dict):
        return []
    return [found for argument in get_args(annotation) for found in _models_in(argument, lists=lists)]


def dotted(keys: Keys) -> str:
    """("faults", 0, "at") -> "faults[0].at"."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return text.removeprefix(".")


def undotted(text: str) -> Keys:
    """The way back."""
    return tuple(int(row) if row else key for row, key in re.findall(r"\[(\d+)\]|([^.\[\]]+)", text))


def read_yaml(path: Path) -> Document:
    """The mapping in a YAML file of at most 1 MiB, nested at most 32 deep, without aliases or tags. Raises BadInput."""
    return parse_yaml(read_text(path), str(path))


def override(data: dict[str, Any], text: str, example: str) -> str:
    """Set "a.b=value" in `data`, the value read as YAML, or as a count such as 32k (32,000), 32Ki or 1e3; returns the
    dotted key. Raises BadInput with `example`.
    """
    key, equals, value = text.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise BadInput(f"--set {text!r} is not key=value", way_out=f"--set {example}")
    target = data
    for depth, part in enumerate(parts[:-1], start=1):
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            inner = "".join(f"{{{name}: " for name in parts[depth:]) + value + "}" * len(parts[depth:])
            way_out = f"--set '{'.'.join(parts[:depth])}={inner}'"
            raise BadInput(f"{part!r} holds no keys, it is {target!r}", where=f"--set {key}", way_out=way_out)
    count = units.counted(value)
    target[parts[-1]] = parse_yaml(f"value: {value}", f"--set {key}").data["value"] if count is None else count
    return key


def merge(data: dict[str, Any], changes: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Set {"a.b": value} or {"a": {"b": value}} in `data`, keys beside them stay; yields the dotted keys that were set.

    Raises BadInput for a key that is no text.
    """
    for name, value in changes.items():
        if not isinstance(name, str) or not all(name.split(".")):
            raise BadInput(f"override {name!r} is no name of a key", way_out="{'cluster.nodes': 4}")
        *path, last = name.split(".")
        target = data
        for part in path:
            target = _inside(target, part)
        key = f"{above}{name}"
        if isinstance(value, Mapping) and isinstance(target.get(last), dict):
            yield from merge(target[last], value, f"{key}.")
        else:
            target[last] = dict(value) if isinstance(value, Mapping) else value
            yield key


def _inside(data: dict[str, Any], part: str) -> dict[str, Any]:
    """The keys under `part`, made where there are none; what is no mapping gives way to one."""
    if not isinstance(data.get(part), dict):
        data[part] = {}
    found: dict[str, Any] = data[part]
    return found


def read_text(path: Path) -> str:
    """A UTF-8 file of at most 1 MiB, with or without a byte order mark. Raises BadInput."""
    try:
        return foreign.read_bytes(path, MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"not UTF-8 at byte {error.start}", where=path, way_out="save the file as UTF-8") from None


def parse_yaml(text: str, source: str, *, list_key: str = "") -> Document:
    """YAML text -> Document; `source` names it in errors. Raises BadInput.

    With `list_key` a list at the top, as some tools write it, becomes the mapping {list_key: list}.
    """
    try:
        _guard(text, source)
        node = yaml.compose(text, Loader=_Loader)
        lines: dict[Keys, int] = {}
        listed = isinstance(node, yaml.SequenceNode) and bool(list_key)
        data = _plain(node, (list_key,) if listed else (), lines, source)
        data = {list_key: data} if listed else data
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise BadInput(f"not YAML: {error.problem or error.context}", where=place) from None
    except yaml.YAMLError as error:
        raise BadInput(f"not YAML: {str(error).splitlines()[0]}", where=source) from None
    if not isinstance(data, dict):
        kind = "empty" if data is None else f"a {type(data).__name__}"
        raise BadInput(f"the top level is {kind}", where=f"{source}:1", way_out="write 'key: value' lines")
    return Document(data, source, lines)


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _guard(text: str, source: str) -> None:
    """Walk the events, which costs no memory, and refuse what must not be composed."""
    depth = documents = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        mark: Any = event.start_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}"
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        tag = getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise BadInput("anchors and aliases are not allowed", where=place, way_out="write the value out")
        if tag is not None and tag != "!":
            raise BadInput(f"the tag {tag!r} is not allowed", where=place)
        if documents > 1:
            raise BadInput("a second document starts here", where=place, way_out="one document per file")
        if depth > MAX_DEPTH or count > MAX_NODES:
            raise BadInput(f"nested deeper than {MAX_DEPTH} or more than {MAX_NODES} nodes", where=place)


def _plain(node: Any, keys: Keys, lines: dict[Keys, int], source: str) -> Any:
    if node is None:
        return None
    lines.setdefault(keys, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*keys, i), lines, source) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, keys, lines, source)
    if any((ord(letter) < 32 and letter not in "\n\t") or 127 <= ord(letter) < 160 for letter in node.value):
        raise BadInput("holds a control character", where=f"{source}:{node.start_mark.line + 1} {dotted(keys)}")
    return node.value if node.style else _scalar(node.value)


def _mapping(node: Any, keys: Keys, lines: dict[Keys, int], source: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise BadInput("a key must be plain text", where=f"{source}:{line}")
        name = key_node.value
        if not name.isprintable():
            raise BadInput(f"the key {name!r} holds a control character", where=f"{source}:{line}")
        if name in result:
            raise BadInput(f"the key {name!r} stands twice", where=f"{source}:{line} {dotted((*keys, name))}")
        lines[(*keys, name)] = line
        result[name] = _plain(value_node, (*keys, name), lines, source)
    return result


def _scalar(text: str) -> Any:
    """JSON's rules; anything else (1e9 included, which YAML 1.1 calls text) stays text for the schema to judge."""
    if text in {"", "null", "~"}:
        return None
    if text in {"true", "false"}:
        return text == "true"
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and "." in text:
        return float(text)
    return text
