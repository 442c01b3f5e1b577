"""Identities of the catalogue that two commands show together: what a router decided, and the bytes of its step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from moesim.cli.gallery import _command

BASE = str(Path(__file__).parents[2] / "workloads" / "gallery" / "_base.yaml")
GPUS, EXPERTS_EACH = 8, 8
ONE_NODE = [
    "--set", "cluster.nodes=1", "--set", f"parallel={{data_parallel_size: {GPUS}, expert_parallel_size: {GPUS}}}",
    "--set", "comm.dispatch=nvlink_domain",
]  # fmt: skip


def copies(path: Path) -> int:
    """(token, other GPU that holds some of its experts) of a recorded decision, one by one."""
    table = pq.read_table(path)
    source = table["source_rank"].to_numpy()
    chosen = [np.array(table[name].to_pylist()) // EXPERTS_EACH for name in table.column_names if "expert." in name]
    return sum(_elsewhere(row, own) for layer in chosen for row, own in zip(layer, source, strict=True))


def _elsewhere(gpus: npt.NDArray[np.int64], own: int) -> int:
    return len(set(gpus.tolist()) - {own})


@pytest.mark.parametrize("router", ["topk_softmax", "sam"])
def test_bytes_are_a_row_for_every_gpu_that_a_token_needs(router: str, tmp_path: Path) -> None:
    """RC37: SAM sends 1 copy where top-k sends as many as its experts have GPUs."""
    given = [BASE, *ONE_NODE, "--set", f"routing={{router: {{name: {router}, k: 4}}}}"]
    _command(["trace", "route", *given, "-o", str(tmp_path / "t.parquet")])
    moved = _command(["run", *given, "--json"])["metrics"]["nvlink_bytes"]["value"]
    counted = copies(tmp_path / "t.parquet")
    assert moved == counted * 2048 * (2 + 2), "a bf16 row there, and one back"
    tokens = 4 * GPUS * 1024
    assert (counted <= tokens) == (router == "sam")
