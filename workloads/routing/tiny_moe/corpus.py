"""Five domains of text out of installed packages, split by document into training and held-out parts.

| domain | text | licence |
|---|---|---|
| python | source files of Python's standard library (without its tests) | PSF-2.0 |
| cpp | C++ headers of the package pyarrow | Apache-2.0 |
| docs | docstrings of numpy, scipy, networkx and sympy | BSD-3-Clause |
| translations | messages of Django in all its languages | BSD-3-Clause |
| json | the schema of plotly's charts | MIT |
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOC_PACKAGES = ("numpy", "scipy", "networkx", "sympy")
CHARACTERS_PER_DOMAIN = 2_400_000
HELD_OUT_OF_256 = 26  # about 10 % of the documents
SHORTEST_DOCUMENT = 400


@dataclass(frozen=True)
class Document:
    """One text with a name that is the same on every machine."""

    domain: str
    name: str
    text: str

    @property
    def held_out(self) -> bool:
        """A document is on one side for ever: by a hash of its name."""
        return _digest(self.name)[0] < HELD_OUT_OF_256


def documents() -> list[Document]:
    """All domains, each cut to the same number of characters in the order of a hash of the names."""
    found: list[Document] = []
    for domain, read in SOURCES.items():
        texts = [Document(domain, name, text) for name, text in read() if len(text) >= SHORTEST_DOCUMENT]
        found += _first_characters(sorted(texts, key=lambda d: _digest(d.name + "order")))
    return found


def _first_characters(texts: list[Document]) -> list[Document]:
    kept, total = [], 0
    for document in texts:
        if total < CHARACTERS_PER_DOMAIN:
            kept.append(document)
            total += len(document.text)
    return kept


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the corpus needs the package {name}: pip install {name}")
    return Path(spec.origin).parent


def _python() -> Iterator[tuple[str, str]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = {"site-packages", "test", "tests", "idlelib", "lib2to3", "dist-packages", "__pycache__"}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not skip & set(parts) and not parts[0].startswith("config-"):
            yield "/".join(("python", *parts)), path.read_text(encoding="utf-8", errors="replace")


def _cpp() -> Iterator[tuple[str, str]]:
    root = _package("pyarrow") / "include"
    for path in sorted(root.rglob("*.h")):
        text = path.read_text(encoding="utf-8", errors="replace")
        yield f"pyarrow/{path.relative_to(root).as_posix()}", text.partition("#pragma once")[2] or text


def _docs() -> Iterator[tuple[str, str]]:
    for package in DOC_PACKAGES:
        root = _package(package)
        for path in sorted(root.rglob("*.py")):
            if "tests" not in path.parts:
                docs = "\n\n".join(_docstrings(path.read_text(encoding="utf-8", errors="replace")))
                yield f"{package}/{path.relative_to(root).as_posix()}", docs


def _docstrings(source: str) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        text = ast.get_docstring(node) if isinstance(node, kinds) else None
        if text and len(text) > 200:
            yield text


def _translations() -> Iterator[tuple[str, str]]:
    root = _package("django")
    for path in sorted(root.rglob("locale/*/LC_MESSAGES/*.po")):
        blocks = path.read_text(encoding="utf-8").split("\n\n")[1:]  # the first block is the header
        name = f"django/{path.relative_to(root).as_posix()}"
        for first in range(0, len(blocks), 40):
            yield f"{name}#{first}", "\n".join(_messages(blocks[first : first + 40]))


def _messages(blocks: list[str]) -> Iterator[str]:
    for block in blocks:
        quoted = block.partition("\nmsgstr")[2]
        pieces = [line.partition('"')[2].rpartition('"')[0] for line in quoted.splitlines()]
        if any(pieces):
            yield "".join(pieces).replace("\\n", "\n").replace('\\"', '"')


def _json() -> Iterator[tuple[str, str]]:
    schema = json.loads((_package("plotly") / "validators" / "_validators.json").read_text(encoding="utf-8"))
    names = sorted(schema)
    for first in range(0, len(names), 24):
        part = {name: schema[name] for name in names[first : first + 24]}
        yield f"plotly/{names[first]}", json.dumps(part, indent=1)


SOURCES = {"python": _python, "cpp": _cpp, "docs": _docs, "translations": _translations, "json": _json}
