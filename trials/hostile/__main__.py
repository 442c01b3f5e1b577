"""`python -m trials.hostile`: every kind of bad input, and what became of it."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final

from moesim.studies import run
from trials.hostile import damage, files, keys, text
from trials.hostile.room import REFUSED, Case, tried

KINDS: Final[Mapping[str, Callable[[], Iterable[Case]]]] = {
    "scenario keys": keys.scenario_keys,
    "router keys": keys.router_keys,
    "config.json": keys.model_keys,
    "yaml": text.yaml_files,
    "command line": text.command_line,
    "targets": text.targets,
    "garbage": files.garbage,
    "cut files": files.cut,
    "arrays": files.arrays,
    "words": files.words,
}
DAMAGE: Final = {"flips": damage.flips, "kills": damage.kills}
SHOWN: Final = 12


def main() -> int:
    """Print a row a kind; 4 where a case failed."""
    parser = argparse.ArgumentParser(prog="python -m trials.hostile")
    parser.add_argument("--only", choices=[*KINDS, *DAMAGE], action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="one case in so many")
    given = parser.parse_args()
    run("demo-tiny")  # what a run imports and compiles is there before children are forked
    wanted = given.only or [*KINDS, *DAMAGE]
    failed = [_row(kind, islice(cases(), 0, None, given.every)) for kind, cases in KINDS.items() if kind in wanted]
    for kind, damaged in DAMAGE.items():
        if kind in wanted:
            for name, (wrong, number) in damaged(given.seed).items():
                print(f"{kind:14} {name:20} {number:5} tried, {wrong} wrong", flush=True)
                failed.append(wrong)
    print(f"failed: {sum(failed)}")
    return 4 if sum(failed) else 0


def _row(kind: str, cases: Iterable[Case]) -> int:
    count, faults = Counter[str](), []
    for case in cases:
        verdict = tried(case)
        count["refused" if verdict.code in REFUSED else "accepted"] += not verdict.fault
        faults += [f"  {case.label[:70]}: {verdict.fault}"] if verdict.fault else []
    total = sum(count.values()) + len(faults)
    print(f"{kind:14} {total:5} tried, {count['refused']} refused, {count['accepted']} harmless, {len(faults)} failed")
    print("\n".join(faults[:SHOWN]), end="\n" if faults else "", flush=True)
    return len(faults)


if __name__ == "__main__":
    sys.exit(main())
