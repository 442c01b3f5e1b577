"""One mixed batch: decodes first, then prompts in chunks as far as the token budget goes (vLLM)."""

from __future__ import annotations

from moesim.serving.batcher.tray import Tray


def fill(tray: Tray) -> None:
    """Requests that run come before those that wait."""
    tray.add_decodes()
    tray.add_started()
    tray.add_swapped()
    tray.add_waiting(chunked=True)
