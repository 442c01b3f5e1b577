"""docs/vllm_replay.py, asked as vLLM asks a strategy: layer after layer, step after step."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

PLUGIN = Path(__file__).resolve().parents[2] / "docs" / "vllm_replay.py"
OLD = "vllm.model_executor.layers.fused_moe.routing_simulator"
NEW = "vllm.model_executor.layers.fused_moe.router.routing_simulator_router"


def registered(monkeypatch: pytest.MonkeyPatch, module: str) -> dict[str, Any]:
    """Strategies, after what stands in for vLLM and torch (arrays are numpy's) has loaded the plugin."""
    known: dict[str, Any] = {}
    simulator = SimpleNamespace(register_strategy=known.__setitem__)
    found = ModuleType(module)
    vars(found).update(RoutingStrategy=object, RoutingSimulator=simulator)
    torch = ModuleType("torch")
    vars(torch).update(
        float32=np.float32, long=np.int64, as_tensor=lambda array, dtype, device: array.astype(dtype),
        full=lambda shape, value, dtype, device: np.full(shape, value, dtype),
    )  # fmt: skip
    parts = module.split(".")
    for end in range(1, len(parts)):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(".".join(parts[:end])))
    monkeypatch.setitem(sys.modules, module, found)
    monkeypatch.setitem(sys.modules, "torch", torch)
    runpy.run_path(str(PLUGIN))["register"]()
    return known


@pytest.mark.parametrize("module", [OLD, NEW])
def test_each_layer_gets_its_rows_in_their_order(moesim: Moesim, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    assert moesim("trace", "route", "demo-tiny", "--set", "batch.tokens_per_gpu=5", "-o", "r.parquet").code == 0
    assert moesim("trace", "export", "megatron-replay", "r.parquet", "-o", "rows.npz").code == 0
    monkeypatch.setenv("MOESIM_ROWS", "rows.npz")
    strategy = registered(monkeypatch, module)["moesim"]
    whole = np.stack([np.load("rows.npz")[f"layer_{layer}"] for layer in range(8)], axis=1)
    assert len(whole) == pq.read_metadata("r.parquet").num_rows == 40
    at = 0
    for tokens in (16, 16, 16, 3):  # the third step goes over the end of the file
        batch = SimpleNamespace(shape=(tokens, 64), device="cpu")
        for layer in range(whole.shape[1]):
            weights, ids = strategy.route_tokens(batch, None, 4, np.int32)
            assert ids.dtype == np.int32 and np.allclose(weights.sum(axis=1), 1)
            assert np.array_equal(ids, whole[(at + np.arange(tokens)) % 40, layer])
        at += tokens
    with pytest.raises(ValueError, match="4 experts a token, the model 8"):
        strategy.route_tokens(SimpleNamespace(shape=(1, 64), device="cpu"), None, 8)
