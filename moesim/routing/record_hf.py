"""Recording a Hugging Face causal language model on text files, through `moesim.routing.record`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from moesim.errors import BadInput
from moesim.routing.record import Recorder
from moesim.routing.trace import RoutingTrace, TraceHeader

EXPERT_COUNTS = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts", "num_experts_per_layer")


def record_texts(model: Path, texts: Sequence[Path], *, length: int = 256, limit: int = 50_000) -> RoutingTrace:
    """Each piece of `length` tokens is a request, each file a domain; at most `limit` tokens a file.

    `model` is a folder with a saved model, or a config.json, whose weights are then random (the header says so).
    Raises BadInput for a model without routers or without text.
    """
    config = _config(model)
    network = _network(model, config).eval()
    ids = [_token_ids(model, path, int(config.get_text_config().vocab_size))[:limit] for path in texts]
    request = 0
    with Recorder(network) as recorder, torch.no_grad():
        for domain, stream in enumerate(ids):
            for first in range(0, len(stream), length):
                piece = torch.tensor(stream[first : first + length])
                network(piece[None])
                where = np.arange(len(piece))
                recorder.mark(
                    request=np.full(len(piece), request),
                    position=where,
                    domain=domain,
                    step=request,
                    token_id=piece.numpy(),
                )
                request += 1
    if not request:
        raise BadInput("the text files are empty", where=", ".join(map(str, texts)))
    layers, top_k = recorder.shape
    return recorder.trace(_header(model, config, layers, top_k, tuple(path.stem for path in texts)))


def _config(model: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"no Hugging Face model ({str(error).splitlines()[0][:120]})", where=model) from None


def _network(model: Path, config: Any) -> Any:
    if model.is_dir():
        return AutoModelForCausalLM.from_pretrained(model, local_files_only=True, dtype=torch.float32)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _token_ids(model: Path, path: Path, vocabulary: int) -> list[int]:
    """By the model's tokenizer; bytes where it has none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", where=path) from None
    if model.is_dir() and any(model.glob("tokenizer*")):
        return list(AutoTokenizer.from_pretrained(model, local_files_only=True)(text)["input_ids"])
    return [byte % vocabulary for byte in text.encode()]


def _header(model: Path, config: Any, layers: int, top_k: int, domains: tuple[str, ...]) -> TraceHeader:
    text = config.get_text_config()
    experts = next((int(n) for name in EXPERT_COUNTS if isinstance(n := getattr(text, name, None), int)), None)
    if experts is None:
        raise BadInput(f"does not say how many experts it has ({', '.join(EXPERT_COUNTS)})", where=model)
    weights = "trained weights" if model.is_dir() else "random weights"
    return TraceHeader(
        model=model.name if model.is_dir() else model.stem,
        moe_layers=layers,
        num_experts=experts,
        top_k=top_k,
        origin=f"recorded from {config.model_type} with {weights}, one pass over each text (phase prefill)",
        domains=domains,
    )
