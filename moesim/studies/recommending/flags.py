"""What starts a deployment on an engine: the names that vLLM, SGLang, TensorRT-LLM and Megatron have for its keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from moesim.models import load_model
from moesim.serving import SchedulerSection, Settings
from moesim.studies.load import TRAIN
from moesim.studies.training.flags import BATCH, named
from moesim.studies.training.scenario import TrainingSection

VLLM: Final = {"allgather_reducescatter": "allgather_reducescatter", "deepep_normal": "deepep_high_throughput",
               "deepep_low_latency": "deepep_low_latency"}  # fmt: skip
SGLANG: Final = {"deepep_normal": "normal", "deepep_low_latency": "low_latency"}
Keys = Mapping[str, Any]


def launch(scenario: Keys) -> dict[str, str]:
    """engine -> a command line, of each pool where there are pools; what an engine has no name for is said in it."""
    if scenario["mode"] == TRAIN:
        return {"Megatron": megatron(scenario)}
    systems = {"": scenario}
    if scenario.get("pools"):
        systems = {f" {role}": {**scenario, **pool} for role, pool in scenario["pools"].items() if role != "transfer"}
    return {
        f"{name}{role}": engine(one, SchedulerSection(**one.get("scheduler", {})).settings())
        for name, engine in (("vLLM", vllm), ("SGLang", sglang), ("TensorRT-LLM", tensorrt_llm))
        for role, one in systems.items()
    }


def vllm(one: Keys, settings: Settings) -> str:
    """Data parallel ranks are of attention; experts are over all ranks where they are parallel."""
    tensor, data, expert = degrees(one)
    words = [
        f"vllm serve {_model(one)} --tensor-parallel-size {tensor}",
        f"--data-parallel-size {data}" if data > 1 else "",
        "--enable-expert-parallel" if expert > 1 else "",
        f"--all2all-backend {VLLM[_dispatch(one)]}" if expert > 1 and data > 1 and _dispatch(one) in VLLM else "",
        f"--max-num-seqs {settings.max_num_seqs} --max-num-batched-tokens {settings.max_num_batched_tokens}",
        f"--gpu-memory-utilization {settings.gpu_memory_utilization:g} --block-size {settings.block_size}",
        f"--num-gpu-blocks-override {blocks}" if (blocks := settings.num_gpu_blocks_override) else "",
    ]
    return _joined(one, words)


def sglang(one: Keys, settings: Settings) -> str:
    """tp-size counts all ranks, and attention's data parallel groups are parts of them; requests and tokens are of all
    groups together, which SGLang divides by dp-size.
    """
    tensor, data, expert = degrees(one)
    deepep = SGLANG.get(_dispatch(one)) if expert > 1 and data > 1 else None
    words = [
        f"python -m sglang.launch_server --model-path {_model(one)} --tp-size {tensor * data}",
        f"--dp-size {data} --enable-dp-attention" if data > 1 else "",
        f"--ep-size {expert}" if expert > 1 else "",
        f"--moe-a2a-backend deepep --deepep-mode {deepep}" if deepep else "",
        f"--max-running-requests {settings.max_num_seqs * data}",
        f"--chunked-prefill-size {settings.max_num_batched_tokens * data}",
        f"--mem-fraction-static {settings.gpu_memory_utilization:g}",
        f"--max-total-tokens {blocks * settings.block_size}" if (blocks := settings.num_gpu_blocks_override) else "",
    ]
    return _joined(one, words)


def tensorrt_llm(one: Keys, settings: Settings) -> str:
    """tp_size counts all ranks; attention data parallel is a key of the options file. Its memory fraction is of what
    is free after loading: a share of the whole HBM, as others have it, is not the same and is not printed.
    """
    tensor, data, expert = degrees(one)
    free, blocks = settings.free_gpu_memory_fraction, settings.num_gpu_blocks_override
    words = [
        f"trtllm-serve {_model(one)} --tp_size {tensor * data}",
        f"--ep_size {expert}" if expert > 1 else "",
        f"--max_batch_size {settings.max_num_seqs} --max_num_tokens {settings.max_num_batched_tokens}",
        f"--kv_cache_free_gpu_memory_fraction {settings.free_gpu_memory_fraction:g}" if free < 1 else "",
        f"(kv_cache_config.max_tokens: {blocks * settings.block_size} in an options file)" if blocks else "",
    ]
    if data == 1:
        return _joined(one, words)
    if tensor > 1:
        return f"no attention data parallel over groups of {tensor} ranks: each rank is one there"
    return _joined(one, [*words, "--extra_llm_api_options options.yaml (enable_attention_dp: true)"])


FSDP: Final = (  # what Megatron-FSDP is refused without
    "--use-megatron-fsdp --use-distributed-optimizer --no-gradient-accumulation-fusion --ckpt-format fsdp_dtensor "
    "--data-parallel-sharding-strategy"
)
SHARDED: Final[tuple[list[str], ...]] = (  # Megatron's flags by stage of ZeRO
    [], ["--use-distributed-optimizer"], [f"{FSDP} optim_grads"], [f"{FSDP} optim_grads_params"],
)  # fmt: skip
DISPATCHERS: Final = {"nccl": "alltoall", "deepep_normal": "flex --moe-enable-deepep"}  # the default is allgather
DTYPES: Final = {"bf16": "--bf16", "fp8": "--bf16 --fp8-format hybrid"}  # the default is fp32


OPTIMIZER: Final = {  # Megatron's words; muon that shards whole matrices layer by layer has a name of its own
    "momentum": "--optimizer sgd --sgd-momentum 0.9", "sgd": "--optimizer sgd --sgd-momentum 0",
    "muon": "--optimizer dist_muon", "adafactor": "(no flag for adafactor)",
}  # fmt: skip


def megatron(scenario: Keys) -> str:
    """Degrees, batch, dtype and all-to-all of a training step, and what its section `training` says."""
    one, batch = scenario["parallel"], named(scenario["batch"], BATCH, "batch")
    micro, data = batch.get("micro_batch_size", 1), one.get("data_parallel_size", 1)
    model = load_model(scenario["model"])
    names = {"tensor": "tensor_parallel_size", "pipeline": "pipeline_parallel_size"}
    names |= {"expert": "expert_parallel_size"} if model.routed else {}
    words = [f"--{short}-model-parallel-size {one.get(key, 1)}" for short, key in names.items()]
    words += ["--sequence-parallel"] if one.get("tensor_parallel_size", 1) > 1 else []
    words += [f"--context-parallel-size {context}"] if (context := one.get("context_parallel_size", 1)) > 1 else []
    if model.routed:
        words.append(f"--expert-tensor-parallel-size {one.get('expert_tensor_parallel_size') or 1}")
    sequences = batch.get("global_batch_size") or data * micro * batch.get("micro_batches", 1)
    words.append(f"--micro-batch-size {micro} --global-batch-size {sequences} --seq-length {batch['sequence_length']}")
    dtype = (scenario.get("precision") or {}).get("weights") or "bf16"
    words.append(DTYPES.get(dtype, f"(no flag for GEMMs in {dtype})"))
    words += [_dispatcher(_dispatch(scenario))] if model.routed else []
    words += ["--overlap-moe-expert-parallel-comm"] if scenario["pipeline"].get("hide_alltoall") else []
    training = TrainingSection.model_validate(scenario.get("training", {}))
    stage = one.get("zero_stage", 1)
    words += [] if training.optimizer == "muon" and stage < 2 else SHARDED[stage]
    copies = data // (one.get("data_parallel_shard_size") or data)
    words += [f"--num-distributed-optimizer-instances {copies}"] if copies > 1 else []
    words += _training(training)
    order, chunks = scenario["pipeline"]["schedule"], one.get("virtual_pipeline_size", 1)
    if chunks > 1:
        each = model.num_layers // (one["pipeline_parallel_size"] * chunks)
        words.append(f"--num-layers-per-virtual-pipeline-stage {each}")
    if order not in ("1f1b", "interleaved"):
        words.append(f"(no flag for the order {order})")
    return " ".join(words)


def _dispatcher(dispatch: str) -> str:
    """Megatron's word for an all-to-all."""
    if dispatch not in DISPATCHERS:
        return f"(no flag for the all-to-all {dispatch})"
    return f"--moe-token-dispatcher-type {DISPATCHERS[dispatch]}"


def _training(training: TrainingSection) -> list[str]:
    """What is not Megatron's default."""
    modules, factor = " ".join(training.recompute), training.capacity_factor
    alone = training.overlap_param_gather and not training.overlap_grad_reduce
    said = {
        OPTIMIZER.get(training.optimizer, ""): True,
        f"--recompute-granularity selective --recompute-modules {modules}": bool(modules),
        "--overlap-grad-reduce": training.overlap_grad_reduce,
        "--overlap-param-gather": training.overlap_param_gather,
        "(not without --overlap-grad-reduce, which was not played)": alone,
        "(no flag for master: false)": not training.master,
        "--grad-reduce-in-bf16": training.gradients == "bf16",
        f"--moe-expert-capacity-factor {factor:g}" if factor else "": True,
        "--moe-pad-expert-input-to-capacity": training.pad_to_capacity,
    }
    return [words for words, holds in said.items() if words and holds]


def degrees(one: Keys) -> tuple[int, int, int]:
    """Tensor, data and expert parallel."""
    sizes = one["parallel"]
    tensor, data, expert = (int(sizes.get(f"{name}_parallel_size", 1)) for name in ("tensor", "data", "expert"))
    return tensor, data, expert


def _joined(one: Keys, words: list[str]) -> str:
    replicas = one.get("replicas", 1)
    line = " ".join(word for word in words if word)
    return f"{line}   ({replicas} of them)" if replicas > 1 else line


def _dispatch(one: Keys) -> str:
    return str(one.get("comm", {}).get("dispatch", "nccl"))


def _model(one: Keys) -> str:
    model = one["model"]
    return model if isinstance(model, str) else str(model.get("name", "MODEL"))
