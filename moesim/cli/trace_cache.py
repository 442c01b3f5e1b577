"""`moesim trace cache`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from moesim.cli.options import json_option, print_json, refuse_idle, text_stream
from moesim.errors import BadInput, placed

if TYPE_CHECKING:
    from moesim.routing.offload import Machine, Passes, Played

MOST = 512  # passes: the caches of tiny-moe have settled after 100


@click.command()
@click.argument("trace_", metavar="TRACE")
@click.option("--slots", type=click.IntRange(1), required=True, help="Experts a layer that fit into GPU memory.")
@click.option(
    "--shallow", type=click.IntRange(0), default=0, help="First layers that hold all experts, of the same sum."
)
@click.option("--evict", default="lru", show_default=True, help="lru, lfu, priority or belady.")
@click.option(
    "--prefetch", default="none", show_default=True,
    help="none, oracle, frequency, task, path, expert_map, token_id or gate.",
)  # fmt: skip
@click.option(
    "--distance", type=click.IntRange(1), default=1, show_default=True, help="Layers that --prefetch looks ahead."
)
@click.option(
    "--accuracy", type=click.FloatRange(0, 1), default=0.97, show_default=True, help="Of --prefetch gate, a stand-in."
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Requests that decode together.")
@click.option("--compose", default="fifo", show_default=True, help="Who is batched: fifo, or affinity of the prompts.")
@click.option("--expert", "expert_bytes", default="50 MB", show_default=True, help="Bytes of an expert.")
@click.option("--link", default="25 GB/s", show_default=True, help="From host to GPU memory.")
@click.option("--layer", "layer_time", default="500 us", show_default=True, help="What a layer computes.")
@click.option("--passes", "most", type=click.IntRange(2), default=MOST, show_default=True, help="Played at most.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@json_option
def cache(
    trace_: str, slots: int, shallow: int, evict: str, prefetch: str, distance: int, accuracy: float, batch: int,
    compose: str, expert_bytes: str, link: str, layer_time: str, most: int, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """What a cache of experts would hold of TRACE's decode passes, with the rest in host memory: hits, bytes fetched,
    time waited. The cache is empty at first. Bytes, link and time of a layer are yours to give; defaults are made up.
    """
    from moesim import units
    from moesim.cli.trace import read_tokens
    from moesim.errors import unknown_name
    from moesim.report import tables
    from moesim.routing.offload import COMPOSE, EVICTION, Machine, find_predictor, passes_of, play, spread_slots

    for what, name, known in (("eviction", evict, EVICTION), ("way to compose", compose, COMPOSE)):
        if name not in known:
            raise unknown_name(what, name, known)
    if not 0 <= accuracy <= 1:  # NaN passes every range
        raise BadInput(f"{accuracy} is no probability", where="--accuracy", way_out="--accuracy 0.97")
    refuse_idle("accuracy", "--prefetch gate", acts=prefetch == "gate")
    refuse_idle("distance", "a --prefetch", acts=prefetch != "none")
    predict = find_predictor(prefetch, accuracy, seed)
    found = read_tokens(trace_)
    layers, experts = found.header.moe_layers, found.header.num_experts
    if slots > experts:
        raise BadInput(f"{slots} slots, a layer has {experts} experts", where="--slots", way_out=f"--slots {experts}")
    each, rate, compute = (
        _positive(option, text, parse)
        for option, text, parse in (
            ("--expert", expert_bytes, units.byte_count), ("--link", link, units.bandwidth),
            ("--layer", layer_time, units.seconds),
        )
    )  # fmt: skip
    passes, all_of_them = passes_of(found, batch, compose, most)
    machine = Machine(spread_slots(layers, experts, slots, shallow), each / rate, compute)
    played = play(passes, machine, evict, predict, distance)
    metrics = _metrics(passes, machine, played, each)
    shown: dict[str, Any] = {name: {"value": value, "unit": unit} for name, (value, unit) in metrics.items()}
    tables.show(tables.metric_table({"metrics": shown}), text_stream(as_json))
    told = f"an expert of {each:,.0f} bytes, a link of {rate:,.4g} B/s, {compute:g} s of compute a layer"
    notes = [f"as given or by default, not measured: {told}"]
    notes += [f"the first {most} of {all_of_them} passes; --passes plays more"] if most < all_of_them else []
    notes += [f"the gate is a stand-in that is right with probability {accuracy:g}"] if prefetch == "gate" else []
    for note in notes:
        click.echo(f"warning: {note}", err=True)
    if as_json:
        print_json({"metrics": shown, "warnings": notes})


def _positive(option: str, text: str, parse: Any) -> float:
    """A quantity above zero. Raises BadInput that names the option."""
    with placed(option):
        value = float(parse(text))
    if not value > 0:
        raise BadInput(f"{text!r} is not above zero", where=option)
    return value


def _metrics(passes: Passes, machine: Machine, played: Played, each: float) -> dict[str, tuple[float, str]]:
    """name -> (value, unit)"""
    number, size = len(passes.used), passes.used.shape[1] * passes.used.shape[2]
    return {
        "hit_ratio": (played.hits / max(played.needed, 1), "1"),
        "late_ratio": (played.late / max(played.needed, 1), "1"),
        **({"predictor_accuracy": (played.right / played.named, "1")} if played.named else {}),
        "fetched_bytes": (played.fetched * each, "B"),
        "prefetch_bytes": (played.ahead * each, "B"),
        "stall_s": (played.stall, "s"),
        "pass_s": (played.time / number, "s"),
        "pass_s_longest": (played.longest, "s"),
        "tokens_per_s": (float(passes.tokens.sum()) / played.time, "tok/s"),
        "unique_experts_per_batch": (passes.unique, "1"),
        "resident_bytes": (sum(machine.slots) * each, "B"),
        "resident_share": (sum(machine.slots) / size, "1"),
    }
