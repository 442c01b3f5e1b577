"""A Hugging Face config.json read with care: each quantity is asked for by name, and a missing one is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from moesim import foreign
from moesim.errors import BadInput
from moesim.models.quantisation import FILE as QUANTISATION_FILE
from moesim.models.quantisation import Quantisation, promised

MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class Config:
    """The mapping of a config.json (or of its `text_config`), the file it came from, and the quantisation file beside
    it. given: the dtype that its user takes the weights as, whatever it says.
    """

    data: Mapping[str, Any]
    source: str
    beside: Mapping[str, Any] = field(default_factory=dict)
    given: str = ""

    def integer(self, *names: str, default: int | None = None) -> int:
        """The first of `names` that is present and not null, as a positive integer (0 allowed)."""
        for name in names:
            value = self.data.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**9:
                raise BadInput(f"{value!r} is no count", where=f"{self.source} {name}")
            return value
        if default is None:
            raise BadInput(f"has no {' or '.join(names)}", where=self.source)
        return default

    def positive(self, name: str) -> int:
        """A count of one or more. Raises BadInput."""
        found = self.integer(name)
        if not found:
            raise BadInput("is 0", where=f"{self.source} {name}")
        return found

    def integers(self, name: str) -> tuple[int, ...]:
        """A list of counts. Raises BadInput where it is none."""
        values = self.data.get(name)
        if not isinstance(values, list) or any(isinstance(one, bool) or not isinstance(one, int) for one in values):
            raise BadInput(f"{str(values)[:40]} is no list of counts", where=f"{self.source} {name}")
        return tuple(values)

    def section(self, name: str) -> Config:
        """A mapping inside. Raises BadInput where there is none."""
        inner = self.data.get(name)
        if not isinstance(inner, dict):
            raise BadInput(f"has no {name}", where=self.source)
        return Config(inner, f"{self.source} {name}", self.beside)

    def text(self) -> Config:
        """The language part of a multimodal wrapper."""
        inner = self.data.get("text_config")
        if not isinstance(inner, dict):
            return self
        outer = {key: self.data[key] for key in ("quantization_config",) if key in self.data}
        return Config({**outer, **inner}, f"{self.source} text_config", self.beside, self.given)

    @property
    def name(self) -> str:
        """Of the model: the file's, or its folder's where the file is only called config.json."""
        path = Path(self.source.split(" ")[0])
        named = path.parent.resolve().name if path.name == "config.json" else path.name.removesuffix("_config.json")
        return named.replace("--", "/")

    @property
    def weight_dtype(self) -> str:
        """Of the dense weights: one for attention, dense FFN and shared expert."""
        return self._quantised.weight_dtype(self._shared)

    @property
    def expert_dtype(self) -> str:
        """Of the experts."""
        return self._quantised.experts or self._quantised.dtype or "bf16"

    @property
    def fp4_block(self) -> int:
        """Weights in fp4 that share a byte of scale."""
        return self._quantised.fp4_block

    @property
    def kv_dtype(self) -> str:
        """Of the KV cache that the checkpoint was calibrated for."""
        return self._quantised.kv or "bf16"

    @property
    def dtype_notes(self) -> tuple[str, ...]:
        """Sentences where the weights' types are a guess: promised by the name only, kept in more than bf16, or fp4
        beyond the experts.
        """
        if self._quantised.unknown:
            return (
                f"quantisation {self._quantised.unknown!r} is not known: weights are taken as {self.given}, as given",
            )
        found = promised(self.name)
        if found and not self._quantised.dtype:
            missing = f"quantization_config and {QUANTISATION_FILE} are missing"
            return (f"the name says {found} but {missing}: weights are taken as bf16",)
        kept = str(self.data.get("dtype") or self.data.get("torch_dtype") or "")
        if kept == "float32" and not self._quantised.dtype:
            return ("the checkpoint keeps its weights in float32: taken as bf16, as engines load them",)
        return self._quantised.notes(self._shared)

    @cached_property
    def _quantised(self) -> Quantisation:
        return Quantisation.of(self.data, self.beside, self.source, self.given)

    @property
    def _shared(self) -> bool:
        return self.integer("n_shared_experts", "num_shared_experts", default=0) > 0


def read_config(path: Path) -> Config:
    """A config.json of at most 16 MiB, and the quantisation file beside it, if there is one. Raises BadInput."""
    beside = path.with_name(path.name.replace("config.json", QUANTISATION_FILE))
    found = _read(beside) if beside != path and beside.is_file() else {}
    return Config(_read(path), str(path), found)


def _read(path: Path) -> dict[str, Any]:
    with foreign.reading(path, "UTF-8 text"):
        text = foreign.read_bytes(path, MAX_BYTES).decode("utf-8-sig")
    try:
        data = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON: {error}", where=path) from None
    if not isinstance(data, dict):
        raise BadInput("the top level is no object", where=path)
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without a key that stands twice: Python's reader would keep the last one silently."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice")
        found[key] = value
    return found
