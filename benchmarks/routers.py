"""What each router costs: `python -m benchmarks.routers`. 8192 tokens of one layer, 256 experts, top-8, 32 GPUs.

CPU seconds of this process from the logits that the router looks up (generating them is a row of its own) to the table
of experts that the step sends: the median of five. The bar is five million token-layers a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from moesim.models import load_model
from moesim.routing.routers import RouterInput, build_router, registry
from moesim.routing.sources.columns import LogitKnobs, generated

TOKENS, REPEATS, BAR = 8192, 5, 5e6
MODEL = "deepseek-ai/DeepSeek-V3"
LAYER = 4


def seconds(function: Callable[[], object]) -> float:
    """CPU seconds of a call, the median of five."""
    taken = []
    for _ in range(REPEATS):
        began = time.process_time()
        function()
        taken.append(time.process_time() - began)
    return float(np.median(taken))


def batch() -> RouterInput:
    """Prompts of 64 tokens on 32 GPUs of 4 nodes; logits of DeepSeek-V3's shape, as skewed as a log-normal of 0.6."""
    model, number = load_model(MODEL), np.arange(TOKENS)
    columns = dict(generated(LogitKnobs(domains=4), model, 0).lookups)
    experts = np.argsort(-columns["logits"](LAYER, number, number), axis=1)[:, : model.top_k].astype(np.uint16)
    columns["recorded"] = lambda layer, request, position: experts[(request + position) % TOKENS]
    return RouterInput(
        experts=model.num_experts,
        top_k=model.top_k,
        request=number // 64,
        position=number % 64,
        rank=number * 32 // TOKENS,
        columns=columns,
        expert_rank=np.arange(model.num_experts) * 32 // model.num_experts,
        rank_node=np.arange(32) // 8,
        groups=model.num_groups,
        topk_groups=model.topk_groups,
        layer=LAYER,
        layers=len(model.moe_layers),
    )


def main() -> None:
    """One line a router, the slowest last."""
    given = batch()
    rate = TOKENS * 60 / seconds(lambda: given.column("logits"))
    print(f"{'generating the logits':28} {rate / 1e6:8.1f} M token-layers a minute")
    assert given.logits.shape == (TOKENS, 256)  # looked up once, outside of what is timed
    rates = {}
    for name in registry:
        router = build_router(name)
        rates[name] = TOKENS * 60 / seconds(lambda r=router: r.route(given).table())  # type: ignore[misc]
    for name, rate in sorted(rates.items(), key=lambda row: -row[1]):
        missed = "  MISSED" if rate < BAR else ""
        rows = build_router(name).route(given).mean_k
        print(f"{name:28} {rate / 1e6:8.1f} M token-layers a minute, {rows:5.1f} rows{missed}")
    met = sum(rate >= BAR for rate in rates.values())
    print(f"{met} of {len(rates)} routers reach 5 M token-layers a minute")


if __name__ == "__main__":
    main()
