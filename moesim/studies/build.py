"""Scenario -> the nouns of one step, all checks here, once: Cluster, MoEModel, Layout, Placement, routing, costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moesim.costs import CostModel, Tables, load_costs
from moesim.engine import Fault
from moesim.errors import BadInput, placed
from moesim.hardware import Cluster, Device, load_cluster
from moesim.layout import (
    Layout,
    MemoryLedger,
    Placement,
    Rows,
    Spread,
    default_expert_tensor_parallel,
)
from moesim.models import MoEModel, load_played, load_trained, row_bytes
from moesim.network import AllToAll, Fabric, Group, all_to_all
from moesim.routing import RoutingSource
from moesim.routing.sources import Places
from moesim.step import Batch, CostLog, Dispatch, LayerOps, Lowered, Precision, StepPlan, slowdown, uniform_batch
from moesim.studies.dense import check_experts
from moesim.studies.faults import engine_faults
from moesim.studies.load import Loaded
from moesim.studies.memory import fitting_memory
from moesim.studies.overlap import decided, interference_notes, schedule_of
from moesim.studies.placement import find_placement, first_placement
from moesim.studies.routing import merge_note, routing_source
from moesim.studies.scenario import CommSection, Scenario

MOST_TOKENS = 1 << 25  # of one batch: columns of so many take 0.3 GB each


@dataclass(frozen=True)
class Draft:
    """A scenario sealed but for where its experts stand: the plan holds them in order, or as a file has them."""

    scenario: Scenario
    plan: StepPlan
    batches: tuple[Batch, ...]
    log: CostLog
    warnings: tuple[str, ...]
    routing_notes: tuple[str, ...]
    faults: tuple[Fault, ...]

    @property
    def cluster(self) -> Cluster:
        """The machines."""
        return self.plan.fabric.cluster

    @property
    def model(self) -> MoEModel:
        """The model."""
        return self.plan.model

    @property
    def costs(self) -> CostModel:
        """The prices."""
        return self.plan.ops.costs


@dataclass(frozen=True)
class Built(Draft):
    """One scenario, sealed: everything a run needs; `warnings` has what building it raised, of routing too."""

    placement_source: str
    memory: MemoryLedger


def build(loaded: Loaded, seed: int) -> Built:
    """Check and seal a scenario. Raises BadInput, or DoesNotFit where a device is too small."""
    made = draft(loaded, seed)
    found = find_placement(loaded, made.plan, made.batches[0], seed)
    plan = replace(made.plan, placement=found.placement, replicas=found.replicas)
    plan = decided(made.scenario.overlap, plan, made.batches)
    with placed(loaded.document.source):
        memory = fitting_memory(made.scenario, plan)
    whole = replace(made, plan=plan, warnings=(*made.warnings, *made.routing_notes, *found.notes))
    return Built(**vars(whole), placement_source=found.source, memory=memory)


def draft(loaded: Loaded, seed: int) -> Draft:
    """All of `build` that does not depend on the placement. Raises BadInput."""
    scenario = loaded.scenario
    with placed(loaded.where("model")):
        load = load_trained if scenario.batch.phase == "train" else load_played
        model = loaded.played(load(scenario.model, scenario.precision.weights))
    check_experts(loaded, model)
    with placed(loaded.where("cluster.topology")):
        cluster = load_cluster(scenario.cluster.topology, **scenario.cluster.changes)
    layout = _layout(loaded, cluster)
    routing, notes = routing_source(loaded, model, seed, _places(cluster, layout))
    first = first_placement(loaded, model, layout.expert_parallel)
    costs = _costs(loaded, cluster.devices[0], model, layout)
    log = CostLog()
    plan = _plan(loaded, model, cluster, layout, first, routing, costs, log)
    plan = with_kinds(plan, [_costs(loaded, one, model, layout, costs.kernels) for one in cluster.devices[1:]])
    links = (*cluster.warnings, *plan.fabric.notes, *_network_notes(scenario, plan))
    warnings = (*idle_notes(plan), *_kind_notes(plan), *model.approximations, *links, *interference_notes(plan))
    notes = (*notes, *merge_note(routing, plan.dispatch.algorithm), *_unlike(loaded))
    faults = engine_faults(loaded, plan.fabric, layout.world)
    return Draft(scenario, plan, _batches(scenario, layout.world), log, warnings, notes, faults)


def _unlike(loaded: Loaded) -> list[str]:
    what = f"the published figure is left out: it is of this scenario without --set {', '.join(loaded.unlike)}"
    return [what] if loaded.unlike else []


def idle_notes(plan: StepPlan) -> list[str]:
    """GPUs that the layout leaves out, and what would take them in or give them back."""
    cluster, layout = plan.fabric.cluster, plan.layout
    idle, ways = cluster.num_devices - layout.world, []
    if not idle:
        return []
    times, rest = divmod(cluster.num_devices, layout.world)
    if not rest:
        able = [size for size in (layout.expert_parallel * times, layout.expert_parallel)
                if plan.placement.num_slots % size == 0]  # fmt: skip
        sizes = f" with expert_parallel_size: {' or '.join(map(str, able))}" if layout.expert_parallel > 1 else ""
        ways.append(f"parallel.data_parallel_size: {layout.data_parallel * times}{sizes}")
    if (nodes := -(-layout.world // cluster.gpus_per_node)) < cluster.num_nodes:
        ways.append(f"cluster.nodes: {nodes}")
    out = f"; try {', or '.join(ways)}" if ways else ""
    return [f"{idle} of the cluster's {cluster.num_devices} GPUs are idle, the layout has {layout.world}{out}"]


def _network_notes(scenario: Scenario, plan: StepPlan) -> tuple[str, ...]:
    network = scenario.network
    given = f"efficiency {network.efficiency:g}, background {network.background:g}"
    less = [f"links between nodes have {network.left:.3g} of their rates: {given}, assumed"] if network.left < 1 else []
    less += [note for note in (plan.ops.costs.clock_note,) if note]
    less += _unknown_all_reduce(scenario, plan)
    notes = (*plan.dispatch.algorithm.notes, *plan.schedule.notes, *_unknown_startup(scenario, plan))
    return (*less, *(notes if plan.model.routed else ()))


def _unknown_all_reduce(scenario: Scenario, plan: StepPlan) -> list[str]:
    """Said where an engine's own is asked for, would be used, and was not measured on the device."""
    if scenario.comm.all_reduce and plan.layout.tensor_parallel == 1:
        return ["comm.all_reduce changes nothing here: tensor_parallel_size is 1, nothing is summed inside a node"]
    engine = scenario.comm.all_reduce or "nccl"
    if engine == "nccl" or plan.fabric.engine or plan.layout.tensor_parallel == 1:
        return []
    return [f"all_reduce of {engine}: the profile has no table of it, NCCL's stands in: assumed"]


def _unknown_startup(scenario: Scenario, plan: StepPlan) -> list[str]:
    """A kernel whose rates were measured with large messages alone looks better in decode than it is."""
    if scenario.batch.phase != "decode":
        return []
    used = {name: plan.fabric.communication[name] for name in plan.dispatch.algorithm.kernels_in(plan.expert_group)}
    return [
        f"{name}: rates were measured, a start-up was not and is taken as 0: small transfers look too fast"
        for name, cost in used.items()
        if not (cost.alpha or cost.per_message or cost.steps) and cost.efficiency
    ]


def with_kinds(plan: StepPlan, others: Sequence[CostModel]) -> StepPlan:
    """The plan with prices on each of the cluster's other kinds of GPUs."""
    ops = tuple(replace(plan.ops, costs=costs) for costs in others)
    return replace(plan, others=ops, kinds=plan.fabric.cluster.kind_of[: plan.layout.world]) if ops else plan


def _kind_notes(plan: StepPlan) -> list[str]:
    """Said where GPUs are of several kinds."""
    cluster = plan.fabric.cluster
    if not cluster.kinds:
        return []
    profiles = ", ".join(ops.costs.name for ops in (plan.ops, *plan.others))
    return [
        f"GPUs of several kinds ({cluster.kinds}): each computes by its own profile ({profiles}); constants of "
        f"transfers and the host's time are those of {cluster.devices[0].name}, memory is the smallest's; that faster "
        "ranks wait for slower ones with as many rows is ideal compute, imbalance is of rows alone"
    ]


def _costs(loaded: Loaded, device: Device, model: MoEModel, layout: Layout, like: str = "") -> CostModel:
    """Prices on a device of the kernels of one engine, the profile's default for that precision of the experts, or one
    that others run; where experts lie on several ranks, of those that stand behind the dispatch.
    """
    scenario, asked = loaded.scenario, loaded.scenario.costs
    profile, kernels = (asked, None) if isinstance(asked, str) else (asked.profile, asked.kernels)
    dispatch = scenario.comm.dispatch if layout.expert_parallel > 1 else ""
    where = loaded.where("costs")
    width = (model.row_width, model.expert_intermediate // layout.expert_tensor_parallel)
    experts = _precision(scenario, model).experts
    costs = load_costs(
        profile,
        device,
        kernels or like or None,
        precision=experts,
        dispatch=dispatch,
        width=width,
        where=where,
        fp4_block=model.fp4_block,
    )
    return Tables(costs.sustained() if scenario.batch.phase == "train" else costs)


def _precision(scenario: Scenario, model: MoEModel) -> Precision:
    return Precision(
        scenario.precision.weights or model.weight_dtype,
        scenario.precision.experts or scenario.precision.weights or _expert_dtype(model),
        scenario.precision.kv_cache or model.kv_dtype,
    )


def _expert_dtype(model: MoEModel) -> str:
    """Kernel sets are chosen by it: without experts by the weights."""
    return model.expert_dtype if model.routed else model.weight_dtype


def _layout(loaded: Loaded, cluster: Cluster) -> Layout:
    parallel = loaded.scenario.parallel
    world = parallel.tensor_parallel_size * parallel.data_parallel_size
    if world > cluster.num_devices:
        raise BadInput(
            f"tensor_parallel_size x data_parallel_size is {world}, the cluster has {cluster.num_devices} GPUs",
            where=loaded.where("parallel"),
            way_out=f"cluster.nodes: {-(-world // cluster.gpus_per_node)}",
        )
    tensor, expert = parallel.tensor_parallel_size, parallel.expert_parallel_size
    shared = parallel.expert_tensor_parallel_size or default_expert_tensor_parallel(tensor, expert)
    return Layout(world, tensor, expert, shared)


def _places(cluster: Cluster, layout: Layout) -> Places:
    """The nodes of the ranks of one island: those of the first one, as they are all alike."""
    nodes = cluster.node_of[layout.islands()[0]].astype(np.int64)
    return Places(nodes, layout.expert_tensor_parallel)


def _plan(
    loaded: Loaded, model: MoEModel, cluster: Cluster, layout: Layout, placement: Placement,
    routing: RoutingSource, costs: CostModel, log: CostLog,
) -> StepPlan:  # fmt: skip
    scenario = loaded.scenario
    precision = _precision(scenario, model)
    comm = scenario.comm
    algorithm = all_to_all.find(comm.dispatch, where=loaded.where("comm.dispatch"))
    algorithm = algorithm.configured(comm.version, comm.path, where=loaded.where("comm"))
    training = scenario.batch.phase == "train"
    if algorithm.replicates:
        _check_replicates(loaded, layout, training=training)
    spread = Spread.of(model, layout, training=training, replicated=algorithm.replicates)
    group = Group(cluster, layout.expert_groups()[0])
    fabric = Fabric.of(
        cluster, costs.communication, algorithm, group, left=scenario.network.left, engine=comm.all_reduce or "",
        reduces=training or layout.tensor_parallel > 1 or layout.expert_tensor_parallel > 1,
    )  # fmt: skip
    return StepPlan(
        model=model,
        layout=layout,
        placement=placement,
        routing=routing,
        ops=LayerOps(model, costs, precision, spread, log),
        fabric=fabric,
        dispatch=_dispatch(comm, model, fabric, algorithm, group),
        schedule=schedule_of(loaded),
        recompute=frozenset(scenario.training.recompute),
        optimizer=scenario.training.updates,
        host_seconds=costs.host_seconds(scenario.batch.phase, model.num_layers),
        interference=scenario.overlap.interference,
    )


def _check_replicates(loaded: Loaded, layout: Layout, *, training: bool) -> None:
    """Raises BadInput where experts lie on more ranks than have a token."""
    ranks, tensor = layout.expert_parallel * layout.expert_tensor_parallel, layout.tensor_parallel
    where = loaded.where("comm.dispatch")
    if training:
        raise BadInput("replicated is for inference: in training ranks have slices", where=where, way_out="nccl")
    if ranks != tensor:
        what = f"replicated: {ranks} ranks share experts, and {tensor} their tokens"
        way_out = f"parallel.tensor_parallel_size: {ranks}, or dispatch: allgather_reducescatter"
        raise BadInput(what, where=where, way_out=way_out)


def _dispatch(comm: CommSection, model: MoEModel, fabric: Fabric, algorithm: AllToAll, group: Group) -> Dispatch:
    sms = min(device.sms for device in fabric.cluster.devices)
    held = max((fabric.communication[kernel].sms for kernel in algorithm.kernels_in(group)), default=0)
    return Dispatch(
        algorithm,
        row_bytes(model.row_width, comm.dispatch_dtype),
        row_bytes(model.row_width, comm.combine_dtype),
        slowdown=slowdown(algorithm, sms, held),
    )


def _batches(scenario: Scenario, ranks: int) -> tuple[Batch, ...]:
    batch = scenario.batch
    if ranks * batch.tokens_per_gpu > MOST_TOKENS:
        raise BadInput(
            f"{ranks} GPUs x {batch.tokens_per_gpu} are {ranks * batch.tokens_per_gpu} tokens, a step has at most "
            f"{MOST_TOKENS}",
            where="batch.tokens_per_gpu",
            way_out=f"tokens_per_gpu: {MOST_TOKENS // ranks} or less",
        )
    sequences = ranks * batch.tokens_per_gpu // (1 if batch.phase == "decode" else batch.context)
    return tuple(
        uniform_batch(batch.phase, ranks, batch.tokens_per_gpu, batch.context, first_request=number * sequences)
        for number in range(batch.micro_batches)
    )


def with_rows(built: Built, lowered: Lowered) -> Built:
    """The same with the ledger of the rows that the step's fullest rank receives. Raises DoesNotFit."""
    (layer, step), (buffer, buffers) = (
        (int(one.max(initial=0)), int(one.sum(axis=0).max(initial=0))) for one in (lowered.received, lowered.buffers)
    )
    rows = Rows(layer, step, int(lowered.gates.sum()), buffer, buffers)
    return replace(built, memory=fitting_memory(built.scenario, built.plan, rows))
