"""One mixed batch: decodes, and whole prompts while the budget holds the next (TensorRT-LLM, no chunked context)."""

from __future__ import annotations

from moesim.serving.batcher.tray import Tray


def fill(tray: Tray) -> None:
    """A prompt that is longer than the budget can never run: the scheduler rejects it."""
    tray.add_decodes()
    tray.add_waiting(chunked=False)
