"""A process killed while it compiles leaves no broken cache: the next start with the same cache works.

    python -m trials.killed [--number 20] [--seed 0]

`moesim run --demo` starts on an empty cache and is killed (SIGKILL) at a random moment of compiling, which takes some
45 CPU seconds; then it runs to its end on what the kill left. Each time after that a third of the functions, drawn,
are taken out of the cache, so that the next start has to compile those, and is killed while it does.
Exits with 1 where a run after a kill fails, or says something else than on an empty cache.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from moesim.compiled import COMPILED, KERNELS

LONGEST = 45.0  # s: by then a start on an empty cache has compiled what it needs
FORGOTTEN = 1 / 3  # of the functions, before another start
COMMAND = [sys.executable, "-m", "moesim", "run", "--demo"]


def start(cache: Path, folder: Path) -> subprocess.Popen[bytes]:
    """The demo with that cache of compiled code, in another folder."""
    environment = {
        **os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(Path(__file__).parents[1]), KERNELS: COMPILED,
    }  # fmt: skip
    return subprocess.Popen(COMMAND, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def to_the_end(cache: Path) -> tuple[int, bytes]:
    """(exit code, what it printed) of a whole run in a folder of its own."""
    with TemporaryDirectory() as folder:
        process = start(cache, Path(folder))
        printed, complaint = process.communicate()
        return process.returncode, printed if process.returncode == 0 else complaint


def killed(cache: Path, after: float) -> bool:
    """Whether a run was still under way after so many seconds, and so was killed."""
    with TemporaryDirectory() as folder:
        process = start(cache, Path(folder))
        try:
            process.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return True
        return False


def forget(cache: Path, draw: random.Random) -> None:
    """Take some functions out of the cache, each with all that stands there of it."""
    functions = sorted({path.with_suffix("") for path in cache.rglob("*.nbi")})
    for function in draw.sample(functions, int(len(functions) * FORGOTTEN)):
        for path in function.parent.glob(f"{function.name}.*"):
            path.unlink()


def told(found: tuple[int, bytes], expected: tuple[int, bytes]) -> str:
    """What a run after a kill says, beside what one on an empty cache said."""
    if found == expected:
        return "works"
    lines = zip(found[1].splitlines(), [*expected[1].splitlines(), *[b""] * found[1].count(b"\n")], strict=False)
    other = next((line.decode(errors="replace") for line, wanted in lines if line != wanted), "less")
    return f"exit {found[0]}, and says: {other}"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every start after a kill worked."""
    parser = argparse.ArgumentParser(description="kill processes while they compile")
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    draw, kills, broken, longest = random.Random(given.seed), 0, 0, LONGEST
    with TemporaryDirectory() as base:
        cache = Path(base, "cache")
        expected = to_the_end(Path(base, "untouched"))
        for number in range(given.number):
            kills += killed(cache, draw.uniform(0.3, longest))
            found = to_the_end(cache)
            broken += found != expected
            print(f"kill {number + 1}: {told(found, expected)}", flush=True)
            forget(cache, draw)
            longest = LONGEST * FORGOTTEN
    print(f"{kills} of {given.number} were killed under way, {broken} of the starts after them failed")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
