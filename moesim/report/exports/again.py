"""A stored step, played again: rows of flows and kernels are not kept."""

from __future__ import annotations

from moesim.errors import BadInput
from moesim.report.stored import AGAIN, SCENARIO, StoredRun
from moesim.studies import Played, load, run


def played_again(stored: StoredRun) -> Played:
    """Raises BadInput where the scenario does not play as it did."""
    result = run(load(stored.folder / SCENARIO), seed=stored.document["provenance"]["seed"])
    if result.to_json()["metrics"] != stored.document["metrics"]:
        raise BadInput("does not play as it did: moesim or a file that it names has changed", where=stored.folder,
                       way_out=AGAIN)  # fmt: skip
    return result.played
