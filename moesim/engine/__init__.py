"""Two players of one TaskGraph: `evaluate` (port loads, milliseconds) and `simulate` (fluid network, a World)."""

from moesim.engine.again import Again
from moesim.engine.beside import Beside
from moesim.engine.builder import GraphBuilder
from moesim.engine.contention import Contention, contention
from moesim.engine.critical import CriticalPath, critical_path
from moesim.engine.evaluate import evaluate
from moesim.engine.faults import Fault, mean_factors
from moesim.engine.graph import Join, Kind, TaskGraph
from moesim.engine.integrity import check_integrity, check_timeline
from moesim.engine.level import FLUID_GPUS, choose_level
from moesim.engine.passes import State, play, timed
from moesim.engine.pool import Pool
from moesim.engine.queries import Gaps, busy_seconds, link_heat, stream_gaps
from moesim.engine.simulate import simulate
from moesim.engine.skeleton import Pairs, Skeleton, Values, values_of
from moesim.engine.speed import Speed
from moesim.engine.timeline import NEVER, Timeline, Transfers
from moesim.engine.world import World

__all__ = [
    "FLUID_GPUS",
    "NEVER",
    "Again",
    "Beside",
    "Contention",
    "CriticalPath",
    "Fault",
    "Gaps",
    "GraphBuilder",
    "Join",
    "Kind",
    "Pairs",
    "Pool",
    "Skeleton",
    "Speed",
    "State",
    "TaskGraph",
    "Timeline",
    "Transfers",
    "Values",
    "World",
    "busy_seconds",
    "check_integrity",
    "check_timeline",
    "choose_level",
    "contention",
    "critical_path",
    "evaluate",
    "link_heat",
    "mean_factors",
    "play",
    "simulate",
    "stream_gaps",
    "timed",
    "values_of",
]
