"""How a checkpoint is quantised: what config.json says, or the hf_quant_config.json beside it (NVIDIA ModelOpt).

Both name a method and the modules that it leaves alone; ModelOpt's file also says how the KV cache is kept:
`{"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head", ...]}}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.errors import BadInput
from moesim.models.model import MXFP4, NVFP4

FILE = "hf_quant_config.json"  # ModelOpt's, beside config.json
KNOWN = {
    "": "",
    "fp8": "fp8",
    "fp8_pb_wo": "fp8",
    "mxfp4": "fp4",
    "nvfp4": "fp4",
    "w4a16_nvfp4": "fp4",
}  # method -> dtype of what it quantises
MIXED = "mixed_precision"
LEFT_ALONE = ("ignore", "exclude_modules", "modules_to_not_convert")


@dataclass(frozen=True)
class Quantisation:
    """dtype: of what is quantised, "" where nothing is; kept: names and patterns of the modules that are not; kv:
    "fp8", or "" where the checkpoint says nothing of its cache; unknown: the method, where nobody checked it. experts:
    dtype of theirs, where it is another; fp4_block: weights in fp4 that share a byte of scale.
    """

    dtype: str
    kept: tuple[str, ...]
    kv: str
    unknown: str = ""
    experts: str = ""
    fp4_block: int = NVFP4

    @classmethod
    def of(
        cls, config: Mapping[str, Any], beside: Mapping[str, Any], source: str, given: str = ""
    ) -> Quantisation:  # fmt: skip
        """`quantization_config` of config.json, else ModelOpt's file. Raises BadInput for a method not checked, unless
        the dtype of weights is `given`.
        """
        own, other = config.get("quantization_config"), beside.get("quantization")
        from_own = isinstance(own, dict) and bool(own)
        found = own if from_own else other if isinstance(other, dict) else {}
        assert isinstance(found, dict)
        name = _method(found)
        experts = KNOWN.get(_mixed(found)[0], "")
        block = MXFP4 if "mxfp4" in (name, _mixed(found)[0]) else NVFP4
        if name not in KNOWN and given:
            return cls(given, (), _cache(found), unknown=name)
        if name not in KNOWN:
            raise BadInput(
                f"quantisation {name!r} was not checked",
                where=f"{source} quantization_config" if from_own else str(Path(source).with_name(FILE)),
                way_out="precision.weights in the scenario: bf16, fp8 or fp4, what they are loaded as",
            )
        kept: list[object] = next((found[key] for key in LEFT_ALONE if isinstance(found.get(key), list)), [])
        return cls(KNOWN[name], tuple(map(str, kept)), _cache(found), experts=experts, fp4_block=block)

    def keeps(self, part: str) -> bool:
        """Some layer's `part` (self_attn, shared_experts) is left as it was trained."""
        return any(part in name for name in self.kept)

    def weight_dtype(self, shared: bool) -> str:
        """Of attention, dense FFN and shared expert: that of all of them, bf16 where a part of them was kept."""
        return self.dtype if self.dtype == "fp8" or (self.dtype and not self._kept_parts(shared)) else "bf16"

    def notes(self, shared: bool) -> tuple[str, ...]:
        """Sentences where one dtype for attention, dense FFN and shared expert is a guess."""
        if self.dtype != "fp4" or not self._kept_parts(shared):
            return ()
        guessed = [part for part in _parts(shared) if not self.keeps(part)]
        return tuple(f"weights of {part} are taken as bf16; the checkpoint has them in fp4" for part in guessed)

    def _kept_parts(self, shared: bool) -> list[str]:
        """MXFP4 is a format of experts: gpt-oss quantises nothing else."""
        return [part for part in _parts(shared) if self.keeps(part)] or ([] if self.kept else ["all"])


def _method(found: Mapping[str, Any]) -> str:
    """Of all that is not said apart: ModelOpt's mixed files name the experts' beside it, and maybe attention's."""
    algorithm = str(found.get("quant_algo") or _packed(found) or "").lower()
    if algorithm == MIXED and all(_mixed(found)):
        return _mixed(found)[1]
    return algorithm or str(found.get("quant_method") or "").lower()


def _mixed(found: Mapping[str, Any]) -> tuple[str, str]:
    """Methods of experts and of attention in a ModelOpt file of several, "" where it does not say one."""
    if str(found.get("quant_algo")).lower() != MIXED:
        return "", ""
    layers = found.get("quantized_layers")
    named = layers if isinstance(layers, dict) else {}
    experts = _alike(named, "experts") or str(found.get("moe_quant_algo") or "").lower()
    return experts, _alike(named, "attn") or str(found.get("quant_method") or "").lower()


def _alike(layers: Mapping[str, Any], part: str) -> str:
    """The one method of all modules with that in their name, "" where there is none, or several."""
    own = {str(how.get("quant_algo")).lower() for name, how in layers.items() if part in name and isinstance(how, dict)}
    return own.pop() if len(own) == 1 else ""


def _packed(found: Mapping[str, Any]) -> str:
    """The method that compressed-tensors' groups of weights amount to, "" where they are no floats of one width."""
    groups = found.get("config_groups")
    if found.get("quant_method") != "compressed-tensors" or not isinstance(groups, dict):
        return ""
    weights = [group.get("weights") if isinstance(group, dict) else None for group in groups.values()]
    kinds = {f"{one.get('type')}{one.get('num_bits')}" if isinstance(one, dict) else "" for one in weights}
    return "fp8" if kinds == {"float8"} else "mxfp4" if kinds == {"float4"} else ""


def _parts(shared: bool) -> list[str]:
    return ["self_attn", *(["shared_experts"] if shared else [])]


def _cache(found: Mapping[str, Any]) -> str:
    """ModelOpt names an algorithm, compressed-tensors gives a scheme."""
    scheme = found.get("kv_cache_scheme")
    named = str(found.get("kv_cache_quant_algo") or "").lower()
    eight = isinstance(scheme, dict) and scheme.get("num_bits") == 8 and scheme.get("type") == "float"
    return "fp8" if named == "fp8" or eight else ""


def promised(name: str) -> str:
    """The quantisation that a model's name promises, "" where it promises none."""
    found = re.search(r"nvfp4|mxfp4|fp8|int4|awq|gptq", name.lower())
    return found[0] if found else ""
