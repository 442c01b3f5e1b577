"""Batches of prompts alone have priority, in chunks; decodes run when no prompt can (SGLang)."""

from __future__ import annotations

from moesim.serving.batcher.tray import Tray


def fill(tray: Tray) -> None:
    """Nothing is mixed."""
    tray.add_started()
    tray.add_waiting(chunked=True)
    if tray.empty:
        tray.add_decodes()
        tray.add_swapped()
