"""Serving: requests in, a schedule of steps, latencies out. A replica's steps take what a clock says."""

from moesim.serving.book import Book, State
from moesim.serving.clock import Clock, Given, Hosted
from moesim.serving.replica import Replica, Sample
from moesim.serving.requests import Requests
from moesim.serving.run import Served, serve
from moesim.serving.scheduler import Scheduler
from moesim.serving.settings import SchedulerSection, Settings, engine, presets
from moesim.serving.workload import RequestsSection

__all__ = [
    "Book", "Clock", "Given", "Hosted", "Replica", "Requests", "RequestsSection", "Sample", "Scheduler",
    "SchedulerSection", "Served", "Settings", "State", "engine", "presets", "serve",
]  # fmt: skip
