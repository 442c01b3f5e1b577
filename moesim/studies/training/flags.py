"""Flags of Megatron-LM and degrees of torchtitan, under which a training scenario takes its keys as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from moesim.errors import BadInput

PARALLEL: Final[Mapping[str, str]] = {
    "tensor-model-parallel-size": "tensor_parallel_size",
    "pipeline-model-parallel-size": "pipeline_parallel_size",
    "context-parallel-size": "context_parallel_size",
    "expert-model-parallel-size": "expert_parallel_size",
    "expert-tensor-parallel-size": "expert_tensor_parallel_size",
    "tensor_parallel_degree": "tensor_parallel_size",
    "pipeline_parallel_degree": "pipeline_parallel_size",
    "context_parallel_degree": "context_parallel_size",
    "expert_parallel_degree": "expert_parallel_size",
    "expert_tensor_parallel_degree": "expert_tensor_parallel_size",
}
BATCH: Final[Mapping[str, str]] = {
    "seq-length": "sequence_length", "micro-batch-size": "micro_batch_size", "seq_len": "sequence_length",
    "local_batch_size": "micro_batch_size",
}  # fmt: skip
TRAINING: Final[Mapping[str, str]] = {"recompute-modules": "recompute"}


def named(data: Any, flags: Mapping[str, str], section: str) -> Any:
    """A section as it was written -> with our keys. Megatron's dashes may be underscores. Raises BadInput where a key
    is there twice.
    """
    if not isinstance(data, Mapping):
        return data
    known = {**{flag.replace("-", "_"): key for flag, key in flags.items()}, **flags}
    found: dict[Any, Any] = {}
    for name, value in data.items():
        key = known.get(name, name)
        if key in found:
            raise BadInput(f"{name} is {key}, which is there already", where=f"{section}.{name}", way_out="one of them")
        found[key] = value
    return found
