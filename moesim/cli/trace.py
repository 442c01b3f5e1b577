"""`moesim trace`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moesim.cli.options import OptionalFiles, json_option, overrides_option, print_json, scenario_argument, text_stream
from moesim.cli.trace_cache import cache

if TYPE_CHECKING:
    from moesim.routing import RoutingTrace, TraceHeader
    from moesim.routing.stats.summary import Summary

FILE = click.Path(path_type=Path)
OUT = click.option("-o", "--out", type=FILE, required=True, metavar="FILE", help="The file to write.")
MODEL = click.option("--model", help="The model that the file is of: a shipped name or a config.")
SEED = click.option("--seed", type=click.IntRange(0), default=0, show_default=True)


@click.group()
def trace() -> None:
    """Routing traces: which token went to which expert. TRACE is a shipped name or a file."""


@trace.command()
@click.argument("model", type=FILE)
@click.argument("texts", type=FILE, nargs=-1, required=True)
@click.option("--length", type=click.IntRange(2), default=256, show_default=True, help="Tokens of a request.")
@click.option("--limit", type=click.IntRange(1), default=50_000, show_default=True, help="Tokens of a text.")
@OUT
def record(model: Path, texts: tuple[Path, ...], length: int, limit: int, out: Path) -> None:
    """Run a Hugging Face MODEL (a folder, or a config.json with random weights) over TEXTS, one domain each."""
    from moesim.routing import write_trace
    from moesim.routing.record_hf import record_texts

    found = record_texts(model, texts, length=length, limit=limit)
    write_trace(found, out)
    print(f"{out}: {found.tokens} tokens, {found.header.moe_layers} layers, top-{found.header.top_k}")


@trace.command("import")
@click.argument("words", nargs=-1, required=True, metavar="[FORMAT] PATH")
@MODEL
@click.option("--top-k", type=click.IntRange(1), help="Where neither the file nor a model says it.")
@click.option("--rule", default="softmax", show_default=True, help="Of router logits: softmax or sigmoid-groups.")
@OUT
def import_(words: tuple[str, ...], model: str | None, top_k: int | None, rule: str, out: Path) -> None:
    """Read PATH in an engine's FORMAT (`moesim trace formats`; found by looking where it is not named) and write a
    trace, or counts as .npz.
    """
    from moesim.models import load_routed
    from moesim.routing import RoutingTrace, write_trace
    from moesim.routing.importers import Options, find_format, read_any, read_format
    from moesim.routing.loads import write_loads

    if len(words) > 2:
        raise click.UsageError(f"{len(words)} words, where a FORMAT and a PATH are meant", click.get_current_context())
    if len(words) == 2:
        find_format(words[0])
    path = Path(words[-1])
    options = Options(load_routed(model) if model else None, top_k, rule)
    if len(words) == 2:
        found = read_format(words[0], path, options)
    else:
        found, name = read_any(path, options)
        print(f"{path}: {name}", file=sys.stderr)
    if isinstance(found, RoutingTrace):
        write_trace(found, out)
        print(f"{out}: {found.tokens} tokens")
    else:
        write_loads(found, out)
        print(f"{out}: counts of {len(found.counts)} steps (no tokens: balance and placement only)")


@trace.command()
@click.argument("format_")
@click.argument("path", type=FILE)
@OUT
def export(format_: str, path: Path, out: Path) -> None:
    """Write a recording in an engine's FORMAT: the inverse of import."""
    from moesim.routing.importers import find_format
    from moesim.routing.loads import LoadRecord, loads_of
    from moesim.studies.placing.recordings import read_recorded

    chosen = find_format(format_)
    found = read_recorded(str(path))
    chosen.write(found if chosen.tokens or isinstance(found, LoadRecord) else loads_of(found), out)
    print(out)


@trace.command()
@json_option
def formats(as_json: bool) -> None:
    """The formats of import and export."""
    from moesim.routing.importers import REGISTRY

    rows = {name: f"{form.what} ({'tokens' if form.tokens else 'counts'})" for name, form in REGISTRY.items()}
    if as_json:
        print_json(rows)
    else:
        print("\n".join(f"{name:18} {what}" for name, what in rows.items()))


@trace.command()
@click.argument("files", type=FILE, nargs=-1, required=True)
@OUT
def unpack(files: tuple[Path, ...], out: Path) -> None:
    """Turn SGLang's .pt FILES of all ranks into an .npz that import reads. Needs the extra `torch`."""
    from moesim.routing.unpack import unpack as unpacked

    print(f"{out}: moesim trace import {unpacked(files, out)} {out}")


@trace.command()
@click.argument("model")
@click.option("--knobs", type=FILE, metavar="FILE", help="YAML with the knobs; see --set.")
@overrides_option
@SEED
@OUT
def synth(model: str, knobs: Path | None, overrides: tuple[str, ...], seed: int, out: Path) -> None:
    """Make a synthetic trace of MODEL, e.g. --set popularity.zipf=0.8 --set affinity=0.4."""
    from moesim.models import load_routed
    from moesim.routing import write_trace
    from moesim.routing.synth.generate import synthesise
    from moesim.routing.synth.load import load_knobs

    found = synthesise(load_knobs(knobs, overrides), load_routed(model), seed)
    write_trace(found, out)
    print(f"{out}: {found.tokens} tokens, {found.header.basis}")


@trace.command()
@click.argument("trace_", metavar="TRACE")
@SEED
@OUT
def logits(trace_: str, seed: int, out: Path) -> None:
    """Give TRACE logits that its choices and weights may have come from, for routers that look at scores. Those of
    experts that were not chosen are made up, and the trace says so.
    """
    from moesim.routing import write_trace
    from moesim.routing.synth.logits import with_logits

    found = with_logits(read_tokens(trace_), seed)
    write_trace(found, out)
    print(f"{out}: {found.tokens} tokens, {found.header.basis}")


@trace.command(cls=OptionalFiles)
@click.argument("trace_", metavar="TRACE")
@click.option("--knobs", is_flag=True, help="Also fit the knobs of `trace synth`.")
@click.option("--epochs", type=click.IntRange(1), default=1, help="Equal parts between which churn is fitted.")
@click.option("--placement", type=FILE, help="A placement file: the share of choices that stay on their source rank.")
@click.option("--gpus", type=click.IntRange(1), help="Ranks of the placement, where its file does not say.")
@click.option("--report", type=str, metavar="[=FILE]", help="Write a page with pictures.  [default: TRACE.html]")
@click.option("--segment", type=click.IntRange(1), help="Tokens of a segment (SRP, SCH) and of a chunk (CLS).  [16]")
@click.option("--cache", type=click.IntRange(1), help="Experts a layer that SCH caches.  [twice top-k]")
@json_option
def stats(
    trace_: str, knobs: bool, epochs: int, placement: Path | None, gpus: int | None, report: str | None,
    segment: int | None, cache: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Load, balance over time, affinity, locality, sparsity, churn, drops and domains of TRACE.

    TRACE may also be a recording in any format of `trace formats`; of counts, only what counts can say.
    """
    from moesim.routing.loads import LoadRecord
    from moesim.routing.stats.summary import SEGMENT, summarise, summarise_loads
    from moesim.studies.placing.recordings import read_recorded

    found = read_recorded(trace_)
    if isinstance(found, LoadRecord):
        if knobs or placement or segment or cache or report is not None:
            raise click.UsageError(f"only tokens have --knobs, --placement, --segment, --cache, --report, and {trace_} "
                                   "holds counts")  # fmt: skip
        _show(found.header, None, summarise_loads(found).to_json(), as_json)
        return
    summary = summarise(found, segment or SEGMENT, cache)
    document = summary.to_json()
    document["metrics"] |= _local_rate(found, placement, gpus) if placement else {}
    document["metrics"] |= _knobs(found, epochs) if knobs else {}
    _show(found.header, found.tokens, document, as_json)
    if report is not None:
        _write_page(Path(report or f"{Path(trace_).stem}.html"), found, summary)


def _show(header: TraceHeader, tokens: int | None, found: dict[str, Any], as_json: bool) -> None:
    """Tables, or the document with what the trace is as its provenance."""
    from moesim.report import tables, trace_tables

    tables.show(trace_tables.header_table(header, tokens), text_stream(as_json))
    tables.show(trace_tables.metrics_table(found["metrics"]), text_stream(as_json))
    if as_json:
        print_json(found | {"provenance": trace_tables.provenance(header), "warnings": []})


def _knobs(found: RoutingTrace, epochs: int) -> dict[str, Any]:
    from moesim.routing.stats.summary import plain
    from moesim.routing.synth.fit_back import fit_knobs

    return {f"knob_{name}": {"value": plain(value), "unit": "1"} for name, value in fit_knobs(found, epochs).items()}


def _local_rate(found: RoutingTrace, file: Path, gpus: int | None) -> dict[str, Any]:
    from moesim.placement.formats import Frame, read_placement
    from moesim.routing.stats.locality import local_activation_rate

    held = read_placement(file, Frame(ranks=gpus, experts=found.header.num_experts)).held
    return {"local_activation_rate": {"value": float(local_activation_rate(found, held).mean()), "unit": "1"}}


def _write_page(path: Path, found: RoutingTrace, summary: Summary) -> None:
    from moesim import atomic
    from moesim.report.trace_page import trace_page

    atomic.write(path, trace_page(found, summary))
    print(path, file=sys.stderr)


@trace.command()
@click.argument("first")
@click.argument("second")
@json_option
def diff(first: str, second: str, as_json: bool) -> None:
    """How far the load and the tokens of two recordings of one shape have drifted apart.

    Each is a trace or a recording in any format; of counts, only what counts can say.
    """
    from moesim.report import tables, trace_tables
    from moesim.routing.stats.diff import diff as difference
    from moesim.studies.placing.recordings import read_recorded

    one, other = read_recorded(first), read_recorded(second)
    drift = difference(one, other)
    found = drift.to_json()
    tables.show(trace_tables.metrics_table(found["metrics"]), text_stream(as_json))
    for note in drift.notes:
        print(f"note: {note}", file=text_stream(as_json))
    if as_json:
        both = {"first": trace_tables.provenance(one.header), "second": trace_tables.provenance(other.header)}
        print_json(found | {"provenance": both, "warnings": list(drift.notes)})


@trace.command()
@click.argument("trace_", metavar="TRACE")
@click.argument("model")
@SEED
@OUT
def transplant(trace_: str, model: str, seed: int, out: Path) -> None:
    """Carry TRACE over to MODEL, a model of another shape. The result is an assumption, and says so."""
    from moesim.models import load_routed
    from moesim.routing import write_trace
    from moesim.routing.sources import transplant as carried

    found = carried(read_tokens(trace_), load_routed(model), seed)
    write_trace(found, out)
    facts = found.header.evidence
    broken = facts.get("group_limit_violations")
    note = f", {broken} of {facts['token_layers']} token-layers break the group limit" if broken else ""
    print(f"{out}: {found.tokens} tokens, {found.header.basis}{note}")


@trace.command()
@scenario_argument
@overrides_option
@click.option("--steps", type=click.IntRange(1, 1000), default=1, show_default=True, help="Batches, one after another.")
@SEED
@OUT
def route(scenario: str, overrides: tuple[str, ...], steps: int, seed: int, out: Path) -> None:
    """Write what SCENARIO's routing decides as a trace, which stats and diff can measure: any router's choices.

    A router that learns learns on from step to step. Dropped rows are in no expert.
    """
    from moesim.routing import write_trace
    from moesim.studies import load
    from moesim.studies.routed_trace import routed_trace

    found = routed_trace(load(scenario, overrides), seed, steps)
    write_trace(found, out)
    print(f"{out}: {found.tokens} tokens of {steps} step(s), {found.header.basis}")


def read_tokens(name_or_path: str) -> RoutingTrace:
    """A shipped trace by name, or a file. Raises BadInput."""
    from moesim.routing import read_trace
    from moesim.studies.routing import trace_path

    return read_trace(trace_path(name_or_path))


trace.add_command(cache)
