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
ZERO: Final[Mapping[str, Mapping[Any, int]]] = {  # flag of Megatron -> stage of ZeRO by its value
    "use-distributed-optimizer": {False: 0, True: 1},
    "data-parallel-sharding-strategy": {"no_shard": 0, "optim": 1, "optim_grads": 2, "optim_grads_params": 3},
}
REPLICATE, SHARD = "data_parallel_replicate_degree", "data_parallel_shard_degree"
BATCH: Final[Mapping[str, str]] = {
    "seq-length": "sequence_length", "micro-batch-size": "micro_batch_size", "seq_len": "sequence_length",
    "local_batch_size": "micro_batch_size", "global-batch-size": "global_batch_size",
}  # fmt: skip
PIPELINE: Final[Mapping[str, str]] = {"pipeline_parallel_schedule_csv": "schedule"}
TRAINING: Final[Mapping[str, str]] = {
    "recompute-modules": "recompute", "overlap-grad-reduce": "overlap_grad_reduce",
    "overlap-param-gather": "overlap_param_gather", "moe-expert-capacity-factor": "capacity_factor",
    "moe-pad-expert-input-to-capacity": "pad_to_capacity",
}  # fmt: skip
DTYPE: Final[Mapping[str, Mapping[Any, str]]] = {"grad-reduce-in-bf16": {False: "fp32", True: "bf16"}}


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


def valued(data: Any, flags: Mapping[str, Mapping[Any, Any]], key: str, section: str) -> Any:
    """A section -> with `key` as a flag's value says it. Raises BadInput for another value, or where it is there."""
    if not isinstance(data, Mapping):
        return data
    found = dict(data)
    for flag, meant in flags.items():
        for name in {flag, flag.replace("-", "_")} & set(found):
            value, where = found.pop(name), f"{section}.{name}"
            if not isinstance(value, (str, bool)) or value not in meant:
                raise BadInput(f"{value!r} is no value of it", where=where, way_out=", ".join(_shown(meant)))
            if key in found:
                raise BadInput(f"{name} is {key}, which is there already", where=where, way_out="one of them")
            found[key] = meant[value]
    return found


def degrees(data: Any) -> Any:
    """torchtitan's degrees: replicas of shard groups (HSDP). Shards alone are FSDP, replicas alone DDP. Raises
    BadInput.
    """
    if not isinstance(data, Mapping) or not {REPLICATE, SHARD} & set(data):
        return data
    found = dict(data)
    replicas, shard = (found.pop(name, 1) for name in (REPLICATE, SHARD))
    for name, value in ((REPLICATE, replicas), (SHARD, shard)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BadInput(f"{value!r} is no number of ranks", where=f"parallel.{name}", way_out="1 or more")
    if taken := {"data_parallel_size", "data_parallel_shard_size"} & set(found):
        what = f"torchtitan's degrees say {' and '.join(sorted(taken))}, which is there already"
        raise BadInput(what, where=f"parallel.{sorted(taken)[0]}", way_out="one of them")
    found["data_parallel_size"] = replicas * shard
    if shard == 1:
        return {"zero_stage": 0, **found}
    return {"zero_stage": 3, **found, "data_parallel_shard_size": shard}


def read_parallel(data: Any) -> Any:
    """The section as any of these names have it -> with our keys. Raises BadInput."""
    return valued(degrees(named(data, PARALLEL, "parallel")), ZERO, "zero_stage", "parallel")


def _shown(meant: Mapping[Any, Any]) -> list[str]:
    return [str(value).lower() if isinstance(value, bool) else str(value) for value in meant]
