"""Pages: how large one of a 64-GPU run is, how long it takes to build and to open, and how long `moesim --help` takes.

    python -m benchmarks.report [--keep FOLDER]

Wall clock and CPU seconds, the least of several tries. Bars: a page of at most 8 MB, built from the stored run in 3 s
(`moesim report`, a process and all), drawn in 2 s of headless Chromium (the same browser with an empty page taken off);
`--help` in 0.2 s. --keep: the run and its page stay there.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

WIDE: Final = ("cluster.nodes=8", "parallel.data_parallel_size=64", "parallel.expert_parallel_size=64")
TRIES: Final = 3
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
AHEAD: Final = "--virtual-time-budget=20000"  # ms
EMPTY: Final = "<!doctype html><title>empty</title>"


class Spent(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s, {self.cpu:.2f} s CPU"


def moesim(folder: Path, *words: str) -> Spent:
    """A command in a process of its own."""
    return least([sys.executable, "-m", "moesim", *words], folder)


def least(command: Sequence[str], folder: Path, tries: int = TRIES) -> Spent:
    """The least of several tries, of wall clock and of CPU each."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    found = []
    for _ in range(tries):
        begun, before = time.perf_counter(), _children()
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        found.append(Spent(time.perf_counter() - begun, _children() - before))
    return Spent(min(one.wall for one in found), min(one.cpu for one in found))


def drawn(page: Path) -> Spent | None:
    """A page in a headless browser until nothing is left to draw (its clock runs ahead then), beside an empty one; None
    without a browser.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return None
    empty = page.with_name("empty.html")
    empty.write_text(EMPTY, encoding="utf-8")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    words = [browser, "--headless", "--disable-gpu", "--no-first-run", *sandbox, AHEAD,
             f"--user-data-dir={page.parent / 'profile'}", "--dump-dom"]  # fmt: skip
    bare, full = (least([*words, one.as_uri()], page.parent) for one in (empty, page))
    return Spent(full.wall - bare.wall, full.cpu - bare.cpu)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print each figure beside its bar."""
    parser = argparse.ArgumentParser(description="pages")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = (given.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        settings = [word for text in WIDE for word in ("--set", text)]
        least(
            [sys.executable, "-m", "moesim", "run", "qwen3-prefill-ep16", *settings, "--out", "wide"], folder, tries=1
        )
        built = moesim(folder, "report", "wide", "-o", "page.html")
        page = folder / "page.html"
        print(f"page of a 64-GPU run: {page.stat().st_size / 1e6:.2f} MB   (bar 8 MB)")
        print(f"built by `moesim report`: {built}   (bar 3 s)")
        print(f"drawn by headless Chromium: {drawn(page) or 'no browser here'}   (bar 2 s)")
        print(f"moesim --help: {moesim(folder, '--help')}   (bar 0.2 s)")


if __name__ == "__main__":
    main()
