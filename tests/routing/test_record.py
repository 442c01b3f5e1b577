"""The recording hook sees what a model's routers chose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.routing import TraceHeader

pytest.importorskip("torch")
import torch


class TopkRouter(torch.nn.Module):  # type: ignore[misc]
    """Returns (logits, weights, ids), as the routers of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 6, bias=False)

    def forward(self, hidden: Any) -> Any:
        logits = self.linear(hidden.reshape(-1, 8))
        weight, ids = logits.softmax(-1).topk(2, sorted=False)
        return logits, weight, ids


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(*(torch.nn.ModuleDict({"gate": TopkRouter()}) for _ in range(3)))


def run(model: Any, hidden: Any) -> list[Any]:
    return [block["gate"](hidden) for block in model]


def test_ids_and_weights_of_all_layers_are_recorded_heaviest_first(model: Any) -> None:
    from moesim.routing.record import Recorder

    hidden = torch.randn(2, 5, 8)
    with Recorder(model, keep_logits=True) as recorder:
        outputs = run(model, hidden)
        recorder.mark(request=np.repeat([4, 9], 5), position=np.tile(np.arange(5), 2), phase=0)
    trace = recorder.trace(TraceHeader("toy", 3, 6, 2, "test"))
    assert trace.weight is not None and trace.logits is not None and recorder.shape == (3, 2)
    for layer, (logits, _, ids) in enumerate(outputs):
        assert np.array_equal(np.sort(trace.expert[:, layer]), np.sort(ids.numpy()))
        assert np.allclose(trace.logits[:, layer], logits.detach().numpy(), atol=1e-2)
    assert (np.diff(trace.weight, axis=2) <= 0).all() and trace.request[-1] == 9


def test_padding_is_left_out_and_hooks_are_removed(model: Any) -> None:
    from moesim.routing.record import Recorder

    with Recorder(model) as recorder:
        run(model, torch.randn(4, 8))
        recorder.mark(request=[0, 0, -1, -1], position=[0, 1, 0, 0])
    run(model, torch.randn(4, 8))
    assert recorder.trace(TraceHeader("toy", 3, 6, 2, "test")).tokens == 2 and not recorder._seen


def test_a_wrong_number_of_tokens_and_a_model_without_routers_are_refused(model: Any) -> None:
    from moesim.routing.record import Recorder

    with Recorder(model) as recorder:
        run(model, torch.randn(4, 8))
        with pytest.raises(BadInput, match="saw 4 tokens, 3 were named"):
            recorder.mark(request=[0, 0, 0], position=[0, 1, 2])
    with Recorder(torch.nn.Linear(2, 2)) as recorder, pytest.raises(BadInput, match="no router"):
        recorder.mark(request=[0], position=[0])


def test_sparse_scores_give_ids(model: Any) -> None:
    from moesim.routing.record import read_router_output

    scores = torch.tensor([[0.0, 0.7, 0.0, 0.2], [0.9, 0.0, 0.0, 0.4]])
    choice = read_router_output((scores, torch.randn(2, 4)))
    assert choice is not None and choice.ids.tolist() == [[1, 3], [0, 3]]


def test_gates_inside_attention_are_no_expert_layers() -> None:
    """JetMoE has one in its attention and one in its FFN: counted together its layers were doubled."""
    from moesim.routing.record import is_router

    gate = type("JetMoeTopKGating", (torch.nn.Module,), {})()
    assert is_router("model.layers.0.mlp.router", gate)
    assert not is_router("model.layers.0.self_attention.experts.router", gate)


def test_megatron_replay_tensors_become_a_trace() -> None:
    from moesim.routing.record import trace_from_replay

    layers = [torch.tensor([[0, 1], [2, 3]]), torch.tensor([[3, 1], [0, -1]])]
    trace = trace_from_replay(TraceHeader("toy", 2, 4, 2, "test"), layers, request=[0, 0], position=[0, 1])
    assert trace.expert[1, 1].tolist() == [0, 65535]
