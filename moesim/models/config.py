"""A Hugging Face config.json read with care: each quantity is asked for by name, and a missing one is named."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim import foreign
from moesim.errors import BadInput

MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Config:
    """The mapping of a config.json (or of its `text_config`) and the file it came from."""

    data: Mapping[str, Any]
    source: str

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

    def text(self) -> Config:
        """The language part of a multimodal wrapper."""
        inner = self.data.get("text_config")
        if not isinstance(inner, dict):
            return self
        outer = {key: self.data[key] for key in ("quantization_config",) if key in self.data}
        return Config({**outer, **inner}, f"{self.source} text_config")

    @property
    def weight_dtype(self) -> str:
        """Of the dense weights: "fp8" in fp8 checkpoints; fp4 checkpoints keep the dense weights in bf16."""
        return "fp8" if self._method() == "fp8" else "bf16"

    @property
    def expert_dtype(self) -> str:
        """Of the experts."""
        return "fp4" if self._method() in {"mxfp4", "nvfp4"} else self.weight_dtype

    @property
    def dtype_notes(self) -> tuple[str, ...]:
        """Sentences where the weights' types are a guess: promised by the name only, or fp4 beyond the experts."""
        promised = re.search(r"nvfp4|mxfp4|fp8|int4|awq|gptq", Path(self.source.split(" ")[0]).name.lower())
        if promised and not self._method():
            return (f"the name says {promised[0]} but quantization_config is missing: weights are taken as bf16",)
        if self.expert_dtype != "fp4":
            return ()
        kept = self._quantised().get("ignore") or self._quantised().get("modules_to_not_convert") or []
        parts = ["self_attn", *(["shared_experts"] if self.integer("n_shared_experts", default=0) else [])]
        guessed = [part for part in parts if not any(part in str(name) for name in kept)]
        return tuple(f"weights of {part} are taken as bf16; the checkpoint has them in fp4" for part in guessed)

    def _method(self) -> str:
        """The quantisation by name. Raises BadInput for one whose sizes were not checked."""
        quantised = self._quantised()
        name = str(quantised.get("quant_algo") or quantised.get("quant_method") or "").lower()
        if name not in {"", "fp8", "mxfp4", "nvfp4"}:
            raise BadInput(
                f"quantisation {name!r} was not checked",
                where=f"{self.source} quantization_config",
                way_out="remove it and set precision.weights and precision.experts in the scenario",
            )
        return name

    def _quantised(self) -> Mapping[str, Any]:
        found = self.data.get("quantization_config")
        return found if isinstance(found, dict) else {}


def read_config(path: Path) -> Config:
    """A config.json of at most 1 MiB. Raises BadInput."""
    with foreign.reading(path, "UTF-8 text"):
        text = foreign.read_bytes(path, MAX_BYTES).decode("utf-8-sig")
    try:
        data = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON: {error}", where=path) from None
    if not isinstance(data, dict):
        raise BadInput("the top level is no object", where=path)
    return Config(data, str(path))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without a key that stands twice: Python's reader would keep the last one silently."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice")
        found[key] = value
    return found
