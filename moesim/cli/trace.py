"""`moesim trace`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moesim.cli.options import OptionalFiles, json_option, overrides_option, print_json, text_stream

if TYPE_CHECKING:
    from moesim.routing import RoutingTrace

FILE = click.Path(path_type=Path)
OUT = click.option("-o", "--out", type=FILE, required=True, metavar="FILE", help="The file to write.")
MODEL = click.option("--model", help="The model that the file is of: a shipped name or a config.")
SEED = click.option("--seed", type=click.IntRange(0), default=0, show_default=True)


@click.group()
def trace() -> None:
    """Routing traces: which token went to which expert. TRACE is a shipped name or a Parquet file."""


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
@click.argument("format_")
@click.argument("path", type=FILE)
@MODEL
@click.option("--top-k", type=click.IntRange(1), help="Where neither the file nor a model says it.")
@click.option("--rule", default="softmax", show_default=True, help="Of router logits: softmax or sigmoid-groups.")
@OUT
def import_(format_: str, path: Path, model: str | None, top_k: int | None, rule: str, out: Path) -> None:
    """Read PATH in an engine's FORMAT (`moesim trace formats`) and write a trace, or counts as .npz."""
    from moesim.models import load_model
    from moesim.routing import RoutingTrace, write_trace
    from moesim.routing.importers import Options, find_format
    from moesim.routing.loads import write_loads

    found = find_format(format_).read(path, Options(load_model(model) if model else None, top_k, rule))
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
    """Write a trace, or counts from an .npz, in an engine's FORMAT: the inverse of import."""
    from moesim.routing.importers import find_format
    from moesim.routing.loads import loads_of, read_loads

    chosen = find_format(format_)
    if path.suffix == ".npz":
        chosen.write(read_loads(path), out)
    else:
        found = _read(str(path))
        chosen.write(found if chosen.tokens else loads_of(found), out)
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
    from moesim.models import load_model
    from moesim.routing import write_trace
    from moesim.routing.synth.generate import synthesise
    from moesim.routing.synth.load import load_knobs

    found = synthesise(load_knobs(knobs, overrides), load_model(model), seed)
    write_trace(found, out)
    print(f"{out}: {found.tokens} tokens, {found.header.basis}")


@trace.command(cls=OptionalFiles)
@click.argument("trace_", metavar="TRACE")
@click.option("--knobs", is_flag=True, help="Also fit the knobs of `trace synth`.")
@click.option("--epochs", type=click.IntRange(1), default=1, help="Equal parts between which churn is fitted.")
@click.option("--report", type=str, metavar="[=FILE]", help="Write a page with pictures.  [default: TRACE.html]")
@json_option
def stats(trace_: str, knobs: bool, epochs: int, report: str | None, as_json: bool) -> None:
    """Load, balance over time, affinity, locality, sparsity, churn and domains of TRACE."""
    from moesim import atomic
    from moesim.report import tables, trace_tables
    from moesim.report.trace_page import trace_page
    from moesim.routing.stats.summary import plain, summarise
    from moesim.routing.synth.fit_back import fit_knobs

    found = _read(trace_)
    summary = summarise(found)
    fitted = {name: plain(value) for name, value in fit_knobs(found, epochs).items()} if knobs else {}
    stream = text_stream(as_json)
    tables.show(trace_tables.header_table(found.header, found.tokens), stream)
    tables.show(trace_tables.numbers_table("mean over layers", summary.to_json()["scalars"]), stream)
    if knobs:
        tables.show(trace_tables.numbers_table("knob", fitted), stream)
    if report is not None:
        path = Path(report or f"{Path(trace_).stem}.html")
        atomic.write(path, trace_page(found, summary))
        print(path, file=sys.stderr)
    if as_json:
        print_json(summary.to_json() | ({"knobs": fitted} if knobs else {}))


@trace.command()
@click.argument("first")
@click.argument("second")
@json_option
def diff(first: str, second: str, as_json: bool) -> None:
    """How far the load and the tokens of two traces of one shape have drifted apart."""
    from moesim.report import tables, trace_tables
    from moesim.routing.stats.diff import diff as difference

    found = difference(_read(first), _read(second)).to_json()
    tables.show(trace_tables.numbers_table("mean over layers", found["scalars"]), text_stream(as_json))
    if as_json:
        print_json(found)


@trace.command()
@click.argument("trace_", metavar="TRACE")
@click.argument("model")
@SEED
@OUT
def transplant(trace_: str, model: str, seed: int, out: Path) -> None:
    """Carry TRACE over to MODEL, a model of another shape. The result is an assumption, and says so."""
    from moesim.models import load_model
    from moesim.routing import write_trace
    from moesim.routing.sources import transplant as carried

    found = carried(_read(trace_), load_model(model), seed)
    write_trace(found, out)
    facts = found.header.evidence
    broken = facts.get("group_limit_violations")
    note = f", {broken} of {facts['token_layers']} token-layers break the group limit" if broken else ""
    print(f"{out}: {found.tokens} tokens, {found.header.basis}{note}")


def _read(name_or_path: str) -> RoutingTrace:
    from moesim.routing import read_trace
    from moesim.studies.routing import trace_path

    return read_trace(trace_path(name_or_path))
