"""What collectives do to a step, from the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

TINY = ("run", "demo-tiny", "--seed", "0", "--json")
TRAIN = ("--set", "batch.phase=train", "--set", "batch.context=64", "--set", "batch.tokens_per_gpu=64")


def metrics(moesim: Moesim, *changes: str) -> dict[str, Any]:
    done = moesim(*TINY, *changes)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)["metrics"]
    return found


def test_training_tells_the_all_to_all_from_the_reduction_of_gradients(moesim: Moesim) -> None:
    """A dispatch without start-up at the same bytes moves one figure and leaves the other."""
    base = metrics(moesim, *TRAIN)
    other = metrics(moesim, *TRAIN, "--set", "comm.dispatch=hierarchical_2d")
    assert base["alltoall_s"]["value"] > 0 and base["gradient_sync_s"]["value"] > 0
    assert other["alltoall_s"]["value"] != base["alltoall_s"]["value"]
    assert other["gradient_sync_s"]["value"] == pytest.approx(base["gradient_sync_s"]["value"], rel=0.25)
    assert "gradient_sync_s" not in metrics(moesim)


def test_an_engines_own_all_reduce_shortens_a_decode_step(moesim: Moesim) -> None:
    """Tens of us of NCCL's against 5 to 10: two in each layer, nothing else moves."""
    tensor = ("--set", "parallel={tensor_parallel_size: 8, data_parallel_size: 1, expert_parallel_size: 1}",
              "--set", "costs={profile: auto, kernels: vllm}", "--set", "batch.tokens_per_gpu=4")  # fmt: skip
    base = ("run", "demo-qwen3", "--seed", "0", "--json", *tensor)
    seconds = {}
    for name in ("nccl", "vllm"):
        done = moesim(*base, "--set", f"comm.all_reduce={name}")
        assert done.code == 0, done.err
        seconds[name] = json.loads(done.out)["metrics"]["step_time_s"]["value"]
    layers = 94
    saved = (seconds["nccl"] - seconds["vllm"]) / (2 * layers)
    assert 4e-6 < saved < 25e-6
    done = moesim("run", "demo-qwen3", "--set", "comm.all_reduce=mpi")
    assert done.code == 2 and "all_reduce" in done.err


def test_an_all_reduce_that_was_not_measured_is_said_to_be_nccls(moesim: Moesim) -> None:
    layout = ("parallel={tensor_parallel_size: 2, data_parallel_size: 2, expert_parallel_size: 4}", "costs=roofline")
    done = moesim(*TINY, *(word for one in layout for word in ("--set", one)), "--set", "comm.all_reduce=vllm")
    assert done.code == 0, done.err
    assert any("all_reduce of vllm" in text and "NCCL's stands in" in text for text in json.loads(done.out)["warnings"])
