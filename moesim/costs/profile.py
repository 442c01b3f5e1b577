"""Profile: a CostModel read from a YAML file of fitted forms. numpy is all it needs to answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from moesim import shipped, yamlfile
from moesim.costs import shapes
from moesim.costs.communication import CommunicationCost, Steps
from moesim.costs.estimate import Basis, Estimate
from moesim.costs.form import Form
from moesim.costs.grid import ResidualGrid, read_grids
from moesim.costs.recurrences import demands_of
from moesim.costs.shapes import KINDS, TILES, WEIGHT_BYTES
from moesim.errors import BadInput, pick, unknown_name
from moesim.models import Attention, Linear
from moesim.units import Bandwidth, ByteCount, Flops, Seconds
from moesim.yamlfile import Items, Section

FOLDER = "calibration/profiles"
EARLIER = (1, 2)  # versions of the file whose residual grids were others
UNMEASURED = "roofline/peak rates: nobody measured it"  # in place of a kernel's name
UNMEASURED_FAMILY, UNMEASURED_SPREAD = (
    "unmeasured kernels",
    0.4,
)  # measured kernels of the profiles reach 1/3 to all of it
HULL_SLACK = 1e-3  # of an octave
REACH = NormalDist().inv_cdf(0.9)  # standard deviations from the median to the end of an 80 % interval
FAMILIES = {
    "gemm": "gemm", "experts": "grouped_gemm", "gqa_prefill": "attention", "gqa_decode": "attention",
    "mla_prefill": "attention", "mla_decode": "attention", "conv_prefill": "recurrence", "conv_decode": "recurrence",
    "gdn_prefill": "recurrence", "gdn_decode": "recurrence", "kda_prefill": "recurrence", "kda_decode": "recurrence",
}  # fmt: skip
Fraction = Annotated[float, Field(gt=0, le=1)]
Pair = Annotated[tuple[float, float], Field(strict=False)]


class HeldOut(Section):
    """Absolute relative errors on shapes that the fit had not seen; `all_`: rows that beat physics included."""

    median: float = Field(ge=0)
    p90: float = Field(ge=0)
    all_median: float = Field(ge=0)
    all_p90: float = Field(ge=0)
    coverage: float = Field(ge=0, le=1, description="of the 80 % interval, each fold in that of the others")


class OperatorSection(Section):
    """One kernel and dtype: the form's parameters, what it was fitted on, and how well."""

    op: str
    kind: str
    dtype: str
    cache_dtype: str = ""
    kernel: str
    backend: str
    version: str
    bare: bool = Field(False, description="a grouped GEMM alone, not the whole FFN of the experts")
    launch: Seconds
    flops_per_second: Flops
    bytes_per_second: Bandwidth
    norm: float = Field(ge=0.25, le=32)
    each: Items[Seconds] = ()
    tile: int = Field(16, ge=1)
    hull: dict[str, Pair] = Field(description="least and largest measured value of each coordinate")
    basis: Basis
    rows: int = Field(ge=1, description="measurements it was fitted on")
    beats_physics: int = Field(ge=0, description="measurements left out because no device can be that fast")
    too_slow: int = Field(0, ge=0, description="measurements left out because nothing explains that they are so slow")
    other_labels: int = Field(ge=0, description="measurements left out as throttled, drifted, sentinels ...")
    held_out_by: Literal["shape", "size"] = Field(description="size where the records know a single shape")
    heldout: HeldOut
    interval: Pair = Field(description="ln(measured / predicted) between which 80 % of held-out rows lie")
    heldout_width: HeldOut | None = Field(None, description="errors with whole widths left out")
    beyond: Pair | None = Field(None, description="as interval, with whole ranges left out: beyond the hull")
    peak: Flops = Field(description="FLOP/s that no estimate exceeds")

    @model_validator(mode="before")
    @classmethod
    def _of_version_3(cls, data: object) -> object:
        """GEMMs of version 3 tell odd from round numbers of rows."""
        aligned = isinstance(data, dict) and data.get("kind") == "gemm" and "alignment" in data.get("hull", {})
        return {**data, "kind": "gemm_aligned"} if aligned else data  # type: ignore[dict-item]

    @model_validator(mode="after")
    def _suits_its_kind(self) -> OperatorSection:
        kind = pick("kind", self.kind, KINDS)
        if set(self.hull) != set(kind.coordinates) or any(not 0 < low <= high for low, high in self.hull.values()):
            raise ValueError(f"the hull must give a range above 0 of each of {', '.join(kind.coordinates)}")
        if len(self.each) != len(kind.counts):
            raise ValueError(f"each must give seconds of {', '.join(kind.counts) or 'nothing'}")
        if self.tile not in TILES or self.dtype not in WEIGHT_BYTES or self.interval[0] > self.interval[1]:
            raise ValueError(f"tile {self.tile}, dtype {self.dtype} or interval {self.interval} cannot be")
        return self

    @property
    def form(self) -> Form:
        """What the grid corrects."""
        return Form(self.launch, self.flops_per_second, self.bytes_per_second, self.norm, self.each)


class ElementwiseSection(Section):
    """Kernels that only move bytes."""

    launch: Seconds
    bytes_per_second: Bandwidth
    basis: Basis
    source: str


class StepsSection(Section):
    """See Steps. Equally many bytes and alpha, bytes ascending."""

    op: Literal["all_to_all", "all_gather", "reduce_scatter", "all_reduce", "broadcast", "point_to_point"]
    ranks: int = Field(ge=2)
    bytes: Items[ByteCount] = Field(min_length=1)
    alpha: Items[Seconds]

    @model_validator(mode="after")
    def _one_table(self) -> StepsSection:
        if len(self.bytes) != len(self.alpha) or sorted(set(self.bytes)) != list(self.bytes):
            raise ValueError(f"{len(self.bytes)} bytes and {len(self.alpha)} alpha are no table with ascending bytes")
        return self


class CommunicationSection(Section):
    """See CommunicationCost."""

    alpha: Seconds
    per_message: Seconds = 0.0
    per_crossing: Seconds = 0.0
    steps: Items[StepsSection] = ()
    efficiency: dict[str, Fraction] = Field(default_factory=dict)
    sms: int = Field(0, ge=0)
    sm_rate: Bandwidth = 0.0
    spread: float = Field(0.0, ge=0, description="standard deviation of the logarithm of held-out errors")
    device: str = Field("", description="on which it was measured")
    basis: Basis
    source: str


class SustainedSection(Section):
    """What power leaves of the clock of short measurements when a device computes without a pause. HBM has a clock of
    its own, which power does not touch.
    """

    clock: Fraction
    source: str


class HostSection(Section):
    """Host time that no kernel hides, per step and per layer, by phase."""

    per_step: Seconds
    per_layer: Seconds
    source: str


class ProfileSection(Section):
    """A profile file. kernels: set -> role (gemm.bf16, experts.fp8, mla_decode.bf16 ...) -> one of operators."""

    moesim_profile: Literal[3, 4]
    name: str = Field(min_length=1)
    device: str = Field(min_length=1)
    device_class: Literal["cuda", "cpu"]
    source: str = Field(min_length=1)
    default_kernels: dict[str, str] = Field(min_length=1, description="precision of the experts -> kernel set")
    kernels: dict[str, dict[str, str]]
    operators: dict[str, OperatorSection]
    grids: str = Field(pattern="^[0-9a-f]{64}$", description="sha256 of the Parquet file with the residual grids")
    memory_bandwidth: Bandwidth
    cache: ByteCount = Field(description="last-level cache, whose content may be read faster than memory")
    heldout: dict[str, HeldOut] = Field(description="by operator, all kernels of the sets together")
    heldout_communication: dict[str, HeldOut] = Field(description="collectives by world size, DeepEP by shape")
    elementwise: ElementwiseSection
    families: dict[str, Annotated[float, Field(ge=0)]] = Field(
        description="error families without operators: standard deviation of the logarithm"
    )
    backward: dict[str, Annotated[float, Field(gt=0)]]
    backward_source: str
    communication: dict[str, CommunicationSection]
    host: dict[Literal["decode", "prefill", "train"], HostSection]
    sustained: SustainedSection | None = None
    notes: Items[str] = ()

    @field_validator("default_kernels", mode="before")
    @classmethod
    def _one_for_all(cls, default: object) -> object:
        """Version 3 has one default whatever the precision."""
        return {"": default} if isinstance(default, str) else default

    @field_validator("moesim_profile", mode="before")
    @classmethod
    def _of_this_version(cls, version: object) -> object:
        if version in EARLIER:
            raise ValueError(f"{version} is of an earlier moesim: `moesim calibrate fit` its records again")
        return version

    @model_validator(mode="after")
    def _sets_name_operators(self) -> ProfileSection:
        for name in self.default_kernels.values():
            if name not in self.kernels:
                raise ValueError(f"default_kernels {name!r} is none of {', '.join(self.kernels)}")
        missing = {one for roles in self.kernels.values() for one in roles.values()} - set(self.operators)
        if missing:
            raise ValueError(f"kernels name {sorted(missing)[0]!r}, which is no operator")
        return self


class Profile:
    """Forms times residual grids of one device, and one of its kernel sets. `borrowed` marks a profile used on another
    device: all is assumed. Behind a `dispatch` whose experts were measured on their own, those answer for the shapes
    that they were measured on.
    """

    def __init__(
        self, section: ProfileSection, grids: Mapping[str, ResidualGrid], kernels: str, *, borrowed: bool,
        dispatch: str = "", width: tuple[int, int] | None = None, clock: float = 1.0,
    ) -> None:  # fmt: skip
        self._section, self._grids, self._borrowed, self._clock = section, grids, borrowed, clock
        self._dispatch, self._width = dispatch, width
        self._roles = section.kernels[kernels]
        self.name, self.device, self.kernels = section.name, section.device, kernels
        self.backward: Mapping[str, float] = section.backward
        self.families: Mapping[str, float] = {
            **section.families,
            **self._spreads(),
            UNMEASURED_FAMILY: UNMEASURED_SPREAD,
        }
        self.widens: Mapping[str, float] = self._widening()
        self.communication: Mapping[str, CommunicationCost] = {
            name: _communication(cost) for name, cost in section.communication.items()
        }

    def sustained(self) -> Profile:
        """See CostModel."""
        slower, chosen = self._section.sustained, (self._dispatch, self._width)
        if slower is None:
            return self
        return Profile(self._section, self._grids, self.kernels, borrowed=self._borrowed, dispatch=chosen[0],
                       width=chosen[1], clock=slower.clock)  # fmt: skip

    @property
    def clock_note(self) -> str:
        """See CostModel."""
        slower = self._section.sustained
        if slower is None or self._clock == 1.0:
            return ""
        return f"arithmetic at {slower.clock:g} of the clock of short measurements: {slower.source}"

    def gemm(self, m: npt.ArrayLike, n: int, k: int, dtype: str) -> Estimate:
        """See CostModel."""
        role = f"gemm.{dtype}"
        _, section = self._operator(role)
        return self._estimate(role, "gemm", shapes.gemm(m, n, k, section.dtype, section.tile, section.kind))

    def experts(
        self, rows: npt.ArrayLike, hidden: int, inter: int, dtype: str, matrices: int,
        choices: npt.ArrayLike | None = None,
    ) -> Estimate:  # fmt: skip
        """See CostModel."""
        facts = shapes.rows_of(rows, self.expert_tile(dtype))
        return self.experts_of(facts, hidden, inter, dtype, matrices, choices)

    def expert_tile(self, dtype: str) -> int:
        """See CostModel."""
        return self._operator(self._experts_role(dtype))[1].tile

    def experts_of(
        self, rows: shapes.Rows, hidden: int, inter: int, dtype: str, matrices: int,
        choices: npt.ArrayLike | None = None,
    ) -> Estimate:  # fmt: skip
        """See CostModel."""
        role = self._experts_role(dtype)
        _, section = self._operator(role)
        if not section.bare:
            passing = None if "@" in role else choices
            demand = shapes.experts(rows, hidden, inter, section.dtype, matrices, passing)
            return self._estimate(role, "grouped_gemm", demand)
        up, down = (
            self._estimate(role, "grouped_gemm", shapes.experts(rows, *shape, section.dtype, 1, choices))
            for shape in ((hidden, (matrices - 1) * inter), (inter, hidden))
        )
        return replace(
            up,
            seconds=up.seconds + down.seconds,
            outside=up.outside | down.outside,
            flops=np.add(up.flops, down.flops),
            bytes=np.add(up.bytes, down.bytes),
        )

    def attention(
        self, phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention,
        heads: int, dtype: str,
    ) -> Estimate:  # fmt: skip
        """See CostModel."""
        kind = "mla" if shape.kind == "mla" else "gqa"
        role = f"{kind}_{phase}.{dtype}"
        _, section = self._operator(role)
        demand = shapes.attention_of(shape, phase, query, context, requests, heads, section.cache_dtype)
        return self._estimate(role, "attention", demand)

    def recurrence(
        self, phase: str, query: npt.ArrayLike, requests: npt.ArrayLike, shape: Linear, ways: int
    ) -> tuple[Estimate, ...]:
        """See CostModel. A kernel that was not measured is as fast as physics lets it be, and assumed."""
        return tuple(
            self._estimate(f"{role}.bf16", "recurrence", demand)
            if f"{role}.bf16" in self._roles
            else self._roofline(f"{role}.bf16", demand)
            for role, demand in demands_of(shape, phase, query, requests, ways).items()
        )

    def _roofline(self, role: str, demand: shapes.Demand) -> Estimate:
        """What peaks of arithmetic and memory say: no kernel is faster, and few reach it."""
        peak = self._clock * max(one.peak for one in self._section.operators.values() if one.dtype == "bf16")
        seconds = np.maximum(demand.flops / peak, demand.bytes / self._section.memory_bandwidth)
        nowhere = np.zeros(seconds.shape, dtype=np.bool_)
        return Estimate(seconds, UNMEASURED_FAMILY, "assumed", nowhere, role, UNMEASURED, flops=demand.flops,
                        bytes=demand.bytes)  # fmt: skip

    def elementwise(self, moved: npt.ArrayLike) -> Estimate:
        """See CostModel."""
        nbytes = np.asarray(moved, dtype=np.float64)
        section = self._section.elementwise
        seconds = np.where(nbytes > 0, section.launch + nbytes / section.bytes_per_second, 0.0)
        basis: Basis = "assumed" if self._borrowed else section.basis
        return Estimate(seconds, "elementwise", basis, np.zeros(nbytes.shape, dtype=np.bool_), bytes=nbytes)

    def host_seconds(self, phase: str, layers: int) -> float:
        """See CostModel."""
        host = self._section.host[phase]  # type: ignore[index]
        return host.per_step + layers * host.per_layer

    def _spreads(self) -> dict[str, float]:
        """Error family -> standard deviation of the logarithm, the mean over the set's kernels: half the conformal 80 %
        interval, as that of a normal.
        """
        widths: dict[str, list[float]] = {}
        for role, name in self._roles.items():
            low, high = self._section.operators[name].interval
            widths.setdefault(FAMILIES[role.partition(".")[0]], []).append((high - low) / 2 / REACH)
        return {family: sum(found) / len(found) for family, found in sorted(widths.items())}

    def _widening(self) -> dict[str, float]:
        """Error family -> how many times its spread beyond the hull, the mean over the set's kernels that were judged
        with whole ranges left out; never less than 1.
        """
        wider: dict[str, list[float]] = {}
        for role, name in self._roles.items():
            one = self._section.operators[name]
            if one.beyond is not None:
                inside = max((one.interval[1] - one.interval[0]) / 2, 1e-9)
                wider.setdefault(FAMILIES[role.partition(".")[0]], []).append(max(*map(abs, one.beyond)) / inside)
        return {family: max(sum(found) / len(found), 1.0) for family, found in sorted(wider.items())}

    def _experts_role(self, dtype: str) -> str:
        """The experts behind the dispatch, where they were measured at the width; otherwise those of the engine."""
        own = f"experts.{dtype}@{self._dispatch}"
        if own in self._roles:
            hull = self._section.operators[self._roles[own]].hull
            if self._width is None or all(map(_within, (hull["hidden"], hull["inter"]), self._width)):
                return own
        return f"experts.{dtype}"

    def _operator(self, role: str) -> tuple[str, OperatorSection]:
        """The operator that plays a role in the chosen kernel set. Raises BadInput."""
        name = self._roles.get(role)
        if name is None:
            known = ", ".join(sorted(self._roles))
            raise BadInput(
                f"profile {self.name} has no {role} among its {self.kernels} kernels",
                way_out=f"another precision or kernel set ({', '.join(self._section.kernels)}); it has {known}",
            )
        return name, self._section.operators[name]

    def _estimate(self, role: str, family: str, demand: shapes.Demand) -> Estimate:
        """The form times its grid, never faster than physics."""
        name, section = self._operator(role)
        seconds = section.form.at_clock(self._clock).seconds(demand) * self._grids[name].at(demand.coordinates)
        memory = np.where(demand.bytes > self._section.cache, demand.bytes / self._section.memory_bandwidth, 0.0)
        bound = np.maximum(demand.flops / section.peak, memory)
        basis: Basis = "assumed" if self._borrowed else section.basis
        dtype = "bf16" if family == "attention" else shapes.ARITHMETIC.get(section.dtype, section.dtype)
        return Estimate(
            np.maximum(seconds, bound), family, basis, _outside(section, demand), role=role, kernel=name,
            flops=demand.flops, bytes=demand.bytes, dtype=dtype,
        )  # fmt: skip


def _within(ends: tuple[float, float], value: float) -> bool:
    return bool(ends[0] * 2**-HULL_SLACK <= value <= ends[1] * 2**HULL_SLACK)


def _outside(section: OperatorSection, demand: shapes.Demand) -> npt.NDArray[np.bool_]:
    """bool[...]: work to do that lies beyond what was measured, in any coordinate."""
    beyond = np.zeros(demand.bytes.shape, dtype=np.bool_)
    for name, values in zip(KINDS[section.kind].coordinates, demand.coordinates, strict=True):
        low, high = section.hull[name]
        beyond = beyond | (values < np.log2(low) - HULL_SLACK) | (values > np.log2(high) + HULL_SLACK)
    return np.asarray(beyond & (demand.bytes > 0), dtype=np.bool_)


def _communication(section: CommunicationSection) -> CommunicationCost:
    steps = tuple(Steps(**table.model_dump()) for table in section.steps)
    return CommunicationCost(**section.model_dump(exclude={"steps"}), steps=steps)


def known_profiles() -> dict[str, Path]:
    """name -> file of the shipped profiles."""
    return shipped.names(FOLDER, ".yaml")


def load_profile(
    path: Path, device_name: str, kernels: str | None = None, *, precision: str = "", dispatch: str = "",
    width: tuple[int, int] | None = None, where: str = "",
) -> Profile:  # fmt: skip
    """A profile and one of its kernel sets, None: its default for experts of that precision, or for the first that it
    knows. Used on another device, all it says is assumed.

    Raises BadInput.
    """
    section, grids = read_profile(path)
    chosen = kernels or section.default_kernels.get(precision) or next(iter(section.default_kernels.values()))
    if chosen not in section.kernels:
        raise unknown_name("kernel set", chosen, section.kernels, where=where or path)
    return Profile(section, grids, chosen, borrowed=section.device != device_name, dispatch=dispatch, width=width)


def read_profile(path: Path) -> tuple[ProfileSection, dict[str, ResidualGrid]]:
    """A profile's YAML file, and the grids beside it. Raises BadInput where they do not belong together."""
    section = read_section(path)
    grids = read_grids(path.with_suffix(".parquet"), section.grids)
    if set(grids) != set(section.operators):
        raise BadInput("its operators are not those of its residual grids", where=path, way_out="both files of one fit")
    return section, grids


def read_section(path: Path) -> ProfileSection:
    """What a profile's YAML file says. Raises BadInput."""
    return yamlfile.read_yaml(path).validate(ProfileSection)
