"""A row of the gallery: base, variants, and what has to hold between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from moesim import shipped, yamlfile
from moesim.errors import BadInput, unknown_name
from moesim.studies.expression import Expression
from moesim.yamlfile import Items, Section

FOLDER: Final = "workloads/gallery"
BASE: Final = "_base"  # the scenario that rows are changes of, unless they name another
OURS: Final = "_"  # how names of the gallery's own scenarios begin
WORD: Final = r"^[a-z][a-z0-9_]*$"


class Side(Section):
    """One thing to run: a scenario with keys set, or verbs one after the other, the last of which prints JSON."""

    scenario: str = Field(BASE, description="a shipped scenario of a step or of mode: serve, or _base, _serve of here")
    set: dict[str, Any] = Field(default_factory=dict, description="dotted key -> value; null takes the key away")
    commands: Items[Items[str]] = Field(
        (), description="verbs with arguments; {tmp}: a folder of the row; {base}: the file of _base, as all of ours"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Side:
        if self.commands and self.set:
            raise ValueError("commands have their own --set")
        return self


class Published(Section):
    """A figure of the paper beside the row's own; nothing is fitted to it. It fails only where it has a tolerance."""

    case: str = ""
    quantity: str
    value: float
    tolerance: float | None = Field(None, gt=0, description="relative")
    source: str
    confidence: str = ""


class RowFile(Section):
    """The keys of a file of the gallery."""

    gallery: Literal[1]
    seed: str = Field(pattern=r"^S\d{3}$", description="number of the mechanism")
    system: str = Field(description="the authors' name")
    features: Items[str] = Field((), description="of the catalogue")
    title: str = Field(min_length=1, description="the effect, in one sentence")
    mechanism: str = Field("", description="what is modelled, and what stands in for something else")
    needs: Items[str] = Field((), description="features that the row waits for; it is not played")
    base: Side = Side()
    variants: dict[str, Side] = Field(default_factory=dict)
    seeds: int = Field(1, ge=1, le=16, description="metrics are means over so many")
    expect: Items[str] = Field((), description="expressions over side.metric; swapping a variant and base breaks one")
    law: Items[str] = Field((), description="identities that hold exactly")
    published: Items[Published] = ()
    not_simulated: Items[str] = ()

    @model_validator(mode="after")
    def _can_fail(self) -> RowFile:
        if bool(self.needs) == bool(self.expect):
            raise ValueError("give expect, or needs where the row waits for a feature")
        if self.expect and not self.variants:
            raise ValueError("expect compares variants with base: there are no variants")
        for name in self.variants:
            if name == "base" or not re.match(WORD, name):
                raise ValueError(f"{name!r} is no name for a variant: small letters, digits and _, and not base")
        return self


@dataclass(frozen=True)
class Row:
    """A file, read and checked."""

    file: RowFile
    document: yamlfile.Document

    @property
    def sides(self) -> dict[str, Side]:
        """base and the variants; a variant without scenario or commands is base with its keys set."""
        base = self.file.base
        return {"base": base} | {name: _on(base, side) for name, side in self.file.variants.items()}

    def expressions(self, key: Literal["expect", "law"]) -> list[Expression]:
        """Those of `key`, each at its line. Raises BadInput."""
        texts: tuple[str, ...] = getattr(self.file, key)
        return [self._read(text, key, number) for number, text in enumerate(texts)]

    def quantities(self) -> list[Expression]:
        """What stands beside each published figure. Raises BadInput."""
        published = self.file.published
        return [self._read(one.quantity, "published", number, quantity=True) for number, one in enumerate(published)]

    def _read(self, text: str, key: str, number: int, *, quantity: bool = False) -> Expression:
        where = self.document.where((key, number))
        found = Expression(text, where, quantity=quantity, owners=("base", *self.file.variants))
        if not found.names:
            raise BadInput(f"{text!r} reads no side", where=where, way_out="base.step_time_s, or a metric of a variant")
        return found

    def matches(self, word: str) -> bool:
        """By number, feature, or a part of the system's name or the title."""
        file, word = self.file, word.casefold()
        return word in (file.seed.casefold(), *(name.casefold() for name in file.features)) or any(
            word in text.casefold() for text in (file.system, file.title)
        )


def _on(base: Side, side: Side) -> Side:
    if side.commands or "scenario" in side.model_fields_set:
        return side
    return Side(scenario=base.scenario, set=base.set | side.set, commands=base.commands if not side.set else ())


def rows() -> list[Row]:
    """All of them, in order. Raises BadInput with file and line."""
    files = shipped.names(FOLDER, ".yaml")
    return [_read(yamlfile.read_yaml(files[name])) for name in files if not name.startswith(OURS)]


def own_files() -> dict[str, Path]:
    """Scenarios and models of the gallery itself: name -> file."""
    return {name: path for name, path in shipped.names(FOLDER, ".yaml").items() if name.startswith(OURS)}


def _read(document: yamlfile.Document) -> Row:
    row = Row(document.validate(RowFile), document)
    row.expressions("expect"), row.expressions("law"), row.quantities()
    return row


def find_rows(words: Sequence[str]) -> list[Row]:
    """Rows that one of the words finds, all without words. Raises BadInput for a word that finds none."""
    known = rows()
    for word in words:
        if not any(row.matches(word) for row in known):
            names = [name for row in known for name in (row.file.seed, row.file.system)]
            raise unknown_name("row", word, names, where="moesim gallery")
    return [row for row in known if not words or any(row.matches(word) for word in words)]
