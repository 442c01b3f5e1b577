"""`moesim validate all`: every operator that a scenario can reach, with the figure that stands beside it, or none.

A figure is published (a suite's predictions beside it) or measured (rows held out of a profile's fit; of all shipped
profiles the one with the largest error). An operation without a figure was once wrong by 10x, so it is printed as
`no figure` and not left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from moesim.costs.profile_file import HeldOut, known_profiles, read_section
from moesim.network import ENGINES, all_to_all
from moesim.studies.validation.validation import Validation, errors

COMPUTE: Final = {  # operator of a step -> operator of a profile
    "dense GEMM": "gemm", "experts": "grouped_gemm", "attention, prefill": "attention_prefill",
    "attention, decode": "attention_decode", "attention of encoders": "attention_encoder",
    "latent attention, prefill": "mla_prefill", "latent attention, decode": "mla_decode",
    "absorbed projections": "absorbed", "sparse attention's module, prefill": "dsa_prefill",
    "sparse attention's module, decode": "dsa_decode", "gated delta net, prefill": "gdn_prefill",
    "gated delta net, decode": "gdn_decode", "Kimi delta attention, prefill": "kda_prefill",
    "Kimi delta attention, decode": "kda_decode", "causal convolution, prefill": "conv_prefill",
    "causal convolution, decode": "conv_decode", "compressed attention's module (CSA), prefill": "csa_prefill",
    "compressed attention's module (CSA), decode": "csa_decode",
    "compressed attention's module (HCA), prefill": "hca_prefill",
    "compressed attention's module (HCA), decode": "hca_decode",
    "picked blocks' module, prefill": "msa_prefill", "picked blocks' module, decode": "msa_decode",
    "hyper-connections, before a block": "hyper_pre", "hyper-connections, behind a block": "hyper_post",
}  # fmt: skip
OWN: Final = ("nvlink_domain",)  # whose held-out errors a profile has under their own name
COLLECTIVES: Final = ("all_reduce", "all_gather", "reduce_scatter")
SUITE_OF: Final = {
    "deepep_normal": ("network", "normal"),
    "deepep_low_latency": ("network", "low_latency"),
    "nccl": ("collectives", "all_to_all"),
    "replicated": ("collectives", "all_reduce"),  # all that it sends
} | {op: ("collectives", op) for op in COLLECTIVES}
PHASES: Final = ("decode", "prefill")  # of the shipped scenarios with a published figure
TRAINING: Final = {
    "whole step, train": "time",
    "whole step, train, of recipes": "throughput",
    "memory ledger, pipelined training": "memory",
}
NOT_PLAYED: Final = ("not played", "--steps plays the published scenarios")
BARE: Final = (  # no table of any kind stands beside them
    "Mamba-1 and Mamba-2 scans, lightning attention", "elementwise (norms, activations, optimizer)", "backward pass",
    "host", "SMs held by communication kernels", "memory ledger, all other steps",
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """kind: "published", "held out", "not played" or "no figure"; typical, worst: absolute relative errors (mean and
    largest of published points, median and 90th percentile of held-out rows); of: what it is compared with.
    """

    operator: str
    kind: str
    of: str = ""
    points: int | None = None
    typical: float | None = None
    worst: float | None = None


@dataclass(frozen=True)
class Everything:
    """One row an operator, and the errors of each suite."""

    figures: tuple[Figure, ...]
    suites: Mapping[str, Validation]

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        bare = sum(one.kind == "no figure" for one in self.figures)
        counts = {"operators": len(self.figures), "operators_without_figure": bare}
        return {
            "metrics": {name: {"value": value, "unit": "1"} for name, value in counts.items()},
            "breakdown": {name: suite.breakdown() for name, suite in self.suites.items()},
            "provenance": {"suite": "all", "figures": [asdict(one) for one in self.figures]},
            "warnings": [text for suite in self.suites.values() for text in suite.warnings],
        }


def everything(suites: Mapping[str, Validation]) -> Everything:
    """Join the suites, the held-out errors of shipped profiles, and what has neither."""
    return Everything(tuple(_figures(suites)), suites)


def _figures(suites: Mapping[str, Validation]) -> Iterator[Figure]:
    profiles = {name: read_section(path) for name, path in known_profiles().items()}
    held = {name: one for name, one in profiles.items() if one.device_class == "cuda"}  # the other is an example
    for operator, key in COMPUTE.items():
        yield _held_out(operator, {name: one.heldout[key] for name, one in held.items() if key in one.heldout})
    yield from _experts_of_users(suites)
    for name in ENGINES:
        yield _all_reduce_of(name, {profile: one.heldout_communication for profile, one in held.items()})
    for operator in (*sorted(all_to_all.REGISTRY), *COLLECTIVES):
        yield _transfer(operator, suites, {name: one.heldout_communication for name, one in held.items()})
    for phase in PHASES:
        step = f"whole step, {phase}"
        yield _of_suite(step, suites, "steps", phase) or Figure(step, *NOT_PLAYED)
    for operator, key in TRAINING.items():
        yield _of_suite(operator, suites, "training", key) or Figure(operator, "no figure")
    yield from (Figure(operator, "no figure") for operator in BARE)


def _experts_of_users(suites: Mapping[str, Validation]) -> Iterator[Figure]:
    """Expert kernels as users measured them, beside the rows that are held out of the tables a profile is made of."""
    if "kernels" in suites:
        total = errors(point.error for point in suites["kernels"].points)
        shown = (int(total["points"]), total["mean_abs_error"], total["max_abs_error"])
        yield Figure("experts, users' figures", "published", "validate kernels", *shown)


def _transfer(operator: str, suites: Mapping[str, Validation], held: Mapping[str, Mapping[str, HeldOut]]) -> Figure:
    suite, key = SUITE_OF.get(operator, ("", ""))
    table = operator if operator in OWN else f"{'all_to_all' if operator == 'nccl' else operator}/nccl/NCCL/bf16"
    measured = {name: tables[table] for name, tables in held.items() if table in tables}
    return _of_suite(operator, suites, suite, key) or _held_out(operator, measured)


def _all_reduce_of(engine: str, held: Mapping[str, Mapping[str, HeldOut]]) -> Figure:
    """An engine's own inside a node, on a world size that was left out of its fit."""
    measured = {
        profile: one
        for profile, tables in held.items()
        for name, one in tables.items()
        if name.startswith(f"all_reduce/{engine}/") and not name.endswith("/eager")
    }
    return _held_out(f"all_reduce of {engine}, in a node", measured)


def _of_suite(operator: str, suites: Mapping[str, Validation], suite: str, key: str) -> Figure | None:
    found = suites[suite].breakdown().get(key) if suite in suites else None
    if found is None:
        return None
    name = f"validate {suite}, {key}"
    return Figure(operator, "published", name, int(found["points"]), found["mean_abs_error"], found["max_abs_error"])


def _held_out(operator: str, held: Mapping[str, HeldOut]) -> Figure:
    if not held:
        return Figure(operator, "no figure")
    name = max(held, key=lambda one: held[one].median)
    of = f"rows held out of {len(held)} profiles, worst {name}"
    return Figure(operator, "held out", of, None, held[name].median, held[name].p90)
