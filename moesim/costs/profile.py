"""Profile: a CostModel read from a YAML file of fitted forms. numpy is all it needs to answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from moesim import shipped, yamlfile
from moesim.costs import shapes
from moesim.costs.communication import CommunicationCost, Steps
from moesim.costs.estimate import Basis, Estimate
from moesim.costs.form import Form
from moesim.costs.grid import ResidualGrid, read_grids
from moesim.errors import BadInput
from moesim.models import Attention
from moesim.units import Bandwidth, ByteCount, Flops, Seconds
from moesim.yamlfile import Items, Section

FOLDER = "calibration/profiles"
Fraction = Annotated[float, Field(gt=0, le=1)]
Pair = Annotated[tuple[float, float], Field(strict=False)]


class OperatorSection(Section):
    """One operator and dtype: the form's parameters, its hull, and how well it was fitted."""

    launch: Seconds
    flops_per_second: Flops
    bytes_per_second: Bandwidth
    norm: float = Field(ge=0.5, le=32)
    flops_hull: Pair
    bytes_hull: Pair
    basis: Basis
    rows: int = Field(ge=1, description="measurements it was fitted on")
    heldout_median_abs_error: float = Field(ge=0)
    heldout_p90_abs_error: float = Field(ge=0)
    kernel: str


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
    steps: Items[StepsSection] = ()
    efficiency: dict[str, Fraction] = Field(default_factory=dict)
    sms: int = Field(0, ge=0)
    basis: Basis
    source: str


class HostSection(Section):
    """Host time that no kernel hides, per step and per layer, by phase."""

    per_step: Seconds
    per_layer: Seconds
    source: str


class ProfileSection(Section):
    """A profile file."""

    moesim_profile: Literal[1]
    name: str
    device: str
    kernels: str
    source: str
    operators: dict[str, OperatorSection]
    families: dict[str, Annotated[float, Field(ge=0)]]
    elementwise: OperatorSection
    backward: dict[str, Annotated[float, Field(gt=0)]]
    backward_source: str
    communication: dict[str, CommunicationSection]
    host: dict[Literal["decode", "prefill", "train"], HostSection]
    notes: Items[str] = ()


class Profile:
    """Forms times residual grids of one device. `borrowed` marks a profile used on another device: all is assumed."""

    def __init__(self, section: ProfileSection, grids: Mapping[str, ResidualGrid], *, borrowed: bool) -> None:
        self._section, self._grids, self._borrowed = section, grids, borrowed
        self.name, self.device = section.name, section.device
        self.backward: Mapping[str, float] = section.backward
        self.families: Mapping[str, float] = section.families
        self.communication: Mapping[str, CommunicationCost] = {
            name: _communication(cost) for name, cost in section.communication.items()
        }

    def gemm(self, m: npt.ArrayLike, n: int, k: int, dtype: str) -> Estimate:
        """See CostModel."""
        demand = shapes.gemm(m, n, k, dtype)
        return self._estimate(f"gemm.{dtype}", "gemm", demand, (np.asarray(m, dtype=np.float64), n, k))

    def experts(self, rows: npt.ArrayLike, hidden: int, inter: int, dtype: str, matrices: int) -> Estimate:
        """See CostModel."""
        demand = shapes.experts(rows, hidden, inter, dtype, matrices)
        counts = np.asarray(rows, dtype=np.float64)
        active = np.maximum(np.count_nonzero(counts, axis=-1), 1)
        coordinates = (counts.sum(axis=-1) / active, active, matrices * hidden * inter)
        return self._estimate(f"experts.{dtype}", "grouped_gemm", demand, coordinates)

    def attention(
        self, phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention,
        heads: int, dtype: str,
    ) -> Estimate:  # fmt: skip
        """See CostModel."""
        kind = "mla" if shape.kind == "mla" else "gqa"
        demand = shapes.attention(phase, query, context, requests, shape, heads, dtype)
        length = np.asarray(query, dtype=np.float64) + np.asarray(context, dtype=np.float64)
        coordinates = (np.asarray(requests, dtype=np.float64), length, heads)
        return self._estimate(f"{kind}_{phase}.{dtype}", "attention", demand, coordinates)

    def elementwise(self, moved: npt.ArrayLike) -> Estimate:
        """See CostModel."""
        nbytes = np.asarray(moved, dtype=np.float64)
        section = self._section.elementwise
        demand = shapes.Demand(np.zeros_like(nbytes), nbytes)
        basis: Basis = "assumed" if self._borrowed else section.basis
        return Estimate(_form(section).seconds(demand), "elementwise", basis, np.zeros(nbytes.shape, dtype=np.bool_))

    def host_seconds(self, phase: str, layers: int) -> float:
        """See CostModel."""
        host = self._section.host[phase]  # type: ignore[index]
        return host.per_step + layers * host.per_layer

    def _estimate(
        self, operator: str, family: str, demand: shapes.Demand, coordinates: tuple[npt.ArrayLike, ...]
    ) -> Estimate:
        section = self._section.operators.get(operator)
        if section is None:
            known = ", ".join(sorted(self._section.operators))
            raise BadInput(f"profile {self.name} has no {operator}", way_out=f"another precision; it has {known}")
        form = _form(section)
        grid = self._grids.get(operator)
        residual = grid.at(*coordinates) if grid else 1.0
        basis: Basis = "assumed" if self._borrowed else section.basis
        return Estimate(form.seconds(demand) * residual, family, basis, form.outside(demand))


def _form(section: OperatorSection) -> Form:
    return Form(**section.model_dump(include=set(Form.__dataclass_fields__)))


def _communication(section: CommunicationSection) -> CommunicationCost:
    steps = tuple(Steps(**table.model_dump()) for table in section.steps)
    return CommunicationCost(**section.model_dump(exclude={"steps"}), steps=steps)


def known_profiles() -> dict[str, Path]:
    """name -> file of the shipped profiles."""
    return shipped.names(FOLDER, ".yaml")


def load_profile(path: Path, device_name: str) -> Profile:
    """A profile for `device_name`; one of another device is borrowed, and all it says is assumed. Raises BadInput."""
    section = yamlfile.read_yaml(path).validate(ProfileSection)
    return Profile(section, read_grids(path.with_suffix(".parquet")), borrowed=section.device != device_name)
