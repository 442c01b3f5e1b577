"""A training scenario -> the Job that it describes, checked."""

from __future__ import annotations

from moesim.costs import CostModel, Tables, load_costs
from moesim.errors import BadInput, DoesNotFit
from moesim.hardware import Cluster, load_cluster, refuse_mixed
from moesim.layout import default_expert_tensor_parallel
from moesim.models import DTYPE_BYTES, Attention, MoEModel, load_trained
from moesim.network import all_to_all
from moesim.schedules.pipelines import find_pipeline
from moesim.studies.dense import refuse_experts
from moesim.studies.scenario import ClusterSection
from moesim.studies.training.load import TrainLoaded
from moesim.training import Job


def job_of(loaded: TrainLoaded, priced: CostModel | None = None) -> Job:
    """What a scenario describes; priced: its prices, where they are known. Raises BadInput, DoesNotFit."""
    scenario = loaded.scenario
    degrees, batch = scenario.parallel, scenario.batch
    with loaded.placing("model"):
        model = load_trained(scenario.model, scenario.dtype)
    _check_names(loaded, model)
    tensor, expert, pipeline = (
        degrees.tensor_parallel_size,
        degrees.expert_parallel_size,
        degrees.pipeline_parallel_size,
    )
    stage = tensor * degrees.context_parallel_size * degrees.data_parallel_size
    with loaded.placing("cluster"):
        refuse_mixed(scenario.cluster.topology, "mode: train")
        cluster = _cluster(scenario.cluster, stage, pipeline)
    with loaded.placing("costs"):
        profile, kernels = (
            (scenario.costs, None)
            if isinstance(scenario.costs, str)
            else (scenario.costs.profile, scenario.costs.kernels)
        )
        costs = priced or Tables(load_costs(profile, cluster.devices[0], kernels, precision=scenario.dtype).sustained())
    with loaded.placing("parallel"):
        return Job(
            model=model, cluster=cluster, costs=costs, world=stage * pipeline, micro_batches=_micro_batches(loaded),
            sequence=batch.sequence_length, sequences=batch.micro_batch_size, tensor=tensor,
            context=degrees.context_parallel_size, pipeline=pipeline, expert=expert,
            expert_tensor=degrees.expert_tensor_parallel_size or default_expert_tensor_parallel(tensor, expert),
            order=scenario.pipeline.schedule, chunks=degrees.virtual_pipeline_size, precision=scenario.dtype,
            dispatch=scenario.comm.dispatch, dispatch_dtype=scenario.comm.dispatch_dtype,
            combine_dtype=scenario.comm.combine_dtype, overlap=scenario.pipeline.hide_alltoall,
            stage_layers=tuple(degrees.stage_layers), recompute=frozenset(scenario.training.recompute),
            zero=degrees.zero_stage, shard=degrees.data_parallel_shard_size,
            reduce_beside=scenario.training.overlap_grad_reduce, gather_beside=scenario.training.overlap_param_gather,
            gradient_bytes=round(DTYPE_BYTES[scenario.training.gradients]), limit=scenario.training.limit,
            optimizer=scenario.training.updates,
        )  # fmt: skip


def _micro_batches(loaded: TrainLoaded) -> int:
    """Of a step, on each replica. Raises BadInput."""
    batch, data = loaded.scenario.batch, loaded.scenario.parallel.data_parallel_size
    if batch.global_batch_size is None:
        return batch.micro_batches
    number, rest = divmod(batch.global_batch_size, batch.micro_batch_size * data)
    if rest or not number:
        each = batch.micro_batch_size * data
        what = f"{batch.global_batch_size} sequences are no multiple of micro_batch_size x data_parallel_size, {each}"
        raise BadInput(what, where=loaded.where("batch.global_batch_size"),
                       way_out=f"{max(number, 1) * each} or {(number + 1) * each}")  # fmt: skip
    if number == 1 and loaded.scenario.pipeline.hide_alltoall:
        what = f"{batch.global_batch_size} sequences are one micro-batch on each replica, and hide_alltoall needs two"
        raise BadInput(what, where=loaded.where("batch.global_batch_size"),
                       way_out=f"{2 * batch.global_batch_size}, or leave pipeline.hide_alltoall out")  # fmt: skip
    return number


def _check_names(loaded: TrainLoaded, model: MoEModel) -> None:
    """Raises BadInput for names that are not known, or not in training, and keys that have nothing to act on."""
    scenario = loaded.scenario
    with loaded.placing("pipeline.schedule"):
        find_pipeline(scenario.pipeline.schedule)
    with loaded.placing("comm.dispatch"):
        if all_to_all.find(scenario.comm.dispatch).replicates:
            raise BadInput("replicated is for inference: in training ranks have slices", way_out="nccl")
    latent = any(isinstance(mixer, Attention) and mixer.kind == "mla" for mixer, _ in model.mixed)
    if "mla_up_proj" in scenario.training.recompute and not latent:
        raise BadInput(f"{model.name} has no latent attention: mla_up_proj has nothing to act on",
                       where=loaded.where("training.recompute"), way_out="leave it out")  # fmt: skip
    if not model.routed:
        refuse_experts(loaded, model, "moe" in scenario.training.recompute)


def _cluster(asked: ClusterSection, stage: int, pipeline: int) -> Cluster:
    """Nodes of one stage and of the next one's first rank: stages are alike, so that the links of all others are too.
    Where the fabric is changed, all of it. Raises BadInput, DoesNotFit.
    """
    changes, world = asked.changes, stage * pipeline
    one = (
        load_cluster(asked.topology, nodes=1) if set(changes) == {"nodes"} else load_cluster(asked.topology, **changes)
    )
    each = one.gpus_per_node
    total = changes["nodes"] * each if set(changes) == {"nodes"} else one.num_devices
    if world > total:
        raise DoesNotFit(
            f"the degrees multiply to {world} GPUs, the cluster has {total}",
            where="parallel", way_out=f"cluster.nodes: {-(-world // each)}",
        )  # fmt: skip
    if set(changes) != {"nodes"}:
        return one
    return load_cluster(asked.topology, nodes=-(-min(stage + 1, world) // each))
