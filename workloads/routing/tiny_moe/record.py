"""Records the routing of the trained small model on held-out text, and writes the shipped trace with its evidence.

    python workloads/routing/tiny_moe/record.py FOLDER       # FOLDER is what train.py wrote

A request is a piece of a held-out document. Its first tokens are the prompt (phase prefill, all in one step), the rest
is decoded one token a step; the model is causal, so one pass over the text routes each token as decoding it would. The
steps are those of four ranks that run up to eight requests at a time.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from corpus import SOURCES, Document, documents
from model import Shape, TinyMoE
from tokenizers import Tokenizer
from torch.nn import functional
from train import windows

from moesim import streams
from moesim.routing import RoutingTrace, TraceHeader, write_trace
from moesim.routing.record import Recorder
from moesim.routing.stats.affinity import affinity, likeliest_successor
from moesim.routing.stats.domains import domain_divergence, shuffled_divergence
from moesim.routing.stats.load import counts_by, max_violation, step_labels

NAME = "tiny-moe"
TOKENS_PER_DOMAIN = 11_500
RANKS, SLOTS = 4, 8
PACKAGES = ("pyarrow", "numpy", "scipy", "networkx", "sympy", "django", "plotly")


@dataclass(frozen=True)
class Request:
    """One piece of a document: its tokens, and how many of them are the prompt."""

    domain: int
    ids: list[int]
    prompt: int


def requests(tokenizer: Tokenizer, texts: list[Document], shape: Shape) -> list[Request]:
    """The same number of tokens of each domain, in an order that mixes the domains."""
    rng = streams.stream(0, NAME, "requests")
    found: list[Request] = []
    for domain, name in enumerate(SOURCES):
        total = 0
        for document in (d for d in texts if d.domain == name):
            ids = [0, *tokenizer.encode(document.text).ids][: 6 * shape.context]  # no document dominates its domain
            while len(ids) >= 64 and total < TOKENS_PER_DOMAIN:
                length = min(int(rng.integers(96, shape.context + 1)), len(ids))
                found.append(Request(domain, ids[:length], int(length * rng.uniform(0.3, 0.9))))
                ids, total = ids[length:], total + length
    return [found[i] for i in rng.permutation(len(found))]


def schedule(waiting: list[Request]) -> list[tuple[int, int]]:
    """(rank, first step) of each request: the rank whose slot frees first takes the next one."""
    free = [(0, rank) for rank in range(RANKS) for _ in range(SLOTS)]
    places = []
    for request in waiting:
        slot = min(range(len(free)), key=lambda s: free[s])
        step, rank = free[slot]
        places.append((rank, step))
        free[slot] = (step + 1 + len(request.ids) - request.prompt, rank)
    return places


def record(model: TinyMoE, asked: list[Request], unigram: torch.Tensor) -> tuple[Recorder, np.ndarray]:
    """Runs the requests one by one; returns the recorder and (model loss, unigram loss, domain) of each token."""
    losses = []
    with Recorder(model) as recorder, torch.no_grad():
        for number, (request, (rank, first)) in enumerate(zip(asked, schedule(asked), strict=True)):
            ids = torch.tensor(request.ids)
            logits = model(ids[None])[0]
            position = np.arange(len(ids))
            recorder.mark(
                request=np.full(len(ids), number),
                position=position,
                phase=(position >= request.prompt).astype(np.uint8),
                domain=request.domain,
                step=first + np.maximum(position - request.prompt + 1, 0),
                source_rank=rank,
                token_id=ids.numpy(),
            )
            loss = functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
            losses.append(torch.stack([loss, unigram[ids[1:]], torch.full_like(loss, request.domain)]))
    return recorder, torch.cat(losses, dim=1).numpy()


def loss_evidence(losses: np.ndarray) -> dict[str, object]:
    """Nats a token on the recorded text, by the model and by the unigram frequencies of the training text."""
    model, unigram, domain = losses
    by_domain = {
        name: [round(float(model[domain == d].mean()), 3), round(float(unigram[domain == d].mean()), 3)]
        for d, name in enumerate(SOURCES)
    }
    return {
        "held_out_loss_nats": round(float(model.mean()), 4),
        "unigram_loss_nats": round(float(unigram.mean()), 4),
        "loss_and_unigram_loss_by_domain": by_domain,
    }


def routing_evidence(trace: RoutingTrace) -> dict[str, object]:
    """Balance, domains and affinity, each beside what chance would show."""
    apart = ~np.eye(len(trace.header.domains), dtype=bool)
    steps = counts_by(trace, *step_labels(trace))
    busy = steps[:, 0].sum(axis=1) >= 8 * trace.header.num_experts
    scrambled = trace.take(np.arange(trace.tokens))
    for layer in range(1, trace.header.moe_layers):
        order = streams.stream(0, NAME, "scramble", layer).permutation(trace.tokens)
        scrambled.expert[:, layer] = trace.expert[order, layer]
    return {
        "max_violation_by_layer": np.round(max_violation(trace.counts()), 3).tolist(),
        "max_violation_of_steps_with_8_choices_an_expert_mean": round(float(max_violation(steps[busy]).mean()), 3),
        "domain_divergence_bits_mean": round(float(domain_divergence(trace)[apart].mean()), 4),
        "domain_divergence_bits_shuffled_mean": round(float(shuffled_divergence(trace)[apart].mean()), 4),
        "affinity_by_layer_pair": np.round(affinity(trace), 3).tolist(),
        "affinity_of_scrambled_layers_mean": round(float(affinity(scrambled).mean()), 4),
        "likeliest_successor_by_layer_pair": np.round(likeliest_successor(trace), 3).tolist(),
    }


def header(shape: Shape, evidence: dict[str, object]) -> TraceHeader:
    """What the trace is, where its text came from, and under which licences."""
    sources = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return TraceHeader(
        model=NAME,
        moe_layers=shape.layers - 1,
        num_experts=shape.experts,
        top_k=shape.top_k,
        origin=(
            "A small Mixture-of-Experts language model (DeepSeek-V3's gate and auxiliary-loss-free bias), trained by "
            "workloads/routing/tiny_moe/train.py and recorded by record.py on text that it was not trained on. Text: "
            f"Python {platform.python_version()} standard library, {sources}. It is no large model: use it for the "
            "shape of real routing (skew, domains, affinity), not for its size."
        ),
        domains=tuple(SOURCES),
        licence="python: PSF-2.0; cpp: Apache-2.0; docs, translations: BSD-3-Clause; json: MIT",
        evidence=evidence,
    )


def main() -> None:
    """Load, record, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / f"{NAME}.parquet")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shape = Shape()
    tokenizer = Tokenizer.from_file(str(arguments.folder / "tokenizer.json"))
    model = TinyMoE(shape)
    model.load_state_dict(torch.load(arguments.folder / "model.pt", weights_only=True))
    texts = documents()
    trained = windows(tokenizer, [d for d in texts if not d.held_out], shape.context)
    counts = torch.bincount(trained[:, 1:].flatten(), minlength=shape.vocabulary) + 1.0
    asked = requests(tokenizer, [d for d in texts if d.held_out], shape)
    recorder, losses = record(model.eval(), asked, -torch.log(counts / counts.sum()))
    trained_on = json.loads((arguments.folder / "training.json").read_text())
    facts = {"parameters": sum(p.numel() for p in model.parameters()), "training": trained_on, **loss_evidence(losses)}
    trace = recorder.trace(header(shape, {}))
    trace = trace.take(np.lexsort((trace.position, trace.request, trace.source_rank, trace.step)))
    evidence = {**facts, "requests": len(asked), **routing_evidence(trace)}
    final = replace(trace, header=header(shape, evidence))
    write_trace(final, arguments.out)
    print(json.dumps({"tokens": final.tokens, **evidence}, indent=1))


if __name__ == "__main__":
    main()
