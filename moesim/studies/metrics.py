"""The numbers of a Result, from the timeline and the traffic. Training names are DESIGN's, serving names vLLM's."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from moesim.layout import HBM, MemoryLedger
from moesim.step import Lowered
from moesim.studies.band import Band
from moesim.studies.build import Built
from moesim.studies.hidden import hidden_shares
from moesim.studies.ladder import Ladder
from moesim.studies.lost import lost_tokens
from moesim.studies.operators import utilisation
from moesim.studies.result import Metric
from moesim.studies.routing import router_metrics
from moesim.units import from_ps

WITH_STEP = ("step_time_s", "median_itl_ms")  # they grow with the step time
AGAINST_STEP = (
    "tokens_per_s", "tokens_per_s_per_gpu", "tokens_per_s_per_node", "output_throughput", "total_token_throughput",
    "tflops_per_gpu", "mfu", "mbu", "predicted_over_published",
)  # fmt: skip


ALL_TO_ALL = ("dispatch", "combine", "dispatch_backward", "combine_backward")  # tasks of the expert all-to-all
GRADIENT_SYNC = tuple(
    f"{kind}_{op}" for kind in ("dense", "expert") for op in ("reduce_scatter", "all_reduce", "all_gather")
)


def metrics(built: Built, lowered: Lowered, ladder: Ladder, found: Band | None) -> dict[str, Metric]:
    """name -> Metric, in the order in which they are printed; with the band where one was found."""
    return {name: _banded(name, metric, found) for name, metric in _medians(built, lowered, ladder).items()}


def _banded(name: str, metric: Metric, found: Band | None) -> Metric:
    if found is None or name not in (*WITH_STEP, *AGAINST_STEP):
        return metric
    low, high = (found.low, found.high) if name in WITH_STEP else (1 / found.high, 1 / found.low)
    return replace(metric, low=metric.value * low, high=metric.value * high)


def _medians(built: Built, lowered: Lowered, ladder: Ladder) -> dict[str, Metric]:
    step = ladder.step_seconds
    lost = lost_tokens(built, lowered, ladder.timeline)
    tokens = sum(batch.tokens for batch in built.batches) - lost
    ranks = built.plan.layout.world
    per_gpu = tokens / step / ranks
    found = {
        "step_time_s": Metric(step, "s"),
        "tokens_per_s": Metric(tokens / step, "tok/s"),
        "tokens_per_s_per_gpu": Metric(per_gpu, "tok/s"),
        "tokens_per_s_per_node": Metric(tokens / step / _nodes_in_use(built), "tok/s"),
        **({"tokens_lost": Metric(lost, "tok")} if lost else {}),
        **_utilisation(built, lowered, step),
        **_phase_metrics(built, step, tokens),
        **_transfer_metrics(lowered, ladder, ranks, training=built.scenario.batch.phase == "train"),
        "exposed_comm_fraction": Metric(_exposed(ladder) / step, "1"),
        **_byte_metrics(built, lowered),
        "flops": Metric(sum(float(one.flops.sum()) for one in lowered.demand.values()), "FLOP"),
        "peak_memory_bytes": Metric(float(built.memory.used(HBM)), "B"),
        **{f"memory.{key}": Metric(value, "B") for key, value in memory_rows(built.memory)},
        **_load_metrics(lowered),
        **router_metrics(built.plan.routing, lowered, sum(batch.tokens for batch in built.batches)),
        **_link_metrics(ladder),
    }
    return {**found, **_published(built, found["tokens_per_s_per_node"].value)}


def _nodes_in_use(built: Built) -> int:
    """Nodes on which the layout has ranks; ranks run on the first devices."""
    return len(np.unique(built.cluster.node_of[: built.plan.layout.world]))


def _exposed(ladder: Ladder) -> float:
    return (ladder.breakdown["exposed_comm_s"] or 0.0) + (ladder.breakdown["contention_s"] or 0.0)


def _phase_metrics(built: Built, step: float, tokens: int) -> dict[str, Metric]:
    if built.scenario.batch.phase == "decode":
        return {"median_itl_ms": Metric(step * 1e3, "ms"), "output_throughput": Metric(tokens / step, "tok/s")}
    if built.scenario.batch.phase == "prefill":
        return {"total_token_throughput": Metric(tokens / step, "tok/s")}
    context = built.scenario.batch.context
    flops = 3 * built.model.forward_flops(tokens, context / 2)  # backward is twice forward; causal mean context
    rate = flops / step / built.plan.layout.world
    peak = built.cluster.mean_device(built.plan.layout.world).peak_flops["bf16"]
    return {"tflops_per_gpu": Metric(rate / 1e12, "TFLOP/s"), "mfu": Metric(rate / peak, "1"),
            "bubble_fraction": Metric(0.0, "1")}  # fmt: skip


def _byte_metrics(built: Built, lowered: Lowered) -> dict[str, Metric]:
    """Bytes of tokens' rows over the whole step that leave their node, and that stay in it but change the GPU."""
    if not len(lowered.load):
        return {}
    node = built.cluster.node_of[: len(lowered.sent)]
    apart = node[:, None] != node[None, :]
    own = np.trace(lowered.sent)
    found = {"nic_bytes": lowered.sent[apart].sum(), "nvlink_bytes": lowered.sent[~apart].sum() - own}
    return {name: Metric(float(value), "B") for name, value in found.items()}


def memory_rows(memory: MemoryLedger) -> list[tuple[str, float]]:
    """(name, bytes) of a ledger's rows of the HBM."""
    rows = [row for row in memory.rows if row.pool == HBM]
    return [(re.sub("[^a-z0-9]+", "_", row.item.lower()), float(row.bytes)) for row in rows]


def _transfer_metrics(lowered: Lowered, ladder: Ladder, ranks: int, *, training: bool) -> dict[str, Metric]:
    """Seconds that a rank, on average, is inside the expert all-to-all and, in training, inside the reduction of
    gradients and the gathering of parameters: from its own release until its sends and receives are
    done, hidden or not; and which share of its time in transfers of any kind it computes.
    """
    timeline, names = ladder.timeline, np.array(lowered.graph.name)[ladder.timeline.task]
    held = np.where(timeline.end > timeline.start, timeline.end - timeline.start, 0)
    kinds: dict[str, tuple[str, ...]] = {"alltoall_s": ALL_TO_ALL} if len(lowered.load) else {}
    kinds |= {"gradient_sync_s": GRADIENT_SYNC} if training else {}
    seconds = {key: from_ps(held[np.isin(names, tasks)].sum()) / ranks for key, tasks in kinds.items()}
    found = {name: Metric(float(value), "s") for name, value in seconds.items()}
    hidden = hidden_shares(lowered.graph, timeline)
    return found | ({"comm_overlap_fraction": Metric(float(hidden.mean()), "1")} if len(hidden) else {})


def _utilisation(built: Built, lowered: Lowered, step: float) -> dict[str, Metric]:
    """mfu: of the peaks of the arithmetic that is used, whatever it is done for (training: see _phase_metrics)."""
    mfu, mbu = utilisation(lowered, built.cluster.mean_device(built.plan.layout.world), step)
    return {**({} if mfu is None else {"mfu": Metric(mfu, "1")}), "mbu": Metric(mbu, "1")}


def _load_metrics(lowered: Lowered) -> dict[str, Metric]:
    """Rows of the hottest over the mean, of experts and of GPUs: mean over layers, and the worst layer;
    experts_reached, active_experts: share and number of experts that got a row, mean over layers. Nothing of
    a model without experts.
    """
    found: dict[str, Metric] = {}
    if not len(lowered.load):
        return found
    for name, rows in (("rank", lowered.rank_load), ("expert", lowered.load)):
        ratio = rows.max(axis=1) / np.maximum(rows.mean(axis=1), 1e-12)
        found[f"{name}_max_over_mean"] = Metric(float(ratio.mean()), "1")
        found[f"{name}_max_over_mean_worst_layer"] = Metric(float(ratio.max()), "1")
    reached = lowered.load > 0
    active = {"experts_reached": reached.mean(), "active_experts": reached.sum(axis=1).mean()}
    return {**found, **{name: Metric(float(value), "1") for name, value in active.items()}}


def _link_metrics(ladder: Ladder) -> dict[str, Metric]:
    used = ladder.utilisation
    return {"hottest_link_utilisation": Metric(float(used.max(initial=0.0)), "1")}


def _published(built: Built, predicted: float) -> dict[str, Metric]:
    published = built.scenario.published
    if published is None:
        return {}
    measured = published.tokens_per_s_per_node
    return {
        "published_tokens_per_s_per_node": Metric(measured, "tok/s"),
        "predicted_over_published": Metric(predicted / measured, "1"),
    }
