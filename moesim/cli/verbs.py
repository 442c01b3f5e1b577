"""The registry of verbs, and a click group that imports a verb only when it is run.

A new verb is one file in this folder that defines one click command, and one line here.
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import Final, NamedTuple

import click

PLAYED: Final = ("serve", "train", "simulate", "play", "step")  # modes, and words of others, for `run`


class Command(NamedTuple):
    """module and attribute of a click command, and its one line of help (shown without importing it)."""

    module: str
    attribute: str
    help: str


VERBS: Final = {
    "run": Command("run", "run", "Play a scenario: a step, requests served, or training."),
    "compare": Command("compare", "compare", "Two scenarios, paired seeds: difference and interval."),
    "sweep": Command("sweep", "sweep", "Many runs with keys varied, each stored once, resumable."),
    "search": Command("search", "search", "Many runs with keys varied, chosen by an optimizer."),
    "recommend": Command(
        "recommend", "recommend", "Which deployment, or training layout? Searched, with launch flags."
    ),
    "sensitivity": Command("sensitivity", "sensitivity", "Which input, or error of a cost, moves a number?"),
    "explain": Command("explain", "explain", "Where did the time of a stored run go, in words?"),
    "report": Command("report", "report", "Write the HTML page of stored runs."),
    "export": Command("export", "export", "Write a stored run as other tools write theirs."),
    "place": Command("place", "place", "Search an expert placement for a recorded load."),
    "trace": Command("trace", "trace", "Record, import, synthesise and measure routing traces."),
    "pipeline": Command("pipeline", "pipeline", "Draw a pipeline's order of passes, with its bubble."),
    "isolation": Command("isolation", "isolation", "Does one request's content change another's routing?"),
    "calibrate": Command("calibrate", "calibrate", "Measure, import, fit and check kernel profiles."),
    "topo": Command("topo", "topo", "Show, import, export and check cluster topologies."),
    "gallery": Command("gallery", "gallery", "Published mechanisms, each run and held by a check."),
    "validate": Command("validate", "validate", "Errors of predictions against published measurements."),
    "recipes": Command("recipes", "recipes", "Questions people ask, as commands that run."),
    "init": Command("init", "init", "Print a commented template of a scenario."),
    "list": Command("list", "list_", "List scenarios, models, topologies, profiles, traces."),
    "doctor": Command("doctor", "doctor", "Check this installation and say what is missing."),
    "completion": Command("completion", "completion", "Print the script that completes lines in bash, zsh or fish."),
    "schema": Command("schema", "schema", "Print the JSON Schema of scenario files."),
}


class LazyGroup(click.Group):
    """A group whose commands are the registry's; a verb is known only when its file is there."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the registry's order."""
        return [name for name, verb in VERBS.items() if (Path(__file__).parent / f"{verb.module}.py").is_file()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself, imported now; None for an unknown name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        verb = VERBS[cmd_name]
        command = getattr(importlib.import_module(f"moesim.cli.{verb.module}"), verb.attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:  # fmt: skip
        """As click does, but an unknown verb names the nearest known one. Raises click.UsageError."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            near = ["run"] if args[0] in PLAYED else difflib.get_close_matches(args[0], known, n=1, cutoff=0.5)
            guess = f"did you mean {near[0]!r}? " if near else ""
            raise click.UsageError(f"unknown verb {args[0]!r}. Try: {guess}known: {', '.join(known)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, from the registry alone."""
        known = self.list_commands(ctx)
        if known:
            with formatter.section("Commands"):
                formatter.write_dl([(name, VERBS[name].help) for name in known])
