"""Classes of requests: kinds that differ in how often they come, how long they are, their priority and their limits.

Classes with a `share` divide the arrivals of the scenario; those with `arrivals` of their own come beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from pydantic import Field, model_validator

from moesim import streams
from moesim.errors import BadInput
from moesim.serving.arrivals import OwnArrivals
from moesim.serving.lengths import INPUT, OUTPUT, Column, Length
from moesim.serving.requests import Ints
from moesim.units import Seconds
from moesim.yamlfile import Section

SLACK = 1e-9  # by which shares may miss 1


class SloSection(Section):
    """Limits of one request; those that meet all of them are the goodput."""

    ttft: Seconds | None = Field(None, description="time to the first token")
    tpot: Seconds | None = Field(None, description="time per output token after the first")
    e2el: Seconds | None = Field(None, description="time to the last token")

    @property
    def limits(self) -> dict[str, float]:
        """name -> seconds, of those that are given."""
        return self.model_dump(exclude_none=True)


class ClassSection(Section):
    """A kind of requests; lengths that it does not give are the scenario's, limits where it has no `slo`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$", description="stands in the names of its metrics")
    share: float | None = Field(None, gt=0, le=1, description="of the scenario's arrivals; shares add up to 1")
    arrivals: OwnArrivals | None = Field(None, description="of its own, beside the scenario's")
    number: int | None = Field(None, ge=1, le=10**7, description="requests of its own arrivals")
    priority: int = Field(0, ge=-(10**6), le=10**6, description="less is served first (vLLM), where priorities count")
    input_length: Length | None = Field(None, description="tokens of prompts")
    output_length: Length | None = Field(None, description="tokens of answers")
    slo: SloSection | None = Field(None, description="limits of its requests, all of them: none of the scenario's")

    @model_validator(mode="after")
    def _share_or_own(self) -> ClassSection:
        if (self.share is None) == (self.arrivals is None):
            raise ValueError("give share, of the scenario's arrivals, or arrivals of its own")
        if (self.arrivals is None) != (self.number is None):
            raise ValueError("number belongs to arrivals of its own: both, or none")
        if self.arrivals and not (self.input_length and self.output_length):
            raise ValueError("arrivals of its own need input_length and output_length of its own")
        return self

    def lengths(self, seed: int, prompt: Ints, output: Ints, part: str = "") -> tuple[Ints, Ints]:
        """Prompts and outputs int64[n] of its requests: its own where it has some. part: which draw it is."""
        sides = (self.input_length, INPUT, prompt), (self.output_length, OUTPUT, output)
        first, second = (self._own(seed, *side, part) for side in sides)
        return first, second

    def _own(self, seed: int, length: Length | None, column: Column, given: Ints, part: str) -> Ints:
        """Columns of one file belong together."""
        if length is None:
            return given
        source = length.dataset.file if length.dataset else column
        return length.draw(len(given), self._stream(seed, source + part), column)

    def beside(self, seed: int, kind: int) -> Columns:
        """Requests of its own arrivals."""
        assert self.arrivals is not None and self.number is not None
        none = np.zeros(self.number, dtype=np.int64)
        arrival = self.arrivals.drawn(self.number, self._stream(seed, "arrivals"))
        return Columns(arrival, *self.lengths(seed, none, none), none + kind)

    def _stream(self, seed: int, name: str) -> np.random.Generator:
        return streams.stream(seed, "serving", "classes", self.name, name)


class Columns(NamedTuple):
    """int64[n] each, as of Requests; kind: of which class."""

    arrival: Ints
    prompt: Ints
    output: Ints
    kind: Ints


@dataclass(frozen=True)
class Classes:
    """kind int64[n]: the class of each request; of each class its name, priority, and limits in seconds by "ttft",
    "tpot", "e2el", None for the scenario's.
    """

    kind: Ints
    names: tuple[str, ...]
    priorities: tuple[int, ...]
    limits: tuple[Mapping[str, float] | None, ...]

    @cached_property
    def priority(self) -> Ints:
        """int64[n]: of each request, less is first."""
        return np.array(self.priorities, dtype=np.int64)[self.kind]


def check_classes(sections: Sequence[ClassSection], alone: str) -> None:
    """alone: why nothing can come beside the scenario's arrivals, "" if it can. Raises BadInput."""
    names = [one.name for one in sections]
    for number, one in enumerate(sections):
        if one.name in names[:number]:
            where = f"requests.classes[{number}].name"
            raise BadInput(f"{one.name!r} is there twice", where=where, way_out="another name")
        if one.arrivals and alone:
            where = f"requests.classes[{number}].arrivals"
            raise BadInput(f"nothing comes beside {alone}", where=where, way_out="share")
    total = sum(one.share or 0.0 for one in sections)
    if sections and abs(total - 1) > SLACK:
        raise BadInput(f"the shares add up to {total:g}", where="requests.classes", way_out="shares that add up to 1")


def divided(sections: Sequence[ClassSection], base: Columns, seed: int) -> Columns:
    """Requests of the scenario's arrivals fall to classes by their shares; those of others come beside them."""
    share = np.cumsum([one.share or 0.0 for one in sections])
    drawn = streams.stream(seed, "serving", "classes").random(len(base.arrival))
    kind = np.searchsorted(share / share[-1], drawn, side="right").clip(max=len(sections) - 1)
    prompt, output = with_lengths(sections, seed, base.prompt, base.output, kind)
    own = [one.beside(seed, number) for number, one in enumerate(sections) if not one.share]
    joined = [np.concatenate(side) for side in zip(Columns(base.arrival, prompt, output, kind), *own, strict=True)]
    order = np.argsort(joined[0], kind="stable")
    return Columns(*(column[order] for column in joined))


def with_lengths(
    sections: Sequence[ClassSection], seed: int, prompt: Ints, output: Ints, kind: Ints, part: str = ""
) -> tuple[Ints, Ints]:  # fmt: skip
    """Prompts and outputs int64[n] of requests of these kinds, those of their class where it has some."""
    prompt, output = prompt.copy(), output.copy()
    for number, one in enumerate(sections):
        mine = kind == number
        prompt[mine], output[mine] = one.lengths(seed, prompt[mine], output[mine], part)
    return prompt, output


def classes_of(sections: Sequence[ClassSection], kind: Ints) -> Classes:
    """kind int64[n]."""
    return Classes(
        kind, tuple(one.name for one in sections), tuple(one.priority for one in sections),
        tuple(one.slo.limits if one.slo else None for one in sections),
    )  # fmt: skip
