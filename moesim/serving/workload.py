"""The `requests:` section: what is asked of the system, and the columns that a seed makes of it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from moesim import streams
from moesim.errors import BadInput
from moesim.serving.arrivals import Arrivals
from moesim.serving.classes import ClassSection, Columns, check_classes, classes_of, divided, with_lengths
from moesim.serving.lengths import Column, Length
from moesim.serving.prefixes import Documents, Prefixes
from moesim.serving.requests import Ints, Requests
from moesim.serving.sessions import SessionsSection
from moesim.units import Seconds
from moesim.yamlfile import Items, Section

MOST_REQUESTS = 10**7
LATER = " of later turns"  # whose draws move none of first ones


class SharedPrefix(Section):
    """Prompts that begin with one of some texts, as those of retrieval do: the text number n is asked for with a
    frequency of 1 / n ** zipf.
    """

    documents: int = Field(ge=1, le=10**6, description="different texts")
    share: float = Field(gt=0, le=1, description="of each prompt, that is the text's beginning")
    zipf: float = Field(0.0, ge=0, le=10, description="0: all texts are asked for as often")

    def draw(self, prompt: Ints, rng: np.random.Generator) -> Documents:
        """Of prompts int64[n]."""
        often = np.arange(1, self.documents + 1, dtype=np.float64) ** -self.zipf
        text = np.searchsorted(np.cumsum(often) / often.sum(), rng.random(len(prompt)), side="right")
        shared = np.rint(prompt * self.share).astype(np.int64)
        return Documents(text.clip(max=self.documents - 1).astype(np.int64), shared)


class RequestsSection(Section):
    """Who asks for what, and when."""

    number: int | None = Field(
        None,
        ge=1,
        le=MOST_REQUESTS,
        description="requests, or sessions; a replay takes all of its file where none is given",
    )
    arrivals: Arrivals
    input_length: Length | None = Field(None, description="tokens of prompts; default: the replayed file's")
    output_length: Length | None = Field(None, description="tokens of answers, the first among them; default: same")
    classes: Items[ClassSection] = Field((), max_length=64, description="kinds of requests; default: all are alike")
    sessions: SessionsSection | None = Field(None, description="conversations; default: every request is by itself")
    prefix: SharedPrefix | None = Field(None, description="what prompts have in common; default: the replayed file's")
    warmup: Seconds | Literal["auto"] = Field(
        0.0, description="requests that arrive earlier are not counted; auto: MSER-5 finds the end of the transient"
    )

    @model_validator(mode="after")
    def _complete(self) -> RequestsSection:
        if self.arrivals.replay is not None:
            return self
        for name in ("number", "input_length", "output_length"):
            if getattr(self, name) is None:
                raise ValueError(f"{name} is needed where no file is replayed")
        return self

    def check(self) -> None:
        """Raises BadInput where the classes cannot be."""
        alone = "a replay" if self.arrivals.replay else "a closed loop" if self.arrivals.closed_loop else ""
        check_classes(self.classes, alone)
        if self.sessions and self.arrivals.replay:
            way_out = "arrivals of another kind, with input_length: {dataset: ...}"
            raise BadInput("a recording has its own times of every turn", where="requests.sessions", way_out=way_out)

    def draw(self, seed: int) -> tuple[Requests, tuple[str, ...]]:
        """The requests of a seed, and what there is to say about them. Raises BadInput."""
        base, found, notes = self._recorded(seed) if self.arrivals.replay else self._drawn(seed)
        every = divided(self.classes, base, seed) if self.classes else base
        loop = self.arrivals.closed_loop
        texts = self._shared(every.prompt, seed)
        prefixes: Prefixes | None = texts or found
        follows = None
        if self.sessions:
            built = self.sessions.draw(every, texts, seed, lambda kind: self._later(seed, kind))
            every, follows, prefixes = built.columns, built.follows, built.prefixes
        classes = classes_of(self.classes, every.kind) if self.classes else None
        columns = every.arrival, every.prompt, every.output
        return Requests(*columns, loop.concurrency if loop else 0, prefixes, classes, follows), notes

    def _later(self, seed: int, kind: Ints) -> tuple[Ints, Ints]:
        """New tokens and answers of later turns, of these classes."""
        columns = self._lengths(len(kind), seed, None, LATER)
        return with_lengths(self.classes, seed, *columns, kind, LATER) if self.classes else columns

    def _drawn(self, seed: int) -> tuple[Columns, None, tuple[str, ...]]:
        assert self.number is not None
        arrival = self.arrivals.drawn(self.number, streams.stream(seed, "serving", "arrivals"))
        return Columns(arrival, *self._lengths(self.number, seed, None), np.zeros_like(arrival)), None, ()

    def _recorded(self, seed: int) -> tuple[Columns, Prefixes | None, tuple[str, ...]]:
        """Of a replay: also what prompts have in common, and what there is to say."""
        replay = self.arrivals.replay
        assert replay is not None
        table = replay.table()
        assert table.arrival is not None
        n = self.number or len(table.prompt)
        if n > len(table.prompt):
            raise BadInput(f"{replay.file} holds {len(table.prompt)} requests", where="requests.number",
                           way_out=f"number: {len(table.prompt)} or less, or leave it out")  # fmt: skip
        prompt, output = self._lengths(n, seed, (table.prompt[:n], table.output[:n]))
        notes = [f"{replay.file}: {table.skipped}, they are left out"] if table.skipped else []
        own = self.input_length or any(one.input_length for one in self.classes)
        if own and table.prefixes:
            notes.append(f"{replay.file}: what its prompts share is left out, as their lengths are not its own")
        found = None if own or not table.prefixes else table.prefixes.first(n)
        return Columns(table.arrival[:n], prompt, output, np.zeros(n, dtype=np.int64)), found, tuple(notes)

    def _shared(self, prompt: Ints, seed: int) -> Documents | None:
        return self.prefix.draw(prompt, streams.stream(seed, "serving", "prefixes")) if self.prefix else None

    def _lengths(self, n: int, seed: int, recorded: tuple[Ints, Ints] | None, part: str = "") -> tuple[Ints, Ints]:
        columns: list[Ints] = []
        for number, (name, length) in enumerate((("input", self.input_length), ("output", self.output_length))):
            if length is None:
                assert recorded is not None
                columns.append(recorded[number])
            else:
                columns.append(length.draw(n, _rng(seed, name, length, part), _column(name)))
        return columns[0], columns[1]


def _rng(seed: int, name: str, length: Length, part: str) -> np.random.Generator:
    """Of a column; of a data set, whose two columns belong together."""
    return streams.stream(seed, "serving", "lengths", (length.dataset.file if length.dataset else name) + part)


def _column(name: str) -> Column:
    return "input" if name == "input" else "output"
