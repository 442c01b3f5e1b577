"""What a measured row is of: the engine, the model and how it is spread, and what its campaign set at launch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from moesim.errors import BadInput
from moesim.hardware import load_cluster
from moesim.models import load_model
from moesim.routing import Sampled
from moesim.serving import Settings, engine
from moesim.serving.tabled import Tabled
from moesim.step.pace import Pace
from moesim.studies.build import draft
from moesim.studies.load import Loaded, load_data
from moesim.studies.validation.checkpoints import shipped_model
from moesim.studies.validation.rows import Row, whole
from moesim.studies.validation.systems import topology_of

MOST: Final = 1e9  # tokens, requests, ranks: beyond it a cell is no number of any
TYPICAL: Final = 32  # rows of the step that a layout is drafted with
BLACKWELL: Final = re.compile("b200|b300", re.IGNORECASE)  # of systems; GB200 and GB300 too
DTYPES: Final = {
    "": "bf16", "bf16": "bf16", "bfloat16": "bf16", "float16": "bf16", "fp8": "fp8", "fp8_static": "fp8",
    "fp8_block": "fp8", "nvfp4": "fp4", "w4a16_mxfp4": "fp4", "w4a8_mxfp4_mxfp8": "fp4",
}  # fmt: skip
# Of DeepSeek-V3's measured loads the most skewed, for all models: assumed, as the campaigns' prompts are consecutive
# token ids, of one kind. Chosen on these rows: with decode_in1000out1000 TPOT is 10.1 % off (calibration/SERVING.md).
ROUTING: Final = "prefill_in4096"
MXFP4: Final = "gpt-oss"  # checkpoints whose rows do not say that their experts are in fp4


@dataclass(frozen=True)
class Kind:
    """What rows share: the engine, the model and how it is spread."""

    backend: str
    model: str
    system: str
    gemm: str
    moe: str
    tensor: int
    data: int
    expert_tensor: int
    expert: int

    @classmethod
    def of(cls, row: Row) -> Kind:
        """Raises BadInput."""
        if row.get("mode", "agg") not in ("", "agg"):
            raise BadInput(f"mode {row['mode']!r}: two pools, of which a row does not say the link between them")
        if row.get("pp_size") and whole(row, "pp_size", MOST) > 1:
            raise BadInput(f"pp_size {row['pp_size']}: serving has no pipeline stages")
        tensor, data, width, expert = (
            whole(row, name, MOST) for name in ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
        )
        gemm, moe = row["gemm_quant_mode"], row["moe_quant_mode"]
        return cls(row["backend"], row["model_path"], row["system"], gemm, moe, tensor, data, width, expert)

    @property
    def cache(self) -> str:
        """Dtype of the KV cache: fp8, but vLLM's where no script asks for it (before Blackwell: assumed but for H100)
        and Qwen3.5's, which stay bf16.
        """
        plain = (self.backend == "vllm" and not BLACKWELL.search(self.system)) or "Qwen3.5" in self.model
        return "bf16" if plain else "fp8"

    @property
    def parallelism(self) -> str:
        """In words."""
        experts = f"EP{self.expert}" if self.expert > 1 else f"moe TP{self.expert_tensor}"
        attention = f"attention DP{self.data}" if self.data > 1 else f"TP{self.tensor}"
        return f"{attention}, {experts}"


@lru_cache(maxsize=256)
def clock_of(kind: Kind) -> Tabled:
    """Of a plan with a skewed routing. Raises MoesimError where no plan is answered by tables."""
    loaded = _scenario(kind)
    plan = draft(loaded, 0).plan
    routing = _routing(str(loaded.scenario.model)) if plan.model.num_experts else plan.routing
    skewed = replace(plan, routing=routing, host_seconds=0.0)
    return Tabled(skewed, Pace(skewed))


def _scenario(kind: Kind) -> Loaded:
    """Raises BadInput."""
    topology, world = topology_of(kind.system), kind.tensor * kind.data
    model = shipped_model(kind.model)
    dtypes = {name: _dtype(name) for name in (kind.gemm, kind.moe)}
    scenario: dict[str, Any] = {
        "moesim": 1, "name": "row", "model": model,
        "cluster": {"topology": topology, "nodes": -(-world // load_cluster(topology, nodes=1).gpus_per_node)},
        "parallel": {"tensor_parallel_size": kind.tensor, "data_parallel_size": kind.data},
        "comm": {"all_reduce": engine(kind.backend).all_reduce},
        "precision": {"weights": dtypes[kind.gemm], "kv_cache": kind.cache},
        "costs": {"profile": "auto", "kernels": kind.backend},
        "batch": {"phase": "decode", "tokens_per_gpu": max(TYPICAL // world, 1), "context": 1024},
    }  # fmt: skip
    if load_model(model).num_experts:
        weights, experts = _apart(kind, dtypes[kind.gemm], dtypes[kind.moe])
        scenario["parallel"] |= {"expert_parallel_size": kind.expert, "expert_tensor_parallel_size": kind.expert_tensor}
        scenario["comm"]["dispatch"] = _dispatch(kind)
        scenario["precision"] |= {"weights": weights, "experts": experts}
        scenario["routing"] = {"balanced": True}
    return load_data(scenario, "row")


def _dtype(name: str) -> str:
    """Raises BadInput."""
    if name not in DTYPES:
        raise BadInput(f"quantisation {name!r} is not known")
    return DTYPES[name]


def _apart(kind: Kind, gemms: str, experts: str) -> tuple[str, str]:
    """Of weights, and of the experts. Checkpoints of mixtures of experts in fp4 leave attention as it was trained (each
    NVFP4 config that is shipped, NVIDIA/Model-Optimizer issue 150 on DeepSeek-R1-FP4, sgl-project/sglang pull request
    18937 on Qwen3.5), where a row names one format for all GEMMs.
    """
    experts = "fp4" if MXFP4 in kind.model else experts
    return "bf16" if experts == "fp4" else gemms, experts


def _dispatch(kind: Kind) -> str:
    """Under attention data parallel tokens are gathered and sums scattered, as the campaigns' engines do."""
    if kind.data > 1:
        return "allgather_reducescatter"
    return "replicated" if kind.expert > 1 else "nccl"


@lru_cache(maxsize=16)
def _routing(model: str) -> Sampled:
    """The skew of a model's routing, drawn once: it takes seconds."""
    return Sampled(ROUTING, load_model(model), 0)


def settings_of(kind: Kind, isl: int, clients: int) -> Settings:
    """The preset, and what the campaigns set at launch."""
    launch = CAMPAIGNS.get(kind.backend)
    changes = launch(kind, isl, clients) if launch else {}
    seats = min(changes.get("max_num_seqs", 512), changes.get("max_num_batched_tokens", 8192))
    return engine(kind.backend, **{**changes, "max_num_seqs": max(seats, 1)})


def _vllm(kind: Kind, isl: int, clients: int) -> dict[str, Any]:
    """H100 scripts set max_num_seqs to the concurrency, B200's do not; others as those of their age: assumed."""
    return {"max_num_batched_tokens": 8192, "max_num_seqs": 512 if BLACKWELL.search(kind.system) else clients}


def _sglang(kind: Kind, isl: int, clients: int) -> dict[str, Any]:
    """chunked_prefill_size, max_running_requests, mem_fraction_static and scheduler_recv_interval of the scripts."""
    polls = {"poll_interval": 30 if clients >= 16 else 10}
    if "GLM" in kind.model:
        return {"max_num_batched_tokens": 131072 if kind.moe == "nvfp4" else 32768, "max_num_seqs": clients}
    if "DeepSeek" not in kind.model:
        return {"max_num_batched_tokens": 32768, "max_num_seqs": 128, **polls}
    if kind.moe == "nvfp4":
        return {"max_num_batched_tokens": 16384, "max_num_seqs": 256, **polls}
    if kind.tensor == 8:
        return {"max_num_batched_tokens": 32768, "max_num_seqs": 128, **polls}
    return {"max_num_batched_tokens": 8192, "max_num_seqs": 32, "gpu_memory_utilization": 0.95, **polls}


def _trtllm(kind: Kind, isl: int, clients: int) -> dict[str, Any]:
    """max_num_tokens: 20000 for gpt-oss; R1: concurrency + input + 64, rounded up to 64, at least 8192; timeout_iters
    60, batching_wait_iters 0.
    """
    if "gpt-oss" in kind.model:
        return {"max_num_batched_tokens": 20000, "max_num_seqs": 512}
    if "DeepSeek" not in kind.model:
        return {"max_num_batched_tokens": 8192, "max_num_seqs": 512}
    budget = max(-(-(clients + isl + 64) // 64) * 64, 8192)
    return {"max_num_batched_tokens": budget, "max_num_seqs": 512, "balance_timeout": 60, "balance_wait": 0}


CAMPAIGNS: Final[Mapping[str, Callable[[Kind, int, int], dict[str, Any]]]] = {
    "vllm": _vllm, "sglang": _sglang, "trtllm": _trtllm,
}  # fmt: skip
