"""What `moesim run` does with one scenario: play it, check names, store it, write the files asked for, print it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import yaml

from moesim import atomic
from moesim.compiled import uncompiled
from moesim.errors import BadInput, MoesimError
from moesim.report import html, perfetto, stored, tables
from moesim.report.pictures import pictures
from moesim.report.progress import FIRST, told
from moesim.report.serve_pictures import requests_csv, serve_pictures
from moesim.report.serve_tables import serve_text
from moesim.report.train_pictures import train_pictures, train_trace
from moesim.report.train_tables import train_text
from moesim.studies import Played, load
from moesim.studies import run as play_scenario
from moesim.studies.expression import Expression
from moesim.studies.inputs import content_hash, hash_of
from moesim.studies.serving import is_serving, load_serving, run_serving, serving_hash
from moesim.studies.sweeping.sources import sources_digest
from moesim.studies.training import TrainResult, is_training, load_training, run_training, training_files


@dataclass(frozen=True)
class Files:
    """Where to write, and what; None: not, or in the default folder; "": under the default name in the run's folder."""

    out: Path | None = None
    report: str | None = None
    trace: str | None = None
    ranks: tuple[int, ...] = ()  # that are drawn


def play(
    scenario: str, overrides: tuple[str, ...], seed: int, files: Files, target: Expression | None, stream: IO[str]
) -> stored.StoredRun:
    """Play, store and print one run. Nothing is written before the run is done and the target's names are known."""
    if is_serving(scenario, overrides):
        return _serve(scenario, overrides, seed, files, target, stream)
    if is_training(scenario, overrides):
        return _train(scenario, overrides, files, target, stream)
    loaded = load(scenario, overrides)
    name = loaded.scenario.name + (FIRST if uncompiled() else "")
    with told(sys.stderr, f"moesim run {name}") as tell:
        result = play_scenario(loaded, seed=seed, tell=tell)
    document, drawn = result.to_json(), pictures(result, files.ranks)
    if target:
        target.check(document)
    folder = files.out or _folder(content_hash(loaded), seed)
    run = stored.StoredRun(folder, document, drawn)
    stored.save(run, yaml.safe_dump(loaded.document.data, sort_keys=False, allow_unicode=True))
    tables.show(tables.run_text(document, drawn), stream)
    try:
        beside = [*_write_page(run, files.report), *_write_trace(result.name, result.played, folder, files.trace)]
    except MoesimError as error:
        kept = f"{error.what}; the run itself is stored in {folder}"
        raise type(error)(kept, where=error.where, way_out=error.way_out) from None
    written = [folder, *beside]
    print("stored in", *written, file=stream)
    return run


def _serve(
    scenario: str, overrides: tuple[str, ...], seed: int, files: Files, target: Expression | None, stream: IO[str]
) -> stored.StoredRun:
    """The same of a scenario that serves requests."""
    if files.trace is not None:
        raise BadInput("a trace shows the tasks of one step, this scenario serves requests", where="--trace",
                       way_out="--report, or a scenario of mode: step")  # fmt: skip
    if files.ranks:
        raise BadInput("a served run has no chart of ranks", where="--ranks", way_out="leave it out")
    loaded = load_serving(scenario, overrides)
    with told(sys.stderr, f"moesim run {loaded.scenario.name}") as tell:
        result = run_serving(loaded, seed=seed, tell=tell)
    document = result.to_json()
    if target:
        target.check(document)
    folder = files.out or _folder(serving_hash(loaded), seed)
    run = stored.StoredRun(folder, document, serve_pictures(result))
    played = yaml.safe_dump(loaded.step.document.data, sort_keys=False, allow_unicode=True)
    stored.save(run, played, requests_csv(result))
    tables.show(serve_text(document), stream)
    print("stored in", folder, *_write_page(run, files.report), file=stream)
    return run


def _train(
    scenario: str, overrides: tuple[str, ...], files: Files, target: Expression | None, stream: IO[str]
) -> stored.StoredRun:
    """The same of a pipelined training step; nothing in it is drawn by a seed."""
    loaded = load_training(scenario, overrides)
    with told(sys.stderr, f"moesim run {loaded.scenario.name}") as tell:
        result = run_training(loaded, tell=tell)
    document = result.to_json()
    if target:
        target.check(document)
    folder = files.out or _folder(hash_of(loaded.scenario, training_files(loaded.scenario)))
    run = stored.StoredRun(folder, document, train_pictures(result, files.ranks))
    stored.save(run, yaml.safe_dump(loaded.document.data, sort_keys=False, allow_unicode=True))
    tables.show(train_text(document), stream)
    beside = [*_write_page(run, files.report), *_write_timeline(result, folder, files.trace)]
    print("stored in", folder, *beside, file=stream)
    return run


def _write_timeline(result: TrainResult, folder: Path, file: str | None) -> list[Path]:
    """Of the ranks of a pipeline, one file."""
    if file is None:
        return []
    path = Path(file) if file else folder / stored.TRACE
    if path.is_dir() or file.endswith("/"):
        raise BadInput("a pipelined training step is one file", where="--trace", way_out="the name of a file")
    atomic.write(path, train_trace(result))
    return [path]


def _folder(*parts: object) -> Path:
    """Where a run is kept: its name knows the scenario, its files' contents, and what worked its numbers out."""
    return stored.RUNS / stored.run_hash(*parts, sources_digest())


def _write_page(run: stored.StoredRun, file: str | None) -> list[Path]:
    if file is None:
        return []
    path = Path(file) if file else run.folder / stored.PAGE
    atomic.write(path, html.page([(run.document, stored.drawn(run))]))
    return [path]


def _write_trace(name: str, played: Played, folder: Path, file: str | None) -> list[Path]:
    """One file, or a file a rank where the name is that of a folder."""
    if file is None:
        return []
    path = Path(file) if file else folder / stored.TRACE
    if path.is_dir() or file.endswith("/"):
        for part, text in perfetto.rank_traces(name, played).items():
            atomic.write(path / part, text)
    else:
        atomic.write(path, perfetto.trace(name, played))
    return [path]
