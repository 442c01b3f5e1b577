"""How long prompts and answers are: a number, a range, a log-normal, or rows drawn from a data set.

A length is a section with one key; `draw(n, rng)` gives int64[n] tokens, 1 or more.
"""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from moesim.serving.readers import Table, read_requests
from moesim.serving.requests import MOST_TOKENS, Ints
from moesim.yamlfile import Section

Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
Column = Literal["input", "output"]
INPUT: Final[Column] = "input"
OUTPUT: Final[Column] = "output"


class Uniform(Section):
    """Whole numbers, each as likely, both ends among them: vLLM's random range ratio r is low (1 - r) L."""

    low: Tokens = Field(description="least tokens")
    high: Tokens = Field(description="most tokens")

    @model_validator(mode="after")
    def _in_order(self) -> Uniform:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    def draw(self, n: int, rng: np.random.Generator) -> Ints:
        """int64[n]."""
        return rng.integers(self.low, self.high, n, endpoint=True)


class LogNormal(Section):
    """Of this mean and coefficient of variation, rounded to whole tokens."""

    mean: float = Field(ge=1, le=MOST_TOKENS, description="tokens")
    cv: float = Field(ge=0, le=10, description="standard deviation over mean")

    def draw(self, n: int, rng: np.random.Generator) -> Ints:
        """int64[n]; the tail ends at the longest request there is."""
        sigma2 = math.log1p(self.cv**2)
        values = rng.lognormal(math.log(self.mean) - sigma2 / 2, math.sqrt(sigma2), n)
        return np.clip(np.rint(values), 1, MOST_TOKENS).astype(np.int64)


class Dataset(Section):
    """Rows of a file, drawn with replacement; input and output that name one file take the same rows of it."""

    file: str = Field(description="shipped requests (see `moesim list requests`) or a file")
    format: str | None = Field(None, description="reader; default: by the file's columns")

    def table(self) -> Table:
        """The file. Raises BadInput."""
        return read_requests(self.file, self.format)

    def draw(self, n: int, rng: np.random.Generator, column: Column) -> Ints:
        """int64[n] of a column."""
        table = self.table()
        rows = table.prompt if column == "input" else table.output
        return rows[rng.integers(0, len(rows), n)]


class Length(Section):
    """Tokens of a request: `fixed`, `uniform`, `lognormal` or `dataset`; a bare number is `fixed`."""

    fixed: Tokens | None = Field(None, description="all alike")
    uniform: Uniform | None = None
    lognormal: LogNormal | None = None
    dataset: Dataset | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, given: object) -> object:
        return {"fixed": given} if type(given) is int else given

    @model_validator(mode="after")
    def _one(self) -> Length:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of fixed, uniform, lognormal, dataset (given: {', '.join(given) or 'none'})")
        return self

    def draw(self, n: int, rng: np.random.Generator, column: Column) -> Ints:
        """int64[n]. Raises BadInput where a file cannot be read."""
        if self.fixed is not None:
            return np.full(n, self.fixed, dtype=np.int64)
        if self.dataset is not None:
            return self.dataset.draw(n, rng, column)
        one = self.uniform or self.lognormal
        assert one is not None
        return one.draw(n, rng)
