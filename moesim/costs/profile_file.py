"""The files of a profile: YAML with the parameters of fitted forms, and the residual grids beside it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from moesim import shipped, yamlfile
from moesim.costs.estimate import Basis
from moesim.costs.form import Form
from moesim.costs.grid import ResidualGrid, read_grids
from moesim.costs.shapes import KINDS, WEIGHT_BYTES, tiles_of
from moesim.errors import BadInput, pick
from moesim.units import Bandwidth, ByteCount, Flops, Seconds
from moesim.yamlfile import Items, Section

FOLDER = "calibration/profiles"
EARLIER = (1, 2)  # versions of the file whose residual grids were others
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
    prior: str = Field("", description="kernel of another profile that few measurements corrected")
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
        known = self.tile in tiles_of(self.kind) and self.dtype in WEIGHT_BYTES
        if not known or self.interval[0] > self.interval[1]:
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
    activation: ElementwiseSection | None = Field(None, description="between bare grouped GEMMs, one fused kernel")
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


def known_profiles() -> dict[str, Path]:
    """name -> file of the shipped profiles."""
    return shipped.names(FOLDER, ".yaml")


def read_profile(path: Path) -> tuple[ProfileSection, dict[str, ResidualGrid]]:
    """A profile's YAML file, and the grids beside it; read once, as long as neither changes. Raises BadInput where they
    do not belong together.
    """
    return _read(path, _stamp(path), _stamp(path.with_suffix(".parquet")))


def _stamp(path: Path) -> tuple[int, int] | None:
    """When it was written and how long it is; None where there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=8)
def _read(path: Path, *stamps: tuple[int, int] | None) -> tuple[ProfileSection, dict[str, ResidualGrid]]:
    section = read_section(path)
    grids = read_grids(path.with_suffix(".parquet"), section.grids)
    if set(grids) != set(section.operators):
        raise BadInput("its operators are not those of its residual grids", where=path, way_out="both files of one fit")
    return section, grids


def read_section(path: Path) -> ProfileSection:
    """What a profile's YAML file says. Raises BadInput."""
    return yamlfile.read_yaml(path).validate(ProfileSection)
