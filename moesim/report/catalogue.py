"""What can be named in a scenario: kind -> [(name, one line)]. A new kind is one function and one line in KINDS."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from moesim import shipped, yamlfile
from moesim.costs.profile_file import known_profiles
from moesim.hardware import known_topologies
from moesim.hardware.formats import REGISTRY as FORMATS
from moesim.models import known_models, load_model
from moesim.network import all_to_all
from moesim.placement import dispatch, objectives, strategies
from moesim.placement.formats import REGISTRY as PLACEMENT_FORMATS
from moesim.routing import open_trace
from moesim.routing.routers import registry as ROUTERS
from moesim.routing.synth.statistics import statistics_names
from moesim.schedules import registry as SCHEDULES
from moesim.schedules.pipelines import Pipeline
from moesim.serving.autoscaler import REGISTRY as AUTOSCALERS
from moesim.serving.balancer import REGISTRY as BALANCERS
from moesim.serving.batcher import REGISTRY as POLICIES
from moesim.serving.readers import REGISTRY as READERS
from moesim.serving.readers import Table, known_requests, read_requests
from moesim.serving.settings import presets, read_preset
from moesim.studies.validation import SUITES

Rows = list[tuple[str, str]]


def catalogue() -> dict[str, Rows]:
    """All kinds."""
    return {kind: rows() for kind, rows in KINDS.items()}


def _scenarios() -> Rows:
    return _described(shipped.names("workloads/scenarios", ".yaml"), "description")


def _models() -> Rows:
    return [(name, _model(name)) for name in known_models()]


def _model(name: str) -> str:
    model = load_model(name)
    sizes = f"{model.total_parameters / 1e9:.4g} B parameters, {model.active_parameters / 1e9:.3g} B active"
    if not model.routed:
        return f"{sizes}, no experts"
    return f"{sizes}, {len(model.moe_layers)} expert layers, top-{model.top_k} of {model.num_experts}"


def _topologies() -> Rows:
    return _described(known_topologies(), "description")


def _formats() -> Rows:
    return [(name, f"{one.about}: {_ways(one.read, one.write)}") for name, one in FORMATS.items()]


def _ways(read: object, write: object) -> str:
    return " and ".join(f"moesim topo {verb}" for verb, way in (("import", read), ("export", write)) if way)


def _profiles() -> Rows:
    return [*_described(known_profiles(), "device"), ("roofline", "any device: nominal rates alone, assumed")]


def _traces() -> Rows:
    return [(name, _trace(path)) for name, path in shipped.names("workloads/routing", ".parquet").items()]


def _trace(path: Path) -> str:
    trace = open_trace(path)
    return f"{trace.tokens:,} tokens of {trace.header.model}"


def _statistics() -> Rows:
    return [(name, "DeepSeek-V3 expert load of a published benchmark run") for name in statistics_names()]


def _routers() -> Rows:
    return [(name, _first_line(sys.modules[router.__module__])) for name, router in ROUTERS.items()]


def _algorithms() -> Rows:
    return [(name, _first_line(type(algorithm))) for name, algorithm in all_to_all.REGISTRY.items()]


def _schedules() -> Rows:
    return [(name, _first_line(importlib.import_module(one.__module__))) for name, one in SCHEDULES.items()]


def _requests() -> Rows:
    return [
        (name, f"{len((table := read_requests(name)).prompt):,} requests, {_span(table)}") for name in known_requests()
    ]


def _span(table: Table) -> str:
    return "lengths only" if table.arrival is None else f"over {table.arrival[-1] / 1e12:,.0f} s"


def _request_formats() -> Rows:
    return [(name, reader.about) for name, reader in READERS.items()]


def _presets() -> Rows:
    return [(name, str(read_preset(path)["about"])) for name, path in presets().items()]


def _policies() -> Rows:
    return [(name, _first_line(sys.modules[policy.fill.__module__])) for name, policy in POLICIES.items()]


def _balancers() -> Rows:
    return [(name, _first_line(sys.modules[choose.__module__])) for name, choose in BALANCERS.items()]


def _autoscalers() -> Rows:
    return [(name, _first_line(sys.modules[wanted.__module__])) for name, wanted in AUTOSCALERS.items()]


def _strategies() -> Rows:
    return [(name, strategy.summary) for name, strategy in strategies.REGISTRY.items()]


def _objectives() -> Rows:
    return [(name, _first_sentence(name, one)) for name, one in objectives.REGISTRY.items()]


def _rules() -> Rows:
    return [(name, one.summary) for name, one in dispatch.REGISTRY.items()]


def _first_sentence(name: str, thing: object) -> str:
    """Of its file's docstring, without its own name in front."""
    text = inspect.getdoc(importlib.import_module(type(thing).__module__)) or ""
    return " ".join(text.split()).removeprefix(f"{name}: ").partition(". ")[0].rstrip(".")


def _pipelines() -> Rows:
    orders = sorted(Pipeline.known.items())
    return [(name, _first_line(importlib.import_module(order.__module__))) for name, order in orders]


def _placement_formats() -> Rows:
    return [(name, f"{one.about} ({', '.join(one.suffixes)})") for name, one in PLACEMENT_FORMATS.items()]


def _suites() -> Rows:
    return [(name, _first_line(importlib.import_module(suite.__module__))) for name, suite in SUITES.items()]


def _described(files: Mapping[str, Path], key: str) -> Rows:
    return [(name, str(yamlfile.read_yaml(path).data.get(key, ""))) for name, path in files.items()]


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


KINDS: Final[dict[str, Callable[[], Rows]]] = {
    "scenarios": _scenarios,
    "models": _models,
    "topologies": _topologies,
    "topology formats": _formats,
    "profiles": _profiles,
    "traces": _traces,
    "load statistics": _statistics,
    "routers": _routers,
    "all-to-all": _algorithms,
    "schedules": _schedules,
    "pipelines": _pipelines,
    "requests": _requests,
    "request formats": _request_formats,
    "presets": _presets,
    "batch policies": _policies,
    "balancers": _balancers,
    "autoscalers": _autoscalers,
    "placement strategies": _strategies,
    "placement objectives": _objectives,
    "dispatch over replicas": _rules,
    "placement formats": _placement_formats,
    "validation suites": _suites,
}
