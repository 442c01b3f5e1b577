"""tiny-moe-logits.parquet: every 14th request of the recording, with logits (`moesim trace logits`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from moesim.routing import read_trace, write_trace
from moesim.routing.synth.logits import with_logits

HERE = Path(__file__).parent.parent
EVERY = 14


def main() -> None:
    """Write the trace."""
    whole = read_trace(HERE / "tiny-moe.parquet")
    some = whole.take(np.isin(whole.request, whole.by_request.request[::EVERY]))
    evidence = {"requests": len(np.unique(some.request)), "taken": f"every {EVERY}th request of tiny-moe"}
    named = replace(some, header=replace(some.header, evidence=evidence), token_id=None)
    write_trace(with_logits(named), HERE / "tiny-moe-logits.parquet")


if __name__ == "__main__":
    main()
