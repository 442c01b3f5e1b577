"""The gallery: a file for each published mechanism, played and held by what it is expected to do."""

from moesim.studies.gallery.play import Verdict, document, play, timely
from moesim.studies.gallery.row import Row, find_rows, rows

__all__ = ["Row", "Verdict", "document", "find_rows", "play", "rows", "timely"]
