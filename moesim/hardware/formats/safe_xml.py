"""XML of at most 1 MiB without a document type, so without entities; elements know their line."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.parsers import expat

from moesim.errors import BadInput

MAX_DEPTH = 32


@dataclass(frozen=True)
class Element:
    """Tag, attributes, children, and "file:line tag" for errors."""

    tag: str
    attributes: dict[str, str]
    where: str
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> list[Element]:
        """Every element of that tag below this one, in document order."""
        found = [child for child in self.children if child.tag == tag]
        return [*found, *(inner for child in self.children for inner in child.all(tag))]

    def integer(self, name: str, default: int | None = None) -> int:
        """An attribute as an integer of at most 8 digits. Raises BadInput."""
        text = self.attributes.get(name)
        if text is None and default is not None:
            return default
        if text is None or not text.isascii() or not text.isdigit() or len(text) > 8:
            raise BadInput(f"{name}={text!r} is no count", where=self.where)
        return int(text)


def parse(text: str, source: str) -> Element:
    """Text -> its root element. Raises BadInput with the line for malformed, too deep or entity-bearing XML."""
    reader = _Reader(source)
    try:
        reader.parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        raise BadInput(f"not XML: {expat.ErrorString(error.code)}", where=f"{source}:{error.lineno}") from None
    return reader.root.children[0]


class _Reader:
    def __init__(self, source: str) -> None:
        self.source = source
        self.root = Element("", {}, source)
        self._open = [self.root]
        self.parser = expat.ParserCreate("UTF-8")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = lambda _tag: self._open.pop()
        self.parser.StartDoctypeDeclHandler = self._doctype

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        where = f"{self.source}:{self.parser.CurrentLineNumber} {tag}"
        if len(self._open) > MAX_DEPTH:
            raise BadInput(f"nested deeper than {MAX_DEPTH}", where=where)
        element = Element(tag, dict(attributes), where)
        self._open[-1].children.append(element)
        self._open.append(element)

    def _doctype(self, *_: object) -> None:
        place = f"{self.source}:{self.parser.CurrentLineNumber}"
        raise BadInput("a document type is not allowed", where=place, way_out="remove the DOCTYPE line")
