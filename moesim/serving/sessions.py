"""The `requests.sessions:` section: conversations of several turns, and requests that agents make beside their own.

The prompt of a turn is all that was said before and what is new. Turns know each other's KV blocks where the prefix
cache holds them. Not modelled: a session's tokens taking the same experts again when they are computed again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from moesim import streams
from moesim.serving.classes import Columns
from moesim.serving.follows import Follows
from moesim.serving.lengths import INPUT, OUTPUT, Length
from moesim.serving.prefixes import Continued, Documents
from moesim.serving.requests import Ints
from moesim.units import Seconds, to_ps
from moesim.yamlfile import Section

MOST: Final = 10**4  # turns of a session, children of a turn
LONGEST: Final = 1e6  # s
Lengths = Callable[[Ints], tuple[Ints, Ints]]  # of requests of these classes: new tokens, tokens of answers


class Between(Section):
    """Whole numbers, each as likely, both ends among them."""

    low: int = Field(ge=0, le=MOST, description="least")
    high: int = Field(ge=0, le=MOST, description="most")

    @model_validator(mode="after")
    def _in_order(self) -> Between:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Count(Section):
    """`fixed`, `uniform` or `geometric`; a bare number is `fixed`."""

    fixed: int | None = Field(None, ge=1, le=MOST, description="always as many")
    uniform: Between | None = None
    geometric: float | None = Field(None, ge=1, le=MOST, description="mean; after each the next comes as likely")

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, given: object) -> object:
        return {"fixed": given} if type(given) is int else given

    @model_validator(mode="after")
    def _one(self) -> Count:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of fixed, uniform, geometric (given: {', '.join(given) or 'none'})")
        return self

    @property
    def least(self) -> int:
        """That can be drawn."""
        return self.uniform.low if self.uniform else 1

    def draw(self, n: int, rng: np.random.Generator) -> Ints:
        """int64[n]."""
        if self.fixed is not None:
            return np.full(n, self.fixed, dtype=np.int64)
        if self.uniform:
            return rng.integers(self.uniform.low, self.uniform.high, n, endpoint=True)
        assert self.geometric is not None
        return np.minimum(rng.geometric(1 / self.geometric, n), MOST)


class LogNormalTime(Section):
    """Of this mean and coefficient of variation."""

    mean: Seconds = Field(gt=0, le=LONGEST, description="on average")
    cv: float = Field(ge=0, le=10, description="standard deviation over mean")


class Delay(Section):
    """`fixed`, `exponential` or `lognormal`; a bare time is `fixed`."""

    fixed: Seconds | None = Field(None, le=LONGEST, description="always as long")
    exponential: Seconds | None = Field(None, le=LONGEST, description="mean")
    lognormal: LogNormalTime | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, given: object) -> object:
        return {"fixed": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one(self) -> Delay:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of fixed, exponential, lognormal (given: {', '.join(given) or 'none'})")
        return self

    def draw(self, n: int, rng: np.random.Generator) -> Ints:
        """int64[n] ps."""
        if self.fixed is not None:
            return to_ps(np.full(n, self.fixed))
        if self.exponential is not None:
            return to_ps(np.minimum(rng.exponential(self.exponential, n), LONGEST))
        assert self.lognormal is not None
        sigma2 = math.log1p(self.lognormal.cv**2)
        values = rng.lognormal(math.log(self.lognormal.mean) - sigma2 / 2, math.sqrt(sigma2), n)
        return to_ps(np.minimum(values, LONGEST))


class ChildrenSection(Section):
    """Requests that an agent makes beside each turn of its own; its next turn waits for their answers."""

    number: Count = Field(description="of a turn")
    begin: Literal["dispatch", "end"] = Field("end", description="a child is sent as its parent is, or has its answer")
    context: Literal["own", "parent"] = Field(
        "own", description="its prompt is its own, or goes on from its parent's, and from its answer if that is there"
    )
    input_length: Length = Field(description="new tokens of its prompt")
    output_length: Length = Field(description="tokens of its answer")


class SessionsSection(Section):
    """Arrivals and `number` are of sessions, lengths of each turn's new tokens and answer."""

    turns: Count = Field(description="requests of a session, one after the other")
    think_time: Delay | None = Field(None, description="from an answer to the next turn; default: none")
    children: ChildrenSection | None = Field(None, description="requests that agents make beside their own")

    @model_validator(mode="after")
    def _has_turns(self) -> SessionsSection:
        if not self.turns.least:
            raise ValueError("turns: a session has one or more")
        return self

    def draw(self, first: Columns, texts: Documents | None, seed: int, lengths: Lengths) -> Sessions:
        """first: the first turns; texts: what they begin with."""
        sessions = len(first.arrival)
        turns = self.turns.draw(sessions, _stream(seed, "turns"))
        talk = _Talk.of(first, turns, lengths)
        n = len(talk.turn)
        delay = self.think_time.draw(n, _stream(seed, "think")) if self.think_time else np.zeros(n, dtype=np.int64)
        base = np.where(talk.turn > 0, talk.previous, -1)
        shared = np.where(talk.turn > 0, (talk.columns.prompt + talk.columns.output)[talk.previous], 0)
        later = np.flatnonzero(talk.turn > 0)
        edges = [(talk.previous[later], later, np.ones(len(later), dtype=np.bool_))]
        built = _Built(talk.columns, talk.session, talk.turn, delay, base, shared, edges)
        if self.children:
            built = built.beside(self.children, talk, seed)
        return built.sealed(texts)


@dataclass(frozen=True)
class Sessions:
    """Requests of sessions: the first turns, then all others."""

    columns: Columns
    follows: Follows
    prefixes: Continued


@dataclass(frozen=True)
class _Talk:
    """All turns, int64[n]: the session of each, which turn it is, the turn before; last bool[n]: none comes after."""

    columns: Columns
    session: Ints
    turn: Ints
    previous: Ints

    @classmethod
    def of(cls, first: Columns, turns: Ints, lengths: Lengths) -> _Talk:
        """turns int64[sessions]."""
        sessions, more = len(turns), turns - 1
        who = np.repeat(np.arange(sessions), more)
        session, row = np.append(np.arange(sessions), who), sessions + np.arange(len(who))
        turn = np.append(np.zeros(sessions, np.int64), row - sessions - np.repeat(np.cumsum(more) - more, more) + 1)
        previous = np.append(np.full(sessions, -1), np.where(turn[sessions:] == 1, who, row - 1))
        new, output = (
            np.append(a, b) for a, b in zip((first.prompt, first.output), lengths(first.kind[who]), strict=True)
        )
        order = np.lexsort((turn, session))  # turns of a session one after the other
        said = np.cumsum((new + output)[order])
        before = said - (new + output)[order]
        prompt = np.empty_like(new)
        prompt[order] = before - np.repeat(before[turn[order] == 0], turns) + new[order]
        arrival = np.append(first.arrival, np.full(len(who), first.arrival[-1]))
        return cls(Columns(arrival, prompt, output, first.kind[session]), session, turn, previous)

    @property
    def next(self) -> Ints:
        """int64[n]: the turn after each, -1 for none."""
        found = np.full(len(self.turn), -1)
        later = np.flatnonzero(self.turn > 0)
        found[self.previous[later]] = later
        return found


@dataclass(frozen=True)
class _Built:
    """Requests and who comes after whom; base, shared: whose text each goes on from, and so many tokens of it."""

    columns: Columns
    session: Ints
    turn: Ints
    delay: Ints
    base: Ints
    shared: Ints
    edges: list[tuple[Ints, Ints, npt.NDArray[np.bool_]]]

    def beside(self, kids: ChildrenSection, talk: _Talk, seed: int) -> _Built:
        """With the requests that are made beside each turn."""
        n, old = len(self.turn), self.columns
        parent = np.repeat(np.arange(n), kids.number.draw(n, _stream(seed, "children")))
        many, child = len(parent), n + np.arange(len(parent))
        new = kids.input_length.draw(many, _stream(seed, _source(kids.input_length, "child input")), INPUT)
        output = kids.output_length.draw(many, _stream(seed, _source(kids.output_length, "child output")), OUTPUT)
        at_end = np.full(many, kids.begin == "end")
        goes_on = kids.context == "parent"
        shared = (old.prompt[parent] + np.where(at_end, old.output[parent], 0)) * goes_on
        rows = Columns(np.full(many, old.arrival[-1]), shared + new, output, old.kind[parent])
        then = talk.next[parent]
        joins = then >= 0
        edges = [(parent, child, at_end), (child[joins], then[joins], np.ones(int(joins.sum()), dtype=np.bool_))]
        return _Built(
            columns=Columns(*(np.append(*pair) for pair in zip(old, rows, strict=True))),
            session=np.append(self.session, self.session[parent]),
            turn=np.append(self.turn, self.turn[parent]),
            delay=np.append(self.delay, np.zeros(many, dtype=np.int64)),
            base=np.append(self.base, np.where(goes_on, parent, -1)),
            shared=np.append(self.shared, shared),
            edges=[*self.edges, *edges],
        )

    def sealed(self, texts: Documents | None) -> Sessions:
        """texts: what first turns begin with."""
        parent, child, at_end = (np.concatenate(side) for side in zip(*self.edges, strict=True))
        follows = Follows.of((parent, child, at_end), self.delay, self.session, self.turn)
        base, shared = self.base.copy(), self.shared.copy()
        if texts:
            many = len(texts)
            base[:many], shared[:many] = len(base) + texts.text, texts.shared
        whole = self.columns.prompt + self.columns.output
        return Sessions(self.columns, follows, Continued(base, shared, whole, self.session))


def _source(length: Length, name: str) -> str:
    """Columns of one file belong together."""
    return length.dataset.file if length.dataset else name


def _stream(seed: int, name: str) -> np.random.Generator:
    return streams.stream(seed, "serving", "sessions", name)
