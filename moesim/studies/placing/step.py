"""The step whose time decides between placements: a scenario made from a few options, sealed into a StepClock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from moesim.errors import BadInput
from moesim.hardware import Cluster, load_cluster
from moesim.layout import HBM
from moesim.models import MoEModel, known_models, load_routed
from moesim.placement import Memory, StepClock, dispatch
from moesim.routing.loads import LoadRecord
from moesim.routing.trace import PHASES
from moesim.studies.build import Draft, draft
from moesim.studies.load import load_data
from moesim.studies.memory import memory_of
from moesim.studies.placing.options import Options
from moesim.studies.placing.recordings import Recorded
from moesim.studies.placing.windows import DRIFT, Split

BLOCK = 2048  # recorded tokens that stay together on one rank, fewer where windows are shorter
TOKENS = {"prefill": 4096, "train": 4096, "decode": 128}  # a GPU and step
DISPATCH = {"prefill": "deepep_normal", "decode": "deepep_low_latency", "train": "deepep_normal"}
CONTEXT = 2048  # tokens that a request of a decode step has cached


@dataclass(frozen=True)
class Step:
    """clock: plays the step; memory: what experts may take; draft: the plan behind both and what it rests on."""

    clock: StepClock
    memory: Memory
    draft: Draft
    phase: str


def find_model(recorded: Recorded, options: Options) -> MoEModel | None:
    """The named model, or the trace's own where moesim knows it. Raises BadInput."""
    if options.model is not None:
        return load_routed(options.model)
    return load_routed(recorded.header.model) if recorded.header.model in known_models() else None


def find_cluster(options: Options) -> Cluster:
    """As many nodes of the topology as the GPUs need. Raises BadInput."""
    cluster = load_cluster(options.topology)
    if cluster.num_devices == options.gpus:
        return cluster
    if cluster.num_devices > options.gpus and options.gpus <= cluster.gpus_per_node:
        return cluster
    return load_cluster(options.topology, nodes=-(-options.gpus // cluster.gpus_per_node))


def make_step(options: Options, model: MoEModel, cluster: Cluster, recorded: Recorded, made: Split) -> Step:
    """A step of the model with attention data parallel and experts parallel over all GPUs. Raises BadInput,
    DoesNotFit.
    """
    phase = options.phase or _usual_phase(recorded)
    loaded = load_data(_scenario(options, model, cluster, phase, made), "moesim place", options.changes)
    sealed = draft(loaded, options.seed)
    layout, batch = sealed.plan.layout, sealed.batches[0]
    if layout.expert_parallel != options.gpus:
        raise BadInput(
            f"expert_parallel_size is {layout.expert_parallel}, the placement is for {options.gpus} GPUs",
            where=loaded.where("parallel.expert_parallel_size"),
            way_out=f"no --set of it, or --gpus {layout.expert_parallel}",
        )
    way = dispatch.find(options.rule).way
    clock = StepClock(replace(sealed.plan, replicas=way), batch, int(batch.query[0]))
    return Step(clock, _memory(sealed), sealed, sealed.scenario.batch.phase)


def _usual_phase(recorded: Recorded) -> str:
    if isinstance(recorded, LoadRecord):
        return "prefill"
    present = [name for number, name in enumerate(PHASES) if (recorded.phase == number).any()]
    return present[0]


def _scenario(options: Options, model: MoEModel, cluster: Cluster, phase: str, made: Split) -> dict[str, Any]:
    context = CONTEXT if phase == "decode" else _block(made)
    return {
        "name": "place",
        "model": options.model or model.name,
        "batch": {"phase": phase, "tokens_per_gpu": TOKENS[phase], "context": context},
        "cluster": {"topology": options.topology} | _nodes(options, cluster),
        "parallel": {"data_parallel_size": options.gpus, "expert_parallel_size": options.gpus},
        "experts": {"redundant": -model.num_experts % options.gpus},
        "comm": {"dispatch": DISPATCH[phase]},
        "routing": {"balanced": True},
        "costs": options.costs,
    }


def _nodes(options: Options, cluster: Cluster) -> dict[str, int]:
    same = load_cluster(options.topology).num_devices == cluster.num_devices
    return {} if same else {"nodes": cluster.num_nodes}


def _block(made: Split) -> int:
    """The largest power of two up to BLOCK that all windows which are played can fill at least once."""
    played = (made.played or made.deciding, made.judged.get(DRIFT))
    lengths = [int(one.edges[-1]) for one in played if one is not None and one.edges is not None]
    return 1 << (min([BLOCK, *lengths]).bit_length() - 1)


def _memory(sealed: Draft) -> Memory:
    """Bytes of an expert, and what is left for experts beside everything else of the step."""
    plan = sealed.plan
    ledger = memory_of(sealed.scenario, plan)
    others = sum(row.bytes for row in ledger.rows if row.pool == HBM and row.item != "expert weights")
    expert = int(plan.ops.spread.expert_parameters * plan.model.weight_bytes(plan.ops.precision.experts))
    return Memory(expert, max(ledger.capacity[HBM] - others, 0))
