"""`moesim place`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moesim.cli.options import OptionalReport, json_option, print_json, text_stream

if TYPE_CHECKING:
    from moesim.studies import Outcome
    from moesim.studies.expression import Expression
    from moesim.studies.placing import Options

FILE = click.Path(path_type=Path)
LIST = "See `moesim list`."


@click.command(cls=OptionalReport)
@click.option(
    "--trace",
    metavar="T,...",
    help="Shipped name, recordings in any format (`moesim trace formats`), or a folder of them.",
)
@click.option("--history", metavar="DIR", help="Instead: recordings in order; would rebalancing have paid?")
@click.option("--topology", required=True, metavar="X", help="Shipped name or YAML file.")
@click.option("--gpus", required=True, type=click.IntRange(1), metavar="N", help="GPUs that share the experts.")
@click.option(
    "--redundant", type=click.IntRange(0), default=0, show_default=True, metavar="R", help="Slots beyond one an expert."
)
@click.option("--by-layer", is_flag=True, help="R is a mean: layers that gain most by redundant slots have them.")
@click.option("--slots", metavar="S[,S...]", help="Slots of every GPU, or of each, instead of --redundant.")
@click.option(
    "--strategy", "strategy", metavar="S,...", help=f"Strategies to compare, or all. {LIST}  [default: usual ones]"
)
@click.option("--objective", default="makespan", show_default=True, metavar="NAME", help=LIST)
@click.option("--dispatch", metavar="RULE", help=f"Of tokens over replicas. {LIST}  [default: the format's engine's]")
@click.option("--load-cap", type=float, metavar="C", help="Most load of a GPU over the mean, in all.")
@click.option(
    "--holdout", metavar="F", help="Share of the last windows that no strategy sees (0.3); of several recordings the "
    "name of one, or leave-one-out (default).",
)  # fmt: skip
@click.option(
    "--window", type=click.IntRange(1), metavar="TOKENS", help="Tokens of a window.  [default: 2048, or fewer]"
)
@click.option("--drift", metavar="T", help="Another trace to judge on.  [default: the domain that differs most]")
@click.option("--phase", type=click.Choice(["prefill", "decode", "train"]), help="Plan for its tokens alone.")
@click.option("--previous", type=FILE, metavar="FILE", help="The placement that stands now, in any format.")
@click.option("--max-moves", type=click.IntRange(0), metavar="M", help="Most experts that may move, over all layers.")
@click.option("--speed", metavar="S,...", help="Relative speed of each GPU.")
@click.option(
    "--expert-memory", metavar="SIZE", help="Of each GPU for experts, e.g. 40GB.  [default: what the step leaves]"
)
@click.option(
    "--groups", type=click.IntRange(1), metavar="N", help="Expert groups of the router.  [default: the model's]"
)
@click.option("--time-limit", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Of each strategy.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--model", metavar="M", help="Of the step that is simulated.  [default: the trace's]")
@click.option("--transplant", is_flag=True, help="Carry the trace over to --model; an assumption.")
@click.option("--costs", default="auto", show_default=True, metavar="PROFILE", help=LIST)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change the simulated step; repeatable.")
@click.option("--simulate/--no-simulate", default=None, help="Time a step under each.  [default: where it can be]")
@click.option("-o", "--out", type=FILE, metavar="FILE", help="Write the best placement.")
@click.option("--format", "format_", metavar="NAME", help="sglang, vllm, trtllm, eplb, omniinfer or vllm-ascend.")
@click.option("--report", metavar="[=FILE]", help="Write an HTML page.  [default: placement.html]")
@json_option
@click.option(
    "--assert", "assertion", metavar="EXPR", help="Exit with 4 unless it holds, e.g. 'gain_over_eplb > 0.02'."
)
def place(
    trace: str | None, history: str | None, topology: str, gpus: int, slots: str | None, strategy: str | None,
    changes: tuple[str, ...],
    out: Path | None, format_: str | None, report: str | None, as_json: bool, assertion: str | None,
    holdout: str | None, speed: str | None, expert_memory: str | None, **others: Any,
) -> None:  # fmt: skip
    """Search an expert placement for a recorded load, judge it on windows that no strategy saw, and write it for an
    engine. Of all strategies' answers the one with the least simulated step time is picked. `--set` changes that step,
    e.g. batch.tokens_per_gpu=8192. Ctrl-C answers with the best found so far.
    """
    if (trace is None) == (history is None):
        raise click.UsageError("give --trace T or --history DIR, and only one of them", click.get_current_context())
    if format_ is not None and out is None:
        raise click.UsageError("--format needs -o FILE", click.get_current_context())
    from moesim.placement.formats import format_for
    from moesim.report import tables
    from moesim.report.place_tables import place_text
    from moesim.report.progress import bar
    from moesim.studies.expression import Expression
    from moesim.studies.placing import Options, search
    from moesim.units import byte_count

    target = Expression(assertion) if assertion is not None else None
    chosen = None if out is None else format_for(out, format_).name
    options = Options(
        trace or history or "", topology, gpus, slots=_numbers(slots),
        strategies=tuple((strategy or "").split(",")) if strategy else (),
        changes=changes, format=chosen, holdout=_share(holdout), speed=_speeds(speed),
        expert_memory=None if expert_memory is None else byte_count(expert_memory), **others,
    )  # fmt: skip
    if history is not None:
        _follow(options, out, format_, report, as_json, target)
        return
    with bar(sys.stderr, options.time_limit) as tell:
        found = search(options, tell)
    document = found.to_json()
    stream = text_stream(as_json)
    tables.show(place_text(document), stream)
    _write(found, out, format_, report, stream)
    if as_json:
        print_json(document)
    missed = target.check(document) if target else None
    if missed:
        raise missed
    _end(found, out)


def _follow(
    options: Options, out: Path | None, format_: str | None, report: str | None, as_json: bool,
    target: Expression | None,
) -> None:  # fmt: skip
    """`--history`: the ways to rebalance, in a table, in words and as a page; -o writes what few moves end with."""
    from moesim import atomic
    from moesim.placement.formats import write_placement
    from moesim.report import tables
    from moesim.report.place_page import history_page
    from moesim.report.place_tables import history_text
    from moesim.report.progress import told
    from moesim.studies.placing import rebalance

    with told(sys.stderr, "moesim place --history"):
        found = rebalance(options)
    document, stream = found.to_json(), text_stream(as_json)
    tables.show(history_text(document), stream)
    if out is not None:
        write_placement(found.placement, out, format_, found.frame)
        print(f"placement written to {out}", file=stream)
    if report is not None:
        path = Path(report or "placement.html")
        atomic.write(path, history_page(document))
        print(f"page written to {path}", file=stream)
    if as_json:
        print_json(document)
    missed = target.check(document) if target else None
    if missed:
        raise missed


def _share(text: str | None) -> float | str | None:
    """A share, or the name of a recording."""
    if text is None:
        return None
    try:
        share = float(text)
    except ValueError:
        return text
    if not 0 <= share < 1:
        raise click.UsageError(f"--holdout {text} is no share from 0 to below 1", click.get_current_context())
    return share


def _speeds(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise click.UsageError(f"--speed {text!r} is no list of numbers", click.get_current_context()) from None


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise click.UsageError(f"--slots {text!r} is no number of slots", click.get_current_context()) from None


def _write(found: Outcome, out: Path | None, format_: str | None, report: str | None, stream: Any) -> None:
    """The placement and the page, each whole or not at all."""
    from moesim import atomic
    from moesim.placement.formats import write_placement
    from moesim.report.place_page import place_page
    from moesim.report.place_pictures import place_pictures

    if out is not None:
        made = write_placement(found.placement, out, format_, found.frame)
        for note in made.notes:
            print(f"note: {note}", file=stream)
        print(f"placement written to {out}", file=stream)
    if report is not None:
        path = Path(report or "placement.html")
        atomic.write(path, place_page(found.to_json(), place_pictures(found)))
        print(f"page written to {path}", file=stream)


def _end(found: Outcome, out: Path | None) -> None:
    """Raises Interrupted where Ctrl-C ended the search; what was found is printed and written by then."""
    from moesim.errors import Interrupted

    if found.interrupted:
        best = found.best
        gap = "no bound" if best.gap is None else f"gap {best.gap:.2%}"
        kept = f", written to {out}" if out else ""
        raise Interrupted(f"interrupted: {best.strategy} is the best found so far ({gap}){kept}")
