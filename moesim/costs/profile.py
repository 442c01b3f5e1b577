"""Profile: a CostModel of fitted forms, as profile_file.py reads them. numpy is all it needs to answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from moesim.costs import latent, shapes, sparse
from moesim.costs.carried import FAR, NEAR, carry
from moesim.costs.communication import CommunicationCost, Steps
from moesim.costs.compressed import HCA, windowed
from moesim.costs.estimate import Basis, Estimate
from moesim.costs.grid import ResidualGrid
from moesim.costs.profile_file import (
    CommunicationSection,
    ElementwiseSection,
    OperatorSection,
    ProfileSection,
    read_profile,
)
from moesim.costs.recurrences import demands_of
from moesim.costs.shapes import KINDS
from moesim.errors import BadInput, unknown_name
from moesim.hardware import Device, shipped_device
from moesim.models import Attention, Compressed, Linear

UNMEASURED = "roofline/peak rates: nobody measured it"  # in place of a kernel's name
PICKED = "full attention to as many tokens as are picked, and an indexer at peak rates: nobody measured it"
UNMEASURED_FAMILY, UNMEASURED_SPREAD = (
    "unmeasured kernels",
    0.4,
)  # measured kernels of the profiles reach 1/3 to all of it
ABSORBED = "absorbed.bf16"  # role of the projections that a core in the latent space needs
ENCODER = "gqa_encoder.bf16"
HALF = "every token after half of the others: no encoder's kernel was measured with such heads"
HULL_SLACK = 1e-3  # of an octave
REACH = NormalDist().inv_cdf(0.9)  # standard deviations from the median to the end of an 80 % interval
FAMILIES = {
    "gemm": "gemm", "experts": "grouped_gemm", "gqa_prefill": "attention", "gqa_decode": "attention",
    "mla_prefill": "attention", "mla_decode": "attention",
    "gqa_encoder": "encoder attention",  # of stages alone, whose errors widen no other attention
    "absorbed": "absorbed projections",  # their time is part of the core's, their errors widen no other attention
    "latent_prefill": "attention", "latent_decode": "attention",
    "dsa_prefill": "sparse attention", "dsa_decode": "sparse attention",
    "dsa_reuse_prefill": "sparse attention", "dsa_reuse_decode": "sparse attention",
    **{f"{kind}_{phase}": "compressed attention" for kind in ("csa", "hca") for phase in ("prefill", "decode")},
    "msa_prefill": "block attention", "msa_decode": "block attention",
    "hyper_pre": "hyper-connections", "hyper_post": "hyper-connections",
    "conv_prefill": "recurrence", "conv_decode": "recurrence", "gdn_prefill": "recurrence",
    "gdn_decode": "recurrence", "kda_prefill": "recurrence", "kda_decode": "recurrence",
}  # fmt: skip


class Profile:
    """Forms times residual grids of one device, and one of its kernel sets. `carried`: what being carried to another
    device adds to the spread of all that it says, which then is assumed. Behind a `dispatch` whose experts were
    measured on their own, those answer for the shapes that they were measured on.
    """

    def __init__(
        self, section: ProfileSection, grids: Mapping[str, ResidualGrid], kernels: str, *, carried: float,
        dispatch: str = "", width: tuple[int, int] | None = None, clock: float = 1.0,
    ) -> None:  # fmt: skip
        self._section, self._grids, self._carried, self._clock = section, grids, carried, clock
        self._dispatch, self._width = dispatch, width
        self._roles = section.kernels[kernels]
        self.name, self.device, self.kernels = section.name, section.device, kernels
        self.backward: Mapping[str, float] = section.backward
        own = {**section.families, **self._spreads(), UNMEASURED_FAMILY: UNMEASURED_SPREAD}
        self.families: Mapping[str, float] = {family: math.hypot(spread, carried) for family, spread in own.items()}
        self.widens: Mapping[str, float] = self._widening()
        self.communication: Mapping[str, CommunicationCost] = {
            name: _communication(cost) for name, cost in section.communication.items()
        }

    def sustained(self) -> Profile:
        """See CostModel."""
        slower, chosen = self._section.sustained, (self._dispatch, self._width)
        if slower is None:
            return self
        return Profile(self._section, self._grids, self.kernels, carried=self._carried, dispatch=chosen[0],
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
        moved = np.asarray(rows.total * shapes.BF16 * matrices * inter)  # wide rows in, rows of `inter` out
        between = self._moving(self._section.activation or self._section.elementwise, moved)
        return replace(
            up,
            seconds=up.seconds + between + down.seconds,
            outside=up.outside | down.outside,
            flops=np.add(up.flops, down.flops),
            bytes=np.add(up.bytes, down.bytes) + moved,
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

    def full_attention(
        self, query: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention, heads: int, dtype: str
    ) -> Estimate:
        """See CostModel. Encoders' kernels where they were measured with heads like these; otherwise causal attention
        after half as many tokens, which has as many pairs.
        """
        if self._encodes(shape):
            _, section = self._operator(ENCODER)
            demand = shapes.full_attention_of(shape, query, requests, heads, section.tile)
            return self._estimate(ENCODER, "encoder attention", demand)
        q = np.asarray(query)
        causal = self.attention("prefill", q, q // 2, requests, shape, heads, dtype)
        return replace(causal, kernel=f"{causal.kernel}, {HALF}")

    def _encodes(self, shape: Attention) -> bool:
        """Whether encoders' kernels were measured with heads as wide, and as many for keys as for queries."""
        if ENCODER not in self._roles or shape.kind == "mla" or shape.num_kv_heads != shape.num_heads:
            return False
        ends = self._operator(ENCODER)[1].hull["head_dim"]
        return shape.head_dim == shape.v_head_dim and _within(ends, shape.head_dim)

    def latent_attention(
        self, phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention,
        heads: int, dtype: str, weights: str,
    ) -> Estimate:  # fmt: skip
        """See CostModel. The engine's module less its GEMMs, in the module's dtype; where none was measured its core
        and, in decode, what absorbed projections take beyond the GEMM of their size.
        """
        core = self.attention(phase, query, context, requests, shape, heads, dtype)
        if latent.role_of(phase, dtype) in self._roles:
            return self._latent_module(phase, core, (query, context, requests), shape, heads, dtype)
        if phase != "decode":
            return core
        if ABSORBED not in self._roles:
            return replace(core, kernel=f"{core.kernel}, absorbed projections as one GEMM: nobody measured them")
        tokens, up = np.multiply(query, requests), latent.up(shape, heads)
        each, number = np.unique(tokens, return_inverse=True)  # where contexts differ there are few of these
        each, where = np.resize(each, max(len(each), 2)), number.reshape(tokens.shape)  # numpy adds one up otherwise
        found = self.absorbed(each, heads, shape)
        beyond = (found.seconds - self.gemm(each, up.n, up.k, weights).seconds)[where]
        seconds = np.where(core.bytes > 0, np.maximum(core.seconds + beyond, self._least(core)), 0.0)
        return replace(core, seconds=seconds, outside=core.outside | found.outside[where],
                       kernel=f"{core.kernel}, {found.kernel}")  # fmt: skip

    def absorbed(self, tokens: npt.ArrayLike, heads: int, shape: Attention) -> Estimate:
        """Projections of int[...] tokens into the latent space of `heads` heads, and out of it."""
        return self._estimate(ABSORBED, "attention", latent.absorbed(tokens, heads, shape))

    def _latent_module(
        self, phase: str, core: Estimate, rows: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike], shape: Attention,
        heads: int, dtype: str,
    ) -> Estimate:  # fmt: skip
        """rows: query, context, requests. Modules of prompts were measured without cached tokens: these cost what they
        add to the core.
        """
        query, context, requests = rows
        role, own = latent.role_of(phase, dtype), latent.as_measured(shape, heads)
        _, section = self._operator(role)
        before = context if phase == "decode" else np.zeros_like(context)
        demand = latent.module(phase, query, before, requests, own, section.dtype, section.cache_dtype)
        found, tokens = self._estimate(role, "attention", demand), np.multiply(query, requests)
        precision = shapes.ARITHMETIC.get(section.dtype, section.dtype)
        gemms = sum(self.gemm(tokens, gemm.n, gemm.k, precision).seconds for gemm in latent.gemms(own))
        alone = self.attention(phase, query, before, requests, shape, heads, dtype).seconds
        whole = np.maximum(found.seconds - gemms + core.seconds - alone, self._least(core))
        seconds = np.where(np.asarray(core.bytes) > 0, whole, 0.0)
        return replace(found, seconds=seconds, outside=found.outside | core.outside, flops=core.flops, bytes=core.bytes)

    def _least(self, core: Estimate) -> shapes.Floats:
        """float64[...]: seconds that physics asks for."""
        return np.maximum(core.flops / (self._clock * self._bf16), core.bytes / self._section.memory_bandwidth)

    def sparse_attention(
        self, phase: str, query: npt.ArrayLike, context: npt.ArrayLike, requests: npt.ArrayLike, shape: Attention,
        hidden: int, ways: int, dtype: str,
    ) -> Estimate:  # fmt: skip
        """See CostModel. Latent attention to prompts that are no longer than what is picked is in full. Where nobody
        measured the module, what is picked costs as much as attention to so many tokens, and the indexer, or all of a
        compressed one's core, as physics lets it.
        """
        own, role = sparse.of_rank(shape, ways), f"{sparse.role_of(shape, phase)}.{dtype}"
        q, c, number = np.broadcast_arrays(*(np.asarray(one, dtype=np.int64) for one in (query, context, requests)))
        if isinstance(own, Compressed):
            return self._compressed(role, q, c, number, own, hidden, dtype)
        if role in self._roles:
            picked = self._beyond_gemms(role, sparse.core(q, c, number, own, dtype), q, c, number, own, hidden)
        else:
            picked = self._unmeasured_picks(phase, q, c, number, own, dtype)
        if phase == "decode" or shape.kind != "mla":
            return picked
        whole = self.attention(phase, q, c, number, shape, own.num_heads, dtype)
        return _either(c + q <= shape.selected, whole, picked)

    def _compressed(
        self, role: str, query: npt.NDArray[np.int64], context: npt.NDArray[np.int64],
        requests: npt.NDArray[np.int64], own: Compressed, hidden: int, dtype: str,
    ) -> Estimate:  # fmt: skip
        """Where its module was measured; a layer that sees its window alone takes what HCA's takes beyond its GEMMs."""
        core = sparse.core(query, context, requests, own, dtype)
        if role not in self._roles:
            return self._roofline(role, self._at_rates(core, sparse.scores(query, context, requests, own, dtype)))
        if not own.ratio:
            context, own = windowed(context, own, HCA)
        return self._beyond_gemms(role, core, query, context, requests, own, hidden)

    def _beyond_gemms(
        self, role: str, core: shapes.Demand, query: npt.ArrayLike, context: npt.ArrayLike,
        requests: npt.ArrayLike, own: Attention, hidden: int,
    ) -> Estimate:  # fmt: skip
        """What a measured module takes beyond its GEMMs, in its own dtype: no less than physics asks of its core."""
        _, section = self._operator(role)
        demand = sparse.module(query, context, requests, own, hidden, section.dtype, section.cache_dtype)
        found, tokens = self._estimate(role, FAMILIES[role.partition(".")[0]], demand), np.multiply(query, requests)
        precision = shapes.ARITHMETIC.get(section.dtype, section.dtype)
        gemms = sum(self.gemm(tokens, gemm.n, gemm.k, precision).seconds for gemm in own.gemms(hidden))
        scores = sparse.scores(query, context, requests, own, section.cache_dtype)
        least = self._roofline(role, self._at_rates(core, scores)).seconds
        seconds = np.where(core.bytes > 0, np.maximum(found.seconds - gemms, least), 0.0)
        return replace(found, seconds=seconds, flops=core.flops, bytes=core.bytes, dtype="bf16")

    def _unmeasured_picks(
        self, phase: str, query: npt.NDArray[np.int64], context: npt.NDArray[np.int64],
        requests: npt.NDArray[np.int64], own: Attention, dtype: str,
    ) -> Estimate:  # fmt: skip
        """Attention to as many tokens as are picked, and the rest of the core at peak rates: assumed."""
        blocks = -(-query // own.selected)
        before = np.where(blocks > 1, own.selected, np.minimum(context, own.selected - 1))
        rows = (-(-query // blocks), before, requests * blocks)
        seen = self.attention(phase, *rows, own, own.num_heads, dtype)
        core = sparse.core(query, context, requests, own, dtype)
        picking = sparse.scores(query, context, requests, own, dtype)
        seconds = seen.seconds + self._roofline(seen.role, self._at_rates(picking, picking)).seconds
        return replace(
            seen, seconds=seconds, family=UNMEASURED_FAMILY, basis="assumed", kernel=PICKED, flops=core.flops,
            bytes=core.bytes,
        )  # fmt: skip

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

    def hyper(self, tokens: npt.ArrayLike, hidden: int, copies: int) -> tuple[Estimate, ...]:
        """See CostModel. Two kernels in front of a block and behind it, measured or as fast as physics lets them be."""
        demands = {f"hyper_{part}.bf16": shapes.hyper(part, tokens, hidden, copies) for part in ("pre", "post")}
        return tuple(
            self._estimate(role, "hyper-connections", demand) if role in self._roles else self._roofline(role, demand)
            for role, demand in demands.items()
        )

    def _at_rates(self, core: shapes.Demand, scores: shapes.Demand) -> shapes.Demand:
        fp8 = [
            one.peak for one in self._section.operators.values() if shapes.ARITHMETIC.get(one.dtype, one.dtype) == "fp8"
        ]
        return sparse.at_rates(core, scores, max(fp8, default=self._bf16), self._bf16)

    @property
    def _bf16(self) -> float:
        """Peak FLOP/s."""
        return max(one.peak for one in self._section.operators.values() if one.dtype == "bf16")

    def _roofline(self, role: str, demand: shapes.Demand) -> Estimate:
        """What peaks of arithmetic and memory say: no kernel is faster, and few reach it."""
        peak = self._clock * self._bf16
        seconds = np.maximum(demand.flops / peak, demand.bytes / self._section.memory_bandwidth)
        nowhere = np.zeros(seconds.shape, dtype=np.bool_)
        return Estimate(seconds, UNMEASURED_FAMILY, "assumed", nowhere, role, UNMEASURED, flops=demand.flops,
                        bytes=demand.bytes)  # fmt: skip

    def elementwise(self, moved: npt.ArrayLike) -> Estimate:
        """See CostModel."""
        nbytes = np.asarray(moved, dtype=np.float64)
        seconds = self._moving(self._section.elementwise, nbytes)
        basis: Basis = "assumed" if self._carried else self._section.elementwise.basis
        return Estimate(seconds, "elementwise", basis, np.zeros(nbytes.shape, dtype=np.bool_), bytes=nbytes)

    @staticmethod
    def _moving(section: ElementwiseSection, nbytes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.where(nbytes > 0, section.launch + nbytes / section.bytes_per_second, 0.0)

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
        cached = 0.0 if _streams(role) else self._section.cache
        memory = np.where(demand.bytes > cached, demand.bytes / self._section.memory_bandwidth, 0.0)
        bound = np.maximum(demand.flops / section.peak, memory)
        basis: Basis = "assumed" if self._carried else section.basis
        dtype = "bf16" if "attention" in family else shapes.ARITHMETIC.get(section.dtype, section.dtype)
        return Estimate(
            np.maximum(seconds, bound), family, basis, _outside(section, demand), role=role, kernel=name,
            flops=demand.flops, bytes=demand.bytes, dtype=dtype,
        )  # fmt: skip


def _streams(role: str) -> bool:
    """Do its bytes come from memory however few they are? The KV cache of a layer is read once a step, between those of
    all other layers, so that none of it is in the last-level cache any more: there it was when the kernel was measured
    on its own (64 MB of KV cache on the RTX PRO 6000 with 128 MB of cache: 1.2 to 1.4 times its memory's rate).
    """
    return role.startswith(("gqa_decode.", "mla_decode."))


def _either(chosen: npt.NDArray[np.bool_], one: Estimate, other: Estimate) -> Estimate:
    """Of each shape bool[...] the one's answer or the other's, whose error family and kernel it counts as."""
    columns = {
        name: np.where(chosen, getattr(one, name), getattr(other, name))
        for name in ("seconds", "outside", "flops", "bytes")
    }
    known = replace(one, family=other.family) if chosen.all() else other
    return replace(known, **columns)


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


def _measured(section: ProfileSection, where: str) -> Device:
    """What the profile's device can do. Raises BadInput where nothing shipped knows it."""
    if (device := shipped_device(section.device)) is None:
        raise BadInput(
            f"profile {section.name} was measured on {section.device}, whose rates no shipped topology has",
            where=where,
            way_out=f"where the topology's device is the same, call it {section.device}; or costs: auto, roofline",
        )
    return device


def load_profile(
    path: Path, device: Device, kernels: str | None = None, *, precision: str = "", dispatch: str = "",
    width: tuple[int, int] | None = None, where: str = "",
) -> Profile:  # fmt: skip
    """A profile and one of its kernel sets, None: its default for experts of that precision, or for the first that it
    knows. Used on another device it is carried to that one's rates, and all it says is assumed.

    Raises BadInput.
    """
    section, grids = read_profile(path)
    carried = 0.0
    if section.device != device.name:
        carried = NEAR if device.like == section.name else FAR
        section = carry(section, _measured(section, where or str(path)), device)
    chosen = kernels or section.default_kernels.get(precision) or next(iter(section.default_kernels.values()))
    if chosen not in section.kernels:
        raise unknown_name("kernel set", chosen, section.kernels, where=where or path)
    return Profile(section, grids, chosen, carried=carried, dispatch=dispatch, width=width)
