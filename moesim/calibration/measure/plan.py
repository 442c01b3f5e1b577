"""Plans: YAML files that say what to measure; expanded into cases by the operators they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from moesim import shipped, yamlfile
from moesim.errors import unknown_name
from moesim.units import ByteCount, Seconds
from moesim.yamlfile import Items, Section

FOLDER: Final = "calibration/plans"
MOST_BEFORE: Final = 1 << 18  # tokens, cached ones before them too, of a prefill: 21 GB of MLA's 128 expanded heads
MOST_CACHED: Final = 1 << 23  # tokens that a decode call attends to: 17 GB of four grouped heads
Positive = Annotated[int, Field(ge=1, le=1 << 24)]
Cached = Annotated[int, Field(ge=0, le=1 << 24)]
Share = Annotated[float, Field(gt=0, lt=1)]


class SamplingSection(Section):
    """When a case has been measured well enough."""

    warm_up: Seconds = Field(0.05, description="time of calls before the first sample")
    stable: Share = Field(0.005, description="move of the median that counts as none")
    least: Positive = Field(30, description="samples")
    most: Positive = Field(1000, description="samples")
    per_case: Seconds = Field(2.0, description="time of one case at most, once it has the least samples")
    cold: bool = Field(True, description="evict the L2 cache before each sample")


class PlanSection(Section):
    """A plan file: the product of what it lists, as far as it makes sense for each operator."""

    moesim_plan: Literal[1]
    name: str
    device: Literal["cpu", "cuda"]
    description: str = ""
    operators: Items[str]
    models: Items[str] = Field(description="shipped models or config.json files; shapes come from them")
    dtypes: Items[Literal["fp32", "bf16", "fp16", "fp8"]]
    modes: Items[Literal["eager", "graph"]] = ("eager",)
    tokens: Items[Positive] = Field(description="of one rank")
    expert_parallel: Items[Positive] = Field((1,), description="ranks that share the experts; one rank is measured")
    tensor_parallel: Items[Positive] = Field((1,), description="ranks that share heads and columns")
    routing: Items[str] = Field(("balanced",), description="balanced, trace:NAME, sampled:NAME")
    batches: Items[Positive] = (1,)
    contexts: Items[Positive] = Field((128,), description="tokens of a prompt; cached ones, with its own, of a decode")
    prefixes: Items[Cached] = Field((0,), description="tokens that are cached before a prompt's")
    sdpa: Items[Literal["flash", "cudnn", "efficient", "math"]] = Field(
        ("flash",), description="backends of scaled_dot_product_attention, each a kernel of its own"
    )
    sizes: Items[ByteCount] = Field((), description="of copies, collectives and elementwise kernels")
    sampling: SamplingSection = SamplingSection()
    sentinel_every: Positive = Field(20, description="cases between two measurements of the sentinel")
    drift: Share = Field(0.05, description="move of the sentinel that spoils the cases beside it")
    clock_drop: Share = Field(0.03, description="fall of the clock during a case that spoils it")
    seed: int = Field(0, ge=0, lt=1 << 32)


def known_plans() -> dict[str, Path]:
    """name -> file of the shipped plans."""
    return shipped.names(FOLDER, ".yaml")


def load_plan(name_or_path: str) -> PlanSection:
    """A shipped plan's name, or a file. Raises BadInput with line and key, or the known names."""
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        known = known_plans()
        if name_or_path not in known:
            raise unknown_name("plan", name_or_path, known)
        path = known[name_or_path]
    document = yamlfile.read_yaml(path)
    return document.validate(PlanSection)
