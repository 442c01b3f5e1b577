"""Settings: what an engine does with a queue. A preset is a file of values, each with its source; a scenario changes
single keys of it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from moesim import yamlfile
from moesim.errors import BadInput, pick
from moesim.serving.batcher import REGISTRY
from moesim.units import Seconds
from moesim.yamlfile import Section

FOLDER: Final = Path(__file__).parent / "presets"
LONGEST: Final = 1e3  # s


class Settings(Section):
    """All of an engine's, complete."""

    policy: str = Field(description="what a step is made of; see `moesim list 'batch policies'`")
    scheduling_policy: Literal["fcfs", "priority", "deadline"] = Field(
        description="priority: less priority's number first (vLLM), deadline: least slack to the limit of TTFT first; "
        "who is preempted is the last of them"
    )
    max_num_batched_tokens: int = Field(ge=1, le=1 << 22, description="new tokens of a step, of one scheduler")
    max_num_seqs: int = Field(ge=1, le=1 << 20, description="requests that run at a time, of one scheduler")
    block_size: int = Field(ge=1, le=1 << 14, description="tokens of a KV block")
    gpu_memory_utilization: float = Field(gt=0, le=1, description="share of the HBM that the engine takes")
    free_gpu_memory_fraction: float = Field(gt=0, le=1, description="share for KV of what is left after weights")
    num_gpu_blocks_override: int | None = Field(
        ge=1,
        le=1 << 31,
        description="KV blocks of one scheduler as an engine's log tells them (vLLM; SGLang's max_total_tokens / "
        "block_size), in place of those that memory is reckoned to hold",
    )
    reserved_output: float = Field(ge=0, le=1, description="share of an answer whose KV is held from admission on")
    prefix_cache: bool = Field(description="KV blocks of prefixes that prompts share are kept and found again")
    schedule_ahead: bool = Field(description="a step is put together while the one before it runs")
    poll_interval: int = Field(ge=1, le=10**6, description="busy: steps from one look at new requests to the next")
    balance_timeout: int = Field(
        ge=0, le=10**6, description="schedulers of a replica: steps that prompts wait for each to have one; 0: none"
    )
    balance_wait: int = Field(ge=0, le=10**6, description="then so many steps more, for further prompts")
    prefill_schedule_interval: int = Field(
        ge=1,
        le=10**6,
        description="several schedulers: while requests decode, prompts go on once in so many steps (vLLM)",
    )
    prefill_decode_interval: int = Field(
        ge=0,
        le=10**6,
        description="steps after one with prompts in which none goes on while requests decode (SGLang)",
    )
    num_speculative_tokens: int = Field(
        ge=0,
        le=64,
        description="drafts of each request that a step checks (vLLM; SGLang's draft tokens less 1); 0: none",
    )
    draft_acceptance_rate: float | None = Field(
        ge=0,
        le=1,
        description="of drafts that are right, where those before them are; has to be given where there are some",
    )
    draft_layers: float = Field(
        ge=0, le=1000, description="layers like the model's that make a draft, and its head; 0: drafts cost nothing"
    )
    host_time: Seconds = Field(le=LONGEST, description="of a step, that no kernel hides")
    eager_time_per_layer: Seconds = Field(le=LONGEST, description="host, of a layer that no CUDA graph holds")
    graph_batch: int = Field(ge=0, le=1 << 22, description="rows up to which decode steps are CUDA graphs")
    graph_tokens: int = Field(ge=0, le=1 << 22, description="tokens up to which steps with prompts are CUDA graphs")
    prompt_slowdown: float = Field(ge=1, le=100, description="what prompts add to a step, over their kernels' time")
    frontend_time: Seconds = Field(le=LONGEST, description="from the client to the scheduler")
    all_reduce: Literal["nccl", "sglang", "trtllm", "vllm"] = Field(
        description="whose all-reduce runs inside a node, where `comm.all_reduce` names none"
    )

    @model_validator(mode="after")
    def _can_run(self) -> Settings:
        pick("policy", self.policy, REGISTRY)
        each = 1 + self.num_speculative_tokens
        if self.max_num_seqs * each > self.max_num_batched_tokens:
            over, tokens = (f" / {each}", f"{each} tokens") if each > 1 else ("", "a token")
            raise ValueError(
                f"max_num_seqs {self.max_num_seqs} may not be above max_num_batched_tokens "
                f"{self.max_num_batched_tokens}{over}: every running request brings {tokens}"
            )
        self._check_drafts()
        if not REGISTRY[self.policy].chunked and self.reserved_output < 1:
            raise ValueError(
                f"policy {self.policy} cuts no prompts, so a request that lost its cache might never fit into a step "
                "again: reserved_output has to be 1.0"
            )
        return self

    def _check_drafts(self) -> None:
        if self.num_speculative_tokens and self.draft_acceptance_rate is None:
            raise ValueError(
                "num_speculative_tokens needs draft_acceptance_rate, which differs by model and text: 0 to 1"
            )
        if self.num_speculative_tokens >= self.block_size:
            drafts, size = self.num_speculative_tokens, self.block_size
            raise ValueError(f"num_speculative_tokens {drafts} have to be fewer than block_size {size}")


def _instead(key: str) -> Any:
    """A key of Settings, None: the preset's."""
    return Field(None, description=Settings.model_fields[key].description)


class SchedulerSection(Section):
    """A preset, and what is different here."""

    preset: str = Field("vllm", description="see `moesim list presets`")
    policy: str | None = _instead("policy")
    scheduling_policy: Literal["fcfs", "priority", "deadline"] | None = _instead("scheduling_policy")
    max_num_batched_tokens: int | None = _instead("max_num_batched_tokens")
    max_num_seqs: int | None = _instead("max_num_seqs")
    block_size: int | None = _instead("block_size")
    gpu_memory_utilization: float | None = _instead("gpu_memory_utilization")
    free_gpu_memory_fraction: float | None = _instead("free_gpu_memory_fraction")
    num_gpu_blocks_override: int | None = _instead("num_gpu_blocks_override")
    reserved_output: float | None = _instead("reserved_output")
    prefix_cache: bool | None = _instead("prefix_cache")
    schedule_ahead: bool | None = _instead("schedule_ahead")
    poll_interval: int | None = _instead("poll_interval")
    balance_timeout: int | None = _instead("balance_timeout")
    balance_wait: int | None = _instead("balance_wait")
    prefill_schedule_interval: int | None = _instead("prefill_schedule_interval")
    prefill_decode_interval: int | None = _instead("prefill_decode_interval")
    num_speculative_tokens: int | None = _instead("num_speculative_tokens")
    draft_acceptance_rate: float | None = _instead("draft_acceptance_rate")
    draft_layers: float | None = _instead("draft_layers")
    host_time: str | None = _instead("host_time")
    eager_time_per_layer: str | None = _instead("eager_time_per_layer")
    graph_batch: int | None = _instead("graph_batch")
    graph_tokens: int | None = _instead("graph_tokens")
    prompt_slowdown: float | None = _instead("prompt_slowdown")
    frontend_time: str | None = _instead("frontend_time")

    def settings(self) -> Settings:
        """The preset's with these in their place. Raises BadInput."""
        return engine(self.preset, **self.model_dump(exclude={"preset"}, exclude_none=True))


def engine(preset: str, **changes: Any) -> Settings:
    """A preset with changes, as in a scenario. Raises BadInput with the known presets, or the key that cannot be."""
    values = {**_values(pick("preset", preset, presets())), **changes}
    return yamlfile.validate(Settings, values, lambda keys: f"scheduler.{yamlfile.dotted(keys)}".rstrip("."))


def presets() -> dict[str, Path]:
    """name -> file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


@lru_cache(maxsize=16)
def read_preset(path: Path) -> dict[str, Any]:
    """The file: about, and value and source of each key. Raises BadInput where a key has no source."""
    data = yamlfile.read_yaml(path).data
    for key, entry in data.items():
        if key != "about" and not (isinstance(entry, dict) and set(entry) == {"value", "source"}):
            raise BadInput("needs a value and a source", where=f"{path} {key}")
    return data


def _values(path: Path) -> dict[str, Any]:
    return {key: entry["value"] for key, entry in read_preset(path).items() if key != "about"}
