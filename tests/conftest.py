"""Property tests: no deadline, since the first example may compile; the same examples in every run."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("moesim", deadline=None, derandomize=True)
settings.load_profile("moesim")
