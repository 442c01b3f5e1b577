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
