"""`parallel.plan: auto`: of all degrees that a scenario leaves open, those whose simulated step is the shortest.

Every plan that fits is played, with even rows: nothing is screened out by a rule of thumb. Where a scenario has rows of
its own, the fastest of them are played again with those: even rows are no bound on others, which may be faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from moesim.costs import CostModel
from moesim.errors import BadInput, DoesNotFit, MoesimError
from moesim.hardware import load_cluster
from moesim.layout import HBM
from moesim.models import load_trained
from moesim.studies.training.job import job_of
from moesim.studies.training.load import TrainLoaded
from moesim.studies.training.tokens import are_even, tokens_of
from moesim.training import overlapped_ps, rank_memory, routed_step, train_step
from moesim.units import show_seconds

TIED: Final = 1e-3  # of a step: less than that tells no two plans apart
SHOWN: Final = 10
MOST: Final = 2000
FINALISTS: Final = 8  # plans whose step is played with rows of their own, where a scenario has some
DEGREES: Final = {
    "tensor_parallel_size": "tensor", "pipeline_parallel_size": "pipeline", "data_parallel_size": "data",
    "expert_parallel_size": "expert",
}  # fmt: skip


class Degrees(NamedTuple):
    """One plan."""

    tensor: int
    pipeline: int
    data: int
    expert: int

    @property
    def words(self) -> str:
        """As a warning has it."""
        return f"tensor {self.tensor}, pipeline {self.pipeline}, data {self.data}, expert {self.expert}"

    @property
    def keys(self) -> dict[str, int]:
        """As a scenario has it."""
        return {key: getattr(self, name) for key, name in DEGREES.items()}


class Tried(NamedTuple):
    """A plan that fits: seconds of its step, bytes of its fullest GPU; even: its seconds with even rows."""

    degrees: Degrees
    seconds: float
    bytes: int
    even: float


@dataclass(frozen=True)
class Plans:
    """Those that fit, fastest first; numbers of those that do not, and that no layout has; of how many rows of their
    own were played: those alone are in `fitting` then, and `screened` are all that fit; 0: even ones of all; unplayed:
    why each that is faster with even rows than some of those is not among them.
    """

    fitting: tuple[Tried, ...]
    unfit: int
    refused: int
    screened: int = 0
    unplayed: tuple[str, ...] = ()

    @property
    def tied(self) -> list[Tried]:
        """As fast as the fastest."""
        return [one for one in self.fitting[1:] if one.seconds <= self.fitting[0].seconds * (1 + TIED)]

    @property
    def note(self) -> str:
        """What was chosen, and how near others come."""
        best = self.fitting[0]
        tied = f"; as fast within 0.1 %: {'; '.join(one.degrees.words for one in self.tied)}" if self.tied else ""
        others = [one for one in self.fitting[1:] if one not in self.tied]
        more = f"; the next takes {others[0].seconds / best.seconds - 1:.1%} longer" if others else ""
        of = f"of {self.screened or len(self.fitting)} that fit ({self.unfit} do not, {self.refused} are no layout)"
        few = f", {len(self.fitting)} of them with rows of their own" if self.screened else ""
        why = "; ".join(sorted(set(self.unplayed)))
        few += f", {len(self.unplayed)} not played with rows of their own ({why})" if why else ""
        return f"parallel.plan: {best.degrees.words}, {of}, played with even rows{few}{tied}{more}"

    def to_json(self) -> dict[str, Any]:
        """The fastest ones."""
        plans = [
            {
                **one.degrees.keys,
                "step_time_s": one.seconds,
                "peak_memory_bytes": one.bytes,
                **({"even_step_time_s": one.even} if self.screened else {}),
            }
            for one in self.fitting
        ]
        fit = self.screened or len(plans)
        return {"plans": plans[:SHOWN], "fit": fit, "unfit": self.unfit, "refused": self.refused}


def planned(loaded: TrainLoaded, tell: Callable[[str], None]) -> tuple[TrainLoaded, Plans]:
    """With the degrees of the fastest plan. Raises BadInput, DoesNotFit where none fits."""
    candidates = list(_candidates(loaded))
    if len(candidates) > MOST:
        raise BadInput(f"{len(candidates)} plans; at most {MOST} are played", where=loaded.where("parallel.plan"),
                       way_out="give some degrees")  # fmt: skip
    tell(f"playing up to {len(candidates)} plans")
    tried, costs = list[Tried | MoesimError](), None
    for degrees in candidates:
        found, costs = _tried(loaded, degrees, costs)
        tried.append(found)
    fitting = [one for one in tried if isinstance(one, Tried)]
    short = [one for one in tried if isinstance(one, DoesNotFit)]
    refused = [one for one in tried if isinstance(one, BadInput)]
    if not fitting:
        raise _none(loaded, short, refused)
    plans = _with_rows(loaded, Plans(_fastest(fitting), len(short), len(refused)), costs, tell)
    return with_degrees(loaded, plans.fitting[0].degrees), plans


def _fastest(tried: Iterable[Tried]) -> tuple[Tried, ...]:
    return tuple(sorted(tried, key=lambda one: (one.seconds, one.degrees)))


def _with_rows(loaded: TrainLoaded, plans: Plans, costs: CostModel | None, tell: Callable[[str], None]) -> Plans:
    """FINALISTS of the fastest again, with the rows that the scenario has. Raises BadInput where none is played so."""
    if are_even(loaded, job_of(with_degrees(loaded, plans.fitting[0].degrees), costs)):
        return plans
    played, refused = list[Tried](), list[BadInput]()
    for one in plans.fitting:
        if len(played) == FINALISTS:
            break
        tell(f"{one.degrees.words}: rows of its own")
        try:
            own = with_degrees(loaded, one.degrees)
            job = job_of(own, costs)
            played.append(one._replace(seconds=routed_step(job, tokens_of(own, job, 0)).seconds))
        except BadInput as error:
            refused.append(error)
    if not played:
        raise refused[0]
    left = tuple(error.what for error in refused)
    return replace(plans, fitting=_fastest(played), screened=len(plans.fitting), unplayed=left)


def _tried(
    loaded: TrainLoaded, degrees: Degrees, costs: CostModel | None
) -> tuple[Tried | MoesimError, CostModel | None]:
    """A plan's step, or why there is none; prices that are known then."""
    try:
        job = job_of(with_degrees(loaded, degrees), costs)
        ledger = max((rank_memory(job, rank) for rank in range(job.pipeline)), key=lambda one: one.used(HBM))
        ledger.check()
        seconds = train_step(job, overlapped_ps(job)).seconds
        return Tried(degrees, seconds, ledger.used(HBM), seconds), job.costs
    except DoesNotFit as error:
        return DoesNotFit(f"{degrees.words}: {error.what}", way_out=error.way_out), costs
    except BadInput as error:
        return error, costs


def _none(loaded: TrainLoaded, short: list[DoesNotFit], refused: list[BadInput]) -> MoesimError:
    """The error that says what is there."""
    where = loaded.where("parallel.plan")
    if short:
        return DoesNotFit(
            f"none of {len(short)} plans fits; of {short[-1].what}", where=where, way_out=short[-1].way_out
        )
    if refused:
        return BadInput(f"no plan is a layout; of one: {refused[0].what}", where=where, way_out=refused[0].way_out)
    return BadInput("no plan: no degrees multiply to the cluster's GPUs with whole micro-batches", where=where,
                    way_out="another batch.global_batch_size, or fewer degrees that are given")  # fmt: skip


def with_degrees(loaded: TrainLoaded, degrees: Degrees) -> TrainLoaded:
    """The same scenario with a plan."""
    parallel = loaded.scenario.parallel.model_copy(update={**degrees.keys, "plan": None})
    return replace(loaded, scenario=loaded.scenario.model_copy(update={"parallel": parallel}))


def _candidates(loaded: TrainLoaded) -> Iterator[Degrees]:
    """All degrees that multiply to the cluster's GPUs; of tensor parallelism inside a node, whole micro-batches."""
    scenario = loaded.scenario
    asked, batch, given = scenario.parallel, scenario.batch, scenario.parallel.model_fields_set
    with loaded.placing("model"):
        model = load_trained(scenario.model, scenario.dtype)
    with loaded.placing("cluster"):
        cluster = load_cluster(scenario.cluster.topology, **scenario.cluster.changes)
    for tensor in _divisors(cluster.gpus_per_node):
        slices = tensor * asked.context_parallel_size
        for pipeline in _divisors(cluster.num_devices // slices if cluster.num_devices % slices == 0 else 0):
            data = cluster.num_devices // (slices * pipeline)
            whole = (batch.global_batch_size or 0) % (data * batch.micro_batch_size) == 0
            for expert in _divisors(model.num_experts if model.routed else 1):
                found = Degrees(tensor, pipeline, data, expert)
                kept = all(getattr(asked, key) == value for key, value in found.keys.items() if key in given)
                hidden = scenario.pipeline.hide_alltoall and expert == 1
                if whole and kept and not hidden and expert <= slices * data:
                    yield found


def _divisors(number: int) -> list[int]:
    return [one for one in range(1, number + 1) if number % one == 0]


def chosen(plans: Plans) -> str:
    """For people who wait."""
    return f"{plans.fitting[0].degrees.words}: {show_seconds(plans.fitting[0].seconds)}"
