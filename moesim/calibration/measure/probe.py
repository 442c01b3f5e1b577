"""Whether a kernel runs here: one tiny case, tried in a process of its own, which a trap may take down.

A device's capability does not tell: torch has kernels that trap on newer devices, and libraries run on older ones than
they say.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any, Final

from moesim.calibration.measure.case import Case
from moesim.calibration.measure.peers import Peers
from moesim.calibration.measure.target import find_target

PATIENCE: Final = 120.0  # seconds; a device's first context and a kernel that is compiled take tens


def refusal(case: Case, device_class: str) -> str:
    """Why the case does not run on this machine, "" if it does."""
    command = [sys.executable, "-m", "moesim.calibration.measure.probe", device_class, json.dumps(asdict(case))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return f"a tiny {case.operator} takes more than {PATIENCE:.0f} s"
    if done.returncode == 0:
        return ""
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return f"a tiny {case.operator} fails: {(said or ['it ended its process'])[-1][:200]}"


def case_of(columns: dict[str, Any]) -> Case:
    """The inverse of `asdict` after JSON, which knows no tuples."""
    return Case(**{name: _tuples(value) for name, value in columns.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


def main(device_class: str, columns: str) -> None:
    """The child: prepare, call, check. Whatever it raises, its last line tells."""
    from moesim.calibration.operators import OPERATORS
    from moesim.calibration.operators.operator import Place

    case = case_of(json.loads(columns))
    place = Place(find_target(device_class), Peers())
    prepared = OPERATORS[case.operator].prepare(case, place)
    found = prepared.call()
    place.target.synchronize()
    prepared.check(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
