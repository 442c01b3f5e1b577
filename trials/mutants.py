"""Do the tests know better? Random faults in a room's source, and whether that room's tests find them.

    python -m trials.mutants [ROOM ...] [--number 20] [--seed 0] [--show]

A mutant changes one operator, comparison, constant or condition of one module (`-` for `+`, `<=` for `<`, 9 for 8 ...).
Its room's tests run in a process of its own, without goldens and README, until the first failure. Prints killed and
survived by room, and every survivor with its line: whether it is equivalent is for the reader to say. Exit 1 below
--least.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.abc
import importlib.machinery
import io
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np  # noqa: F401  (heavy libraries are imported once, before processes are forked)
import pydantic  # noqa: F401
import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    "step": ["tests/step"],
    "layout": ["tests/layout", "tests/step"],
    "costs": ["tests/costs", "tests/step"],
    "network": ["tests/network", "tests/step"],
    "engine": ["tests/engine", "tests/step"],
    "placement": ["tests/placement"],
    "models": ["tests/models", "tests/layout"],
}
LIMIT = 300  # CPU seconds of one mutant: more is a hang, and found
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And, ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A module with one change; `line` says which."""

    room: str
    path: Path
    source: str
    line: str

    @property
    def module(self) -> str:
        """Its dotted name."""
        return ".".join(self.path.relative_to(ROOT).with_suffix("").parts)


def mutants(room: str, number: int, seed: int) -> Iterator[Mutant]:
    """`number` random ones of a room, every place as likely as another."""
    places = [
        (path, index)
        for path in sorted((ROOT / "moesim" / room).rglob("*.py"))
        for index in range(len(_places(ast.parse(path.read_text(encoding="utf-8")))))
    ]
    chosen = random.Random(f"{room}/{seed}").sample(places, min(number, len(places)))
    return (_mutant(room, path, index) for path, index in chosen)


def _mutant(room: str, path: Path, index: int) -> Mutant:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    node = _places(tree)[index]
    number: int = node.lineno  # type: ignore[attr-defined]
    before = ast.unparse(node)
    _change(node)
    ast.fix_missing_locations(tree)
    line = f"{path.relative_to(ROOT)}:{number}: {before[:60]}  ->  {ast.unparse(node)[:60]}"
    return Mutant(room, path, ast.unparse(tree), line)


def _places(tree: ast.Module) -> list[ast.AST]:
    """Expressions that can be changed, in order; nothing in annotations, and no text."""
    annotations = {id(inner) for node in ast.walk(tree) for inner in _inside_annotations(node)}
    return [node for node in ast.walk(tree) if id(node) not in annotations and _changes(node)]


def _inside_annotations(node: ast.AST) -> Iterator[ast.AST]:
    for name in ("annotation", "returns"):
        if (annotation := getattr(node, name, None)) is not None:
            yield from ast.walk(annotation)


def _changes(node: ast.AST) -> bool:
    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op):
            return type(op) in SWAPS and not _is_text(node)
        case ast.Compare(ops=[op]):
            return type(op) in SWAPS
        case ast.Constant(value=value):
            return isinstance(value, (bool, int, float)) and not isinstance(value, complex)
        case ast.IfExp():
            return True
        case _:
            return False


def _is_text(node: ast.AST) -> bool:
    """`|` between types and `+` or `%` between texts."""
    parts = (getattr(node, "left", None), getattr(node, "right", None))
    return any(isinstance(part, (ast.JoinedStr, ast.List, ast.Tuple)) or _text(part) for part in parts)


def _text(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str))


def _change(node: ast.AST) -> None:
    match node:
        case ast.BinOp() | ast.BoolOp() | ast.AugAssign():
            node.op = SWAPS[type(node.op)]()  # type: ignore[assignment]
        case ast.Compare():
            node.ops = [SWAPS[type(node.ops[0])]()]  # type: ignore[list-item]
        case ast.Constant(value=bool(value)):
            node.value = not value
        case ast.Constant(value=value):
            assert isinstance(value, (int, float))
            node.value = value + 1 if isinstance(value, int) or not value else value * 1.5
        case ast.IfExp():
            node.body, node.orelse = node.orelse, node.body


class _Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module another source."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Ours for the mutated module only."""
        if fullname != self.mutant.module:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=str(self.mutant.path))

    def exec_module(self, module: ModuleType) -> None:
        """As the file would be, with the changed source."""
        module.__file__ = str(self.mutant.path)
        exec(compile(self.mutant.source, str(self.mutant.path), "exec"), module.__dict__)


def killed(mutant: Mutant, tests: Sequence[str]) -> bool:
    """Some test fails in a process of its own, or does not end."""
    child = os.fork()
    if child == 0:
        os._exit(_run(mutant, tests))
    started = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) != 0
        if time.monotonic() - started > 10 * LIMIT:
            os.kill(child, 9)
        time.sleep(0.1)


def _run(mutant: Mutant, tests: Sequence[str]) -> int:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
    if "moesim.compiled" in mutant.source:  # machine code of a mutant is nobody else's, nor others' its own
        os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="moesim-mutant-")
    os.chdir(ROOT)
    sys.meta_path.insert(0, _Loader(mutant))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return int(
                pytest.main(
                    [
                        "-n",
                        "0",  # the changed module is in this process
                        "-x",
                        "-q",
                        "-p",
                        "no:cacheprovider",
                        "-p",
                        "no:faulthandler",
                        "-k",
                        "not golden and not readme",
                        *tests,
                    ]
                )
            )
        except BaseException:
            return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("room", nargs="*", default=["step", "layout"], help=f"of {', '.join(TESTS)}")
    parser.add_argument("--number", type=int, default=20, help="mutants a room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least", type=float, default=0.0, help="share that has to be found")
    parser.add_argument("--show", action="store_true", help="print those that were found, too")
    given = parser.parse_args(arguments)
    found = total = 0
    for room in given.room:
        mine, tried = 0, list(mutants(room, given.number, given.seed))
        for mutant in tried:
            dead = killed(mutant, TESTS[room])
            mine += dead
            if not dead or given.show:
                print(f"{'killed' if dead else 'SURVIVED'}  {mutant.line}", flush=True)
        found, total = found + mine, total + len(tried)
        print(f"{room}: {mine} of {len(tried)} found", flush=True)
    print(f"all: {found} of {total} found, {found / max(total, 1):.0%}")
    return int(found < given.least * total)


if __name__ == "__main__":
    sys.exit(main())
