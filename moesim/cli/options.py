"""Pieces that several verbs share: the optional `=FILE`, and where text goes when stdout belongs to JSON."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from moesim import shipped

WRITES: Final = {"out", "report", "as_json"}  # parameters that say what is written where
MOST_RANKS: Final = 64  # that a page draws at once, when it is asked for them
COMPLETE: Final = "_MOESIM_COMPLETE"  # set by a shell that asks how a line may go on
Function = TypeVar("Function", bound=Callable[..., Any])


class OptionalReport(click.Command):
    """A command whose `--report` may stand alone: a file is given by `=FILE` only, not as a word."""

    alone: ClassVar[tuple[str, ...]] = ("--report",)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, after `--report` has become `--report=`."""
        return super().parse_args(ctx, [f"{word}=" if word in self.alone else word for word in args])


class OptionalFiles(OptionalReport):
    """`--trace` too."""

    alone: ClassVar[tuple[str, ...]] = ("--report", "--trace")


def scenario_argument(function: Function) -> Function:
    """SCENARIO, whose shipped names a shell completes, and files."""
    return click.argument("scenario", type=ScenarioName())(function)


class ScenarioName(click.types.StringParamType):
    """A shipped name or a path, taken as it is: who reads it says what is wrong."""

    name = "scenario"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Shipped names first; where there are none, files."""
        found = [name for name in shipped.names("workloads/scenarios", ".yaml") if name.startswith(incomplete)]
        return [CompletionItem(name) for name in found] or [CompletionItem(incomplete, type="file")]


def ranks_of(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, ...]:
    """Numbers and stretches of them, "0,3,8-11" -> (0, 3, 8, 9, 10, 11): at most MOST_RANKS, in order, each once."""
    found = set[int]()
    for part in text.split(",") if text is not None else ():
        ends = re.fullmatch(r"(\d{1,7})(?:-(\d{1,7}))?", part.strip())
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if not 0 <= last - first < MOST_RANKS:
            raise click.BadParameter(f"{part!r} is no rank and no stretch of up to {MOST_RANKS}, e.g. 0,3,8-11")
        found.update(range(first, last + 1))
    if len(found) > MOST_RANKS:
        raise click.BadParameter(f"{len(found)} ranks are more than {MOST_RANKS}")
    return tuple(sorted(found))


def overrides_option(function: Function) -> Function:
    """`--set a.b=value`, repeatable."""
    text = "Override a key of the scenario, e.g. cluster.nodes=4; may be repeated."
    return click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=text)(function)


def engine_option(function: Function) -> Function:
    """`--engine`: of a verb that plays points of a sweep."""
    text = ("What runs points: processes here, a Ray cluster (RAY_ADDRESS, or one that runs here; extra ray), or jobs "
            "of Slurm (SBATCH_PARTITION ...; extra slurm).")  # fmt: skip
    engines = click.Choice(["local", "ray", "slurm"])
    return click.option("--engine", type=engines, default="local", show_default=True, help=text)(function)


def jobs_option(function: Function) -> Function:
    """`--jobs`: of the same."""
    text = "At once; 0: in this process.  [default: one a core; of a cluster, as it has]"
    return click.option("--jobs", type=click.IntRange(0, 1024), metavar="N", help=text)(function)


def command_line(files: Mapping[str, str]) -> str:
    """The command that is running, as somebody types it again. files: name of a parameter -> what stands in its place;
    where it writes to is left out.
    """
    context = click.get_current_context()
    words: list[str] = []
    for one in context.command.params:
        source = context.get_parameter_source(one.name or "")
        if source is not click.core.ParameterSource.COMMANDLINE or one.name in WRITES:
            continue
        value = files.get(one.name or "", context.params[one.name or ""])
        if isinstance(one, click.Argument):
            words.append(str(value))
        elif isinstance(one, click.Option) and one.is_flag:
            words.append(one.opts[0] if value else one.secondary_opts[0])
        else:
            words += [word for each in (value if one.multiple else [value]) for word in (one.opts[0], str(each))]
    return shlex.join(["moesim", context.command.name or "", *words])


def json_option(function: Function) -> Function:
    """`--json`."""
    text = "Print one JSON document on stdout; text for people goes to stderr."
    return click.option("--json", "as_json", is_flag=True, help=text)(function)


def refuse_idle(option: str, acts_with: str, *, acts: bool) -> None:
    """Raises BadInput where somebody gave an option that acts only with another one."""
    from click.core import ParameterSource

    from moesim.errors import BadInput

    source = click.get_current_context().get_parameter_source(option)
    if not acts and source is not ParameterSource.DEFAULT:
        raise BadInput("has nothing to act on", where=f"--{option}", way_out=acts_with)


def text_stream(as_json: bool) -> IO[str]:
    """Where text for people goes."""
    return sys.stderr if as_json else sys.stdout


def print_json(document: Mapping[str, Any]) -> None:
    """One document on stdout. NaN and infinity are refused: JSON has neither."""
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def deliver(text: str, out: Path | None) -> None:
    """Text to stdout ("-" too), or to a new file, whose name is printed. Raises BadInput where it is there already."""
    from moesim import atomic
    from moesim.errors import BadInput

    if out is None or str(out) == "-":
        print(text, end="")
    elif out.exists():
        raise BadInput("is there already", where=out, way_out="another name")
    else:
        atomic.write(out, text)
        print(out)
