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
    pieces = [
        (domain, stream[first : first + length])
        for domain, stream in enumerate(ids)
        for first in range(0, len(stream), length)
    ]
    if not pieces:
        raise BadInput("the text files are empty", where=", ".join(map(str, texts)))
    with Recorder(network) as recorder, torch.no_grad():
        for request, (domain, piece) in enumerate(pieces):
            _pass(model, network, piece)
            recorder.mark(request=np.full(len(piece), request), position=np.arange(len(piece)),
                          domain=domain, step=request, token_id=piece)  # fmt: skip
    layers, top_k = recorder.shape
    zero_experts = int(getattr(config.get_text_config(), "zero_expert_num", None) or 0)  # LongCat-Flash
    header = _header(model, config, layers, top_k, tuple(path.stem for path in texts))
    return recorder.trace(header, zero_experts=zero_experts)


def _pass(model: Path, network: Any, piece: Sequence[int]) -> None:
    """One forward pass. A configuration that cannot run fails here, with whatever torch raises."""
    try:
        network(torch.tensor(piece)[None], use_cache=False)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"the model does not run ({type(error).__name__}: {reason})", where=model) from None


def _config(model: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"no Hugging Face model ({str(error).splitlines()[0][:120]})", where=model) from None


def _network(model: Path, config: Any) -> Any:
    """The model with its weights, or with random ones. What transformers refuses to build is bad input, whatever it
    raises: each family checks its own configuration in its own way."""
    torch.manual_seed(0)
    try:
        if model.is_dir():
            return AutoModelForCausalLM.from_pretrained(model, local_files_only=True, dtype=torch.float32)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"transformers cannot build it ({type(error).__name__}: {reason})", where=model) from None


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
