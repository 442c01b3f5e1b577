"""Recipes that a table of published throughput does not state, as far as public changes of the framework name them.

Megatron-Bridge's performance recipes send tokens with the flex dispatcher (DeepEP, or HybridEP of the same project);
Qwen3's on B200 used all-to-all until 26.02.01 (NVIDIA-NeMo/Megatron-Bridge pull request 2499). With FP8-MX on
Blackwell those of Qwen3 hide all-to-alls behind compute and have FP8 attention from 26.06 on (pull request 4606).
Nothing is known of recomputation; none is assumed. Which of these changes count was decided with the shipped rows in
view; no number was fitted to them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from moesim.studies.validation.rows import Row

FLEX: Final = "deepep_normal"
CONFIGURATION: Final = ("system", "model", "gpus", "precision", "gbs", "mbs", "seq", "tp", "pp", "cp", "vp", "ep",
                        "fsdp")  # fmt: skip


class Recipe(NamedTuple):
    """dispatch: all-to-all; attention: dtype of its core; overlap: all-to-alls beside compute."""

    dispatch: str
    attention: str
    overlap: bool

    @property
    def words(self) -> str:
        """As a row of a table has it."""
        return ", ".join((self.dispatch, *(["a2a hidden", "fp8 attention"] if self.overlap else [])))


def recipe_of(row: Row) -> Recipe:
    """What is assumed of a row."""
    version, qwen, system = version_of(row.get("container", "")), "qwen3" in row["model"].lower(), row["system"]
    mx = row["precision"].upper() in ("MXFP8", "FP8-MX")
    if qwen and "B200" in system and "GB" not in system and version < (26, 2, 1):
        return Recipe("nccl", "bf16", False)
    late = qwen and mx and "B" in system.upper().removeprefix("DGX-") and version >= (26, 6)
    return Recipe(FLEX, "fp8" if late else "bf16", late)


def version_of(container: str) -> tuple[int, ...]:
    """26.02.01 -> (26, 2, 1); a table without containers has the newest."""
    parts = container.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else (99,)


def configuration(row: Row) -> str:
    """What rows of several containers have in common."""
    return " ".join(row.get(name, "") for name in CONFIGURATION)
