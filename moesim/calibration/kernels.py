"""Kernel sets: which of a backend's kernels plays which role in a profile.

Kernel sources of one operator are different kernels. A set is a backend; a role is what a cost model is asked for, e.g.
`experts.fp8`, or `experts.fp8@deepep_normal` behind a dispatch. Of the dtypes that a role may run in the first one that
was measured widely counts, and of its sound kernels the fastest. Roles for which a backend has no sound kernel are
played by those of the next one in ORDER. Libraries that the harness calls play in its own set, torch: engines call them
too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from moesim.calibration.behind import behind
from moesim.calibration.quality import SLOW, Table
from moesim.calibration.records import Records

ORDER: Final = ("sglang", "trtllm", "vllm", "torch")
LIBRARIES: Final = ("flash_mla", "flashinfer", "flash_attn")
LABELS: Final = {
    "bf16": ("bf16",),
    "fp8": ("fp8_block", "fp8"),
    "fp4": ("nvfp4", "w4a8_mxfp4_mxfp8", "w4a16_mxfp4", "int4_wo"),
    "fp32": ("fp32",),
}
SPARSE: Final = ("dsa", "dsa_reuse", "csa", "hca", "msa")
HYPER: Final = ("hyper_pre", "hyper_post")
RECURRENT: Final = ("conv", "gdn", "kda")
OWN: Final = "latent_"  # roles of an engine's own modules: without one it is played by a core, its own or another's
ROLES: Final = {"gemm": "gemm", "grouped_gemm": "experts", "attention_prefill": "gqa_prefill",
                "attention_decode": "gqa_decode", "attention_encoder": "gqa_encoder",
                "mla_prefill": "mla_prefill", "mla_decode": "mla_decode",
                "absorbed": "absorbed",
                **{f"{kind}_{phase}": f"{kind}_{phase}" for kind in ("latent", *SPARSE, *RECURRENT)
                   for phase in ("prefill", "decode")}, **{part: part for part in HYPER}}  # fmt: skip
LEAN: Final = "fp8_block"  # of modules whose GEMMs are taken off again, those with lean ones: less to take off
FEWEST: Final = 0.2  # of the rows of a role's widest kernel
UNSOUND: Final = 0.25  # of a kernel's rows labelled slow: the rest says little about it
COMMON: Final = 30  # cells that kernels share before one is called faster
HOST: Final = "prefill"  # roles of steps that the host launches kernel by kernel; all others are played out of graphs
NEAR: Final = 0.05  # of the logarithm: engines that near count as equally near


@dataclass(frozen=True)
class Candidate:
    """One kernel for one role: suits: 0 for the dtype that suits best; rows: sound ones; mode: as records have it."""

    role: str
    backend: str
    name: str
    suits: int
    rows: int
    sound: bool
    table: Table
    mode: str = ""

    @property
    def fits(self) -> bool:
        """Whether it was timed the way its role is launched, where anybody knows."""
        return self.mode in ("", "eager" if HOST in self.role else "graph")


def name_of(records: Records) -> str:
    """The operator's name in a profile, from records of one kernel."""
    facts = {name: str(records[name][0]) for name in ("op", "backend", "kernel", "dtype", "cache_dtype", "mode")}
    op = facts["op"]
    tail = [facts[name] for name in ("cache_dtype", "mode") if facts[name]]
    return "/".join([op, facts["backend"], facts["kernel"], facts["dtype"], *tail])


def roles_of(records: Records) -> tuple[tuple[str, ...], int]:
    """The roles that one kernel's records can play and how well its dtype suits (0 best); none if none."""
    op, dtype, cache = (str(records[name][0]) for name in ("op", "dtype", "cache_dtype"))
    for precision, labels in LABELS.items():
        asked = cache or dtype
        if op in ROLES and asked in labels:
            best = LEAN if op.startswith((*SPARSE, OWN)) else "bf16"
            suits = 0 if cache and dtype == best else labels.index(asked) + bool(cache)
            role = f"{ROLES[op]}.{precision}"
            return tuple(f"{role}@{one}" for one in behind(str(records["kernel"][0]))) or (role,), suits
    return (), 0


def is_sound(records: Records) -> bool:
    """Whether few enough of its rows were labelled slow."""
    return float(np.mean(np.isin(records["label"].astype(str), list(SLOW)))) <= UNSOUND


def candidates(parts: Sequence[Records]) -> list[Candidate]:
    """Records of one kernel each -> who could play which role."""
    found = []
    for part in parts:
        roles, suits = roles_of(part)
        usable = part.usable
        if roles and len(usable):
            table = Table(usable, np.zeros(len(usable)))
            facts = (_set_of(str(part["backend"][0])), name_of(part), suits, len(usable), is_sound(part), table,
                     str(part["mode"][0]))  # fmt: skip
            found += [Candidate(role, *facts) for role in roles]
    return found


def _set_of(backend: str) -> str:
    return ORDER[-1] if backend in LIBRARIES else backend


def kernel_sets(found: Sequence[Candidate]) -> dict[str, dict[str, str]]:
    """Set -> role -> operator's name. Sets in ORDER."""
    roles = sorted({one.role for one in found})
    own = [backend for backend in ORDER if any(one.backend == backend for one in found)]
    best = {key: one.name for key, one in _best_of_each(_without_narrow(found)).items()}
    return {
        name: {
            role: _first(best, [name, *own], role) for role in roles if not role.startswith(OWN) or (name, role) in best
        }
        for name in own
    }


def _without_narrow(found: Sequence[Candidate]) -> list[Candidate]:
    """Without modules that nearly all of their table lacks, as where an engine runs with a single head only."""
    widest = {role: max(one.rows for one in found if one.role == role) for role in {one.role for one in found}}
    return [one for one in found if not one.role.startswith(OWN) or one.rows >= FEWEST * widest[one.role]]


def default_sets(found: Sequence[Candidate]) -> dict[str, str]:
    """Precision of the experts -> the set whose own experts lie nearest the other engines' median, over the cells that
    several measured: what users of an engine that nobody named see; of engines that are as near within NEAR, and where
    nothing can be compared, the first in ORDER.
    """
    best = _best_of_each(found)
    defaults = {}
    for precision in LABELS:
        able = [best[b, f"experts.{precision}"] for b in ORDER if (b, f"experts.{precision}") in best]
        if able:
            slower = {one.backend: _slower(one, [other for other in able if other is not one]) for one in able}
            apart = {backend: abs(by) for backend, by in slower.items() if by is not None} or {able[0].backend: 0.0}
            least = min(apart.values())
            defaults[precision] = next(backend for backend, by in apart.items() if by <= least + NEAR)
    return defaults


def launches(parts: Sequence[Records]) -> dict[str, float]:
    """Kernel that was timed both ways -> seconds by which eager calls take longer than graphed ones, the median over
    the cells that both measured: what a launch costs beyond the kernel.
    """
    able = [part for part in parts if roles_of(part)[0] and len(part.usable)]
    timed = {name_of(part): Table(part.usable, np.zeros(len(part.usable))) for part in able}
    pairs = {name.removesuffix("/eager"): (timed[name], timed.get(name.removesuffix("eager") + "graph"))
             for name in timed if name.endswith("/eager")}  # fmt: skip
    longer = {name: eager.seconds - eager.others([graph]) for name, (eager, graph) in pairs.items() if graph}
    return {name: float(np.nanmedian(one)) for name, one in longer.items() if not np.isnan(one).all()}


def _best_of_each(found: Sequence[Candidate]) -> dict[tuple[str, str], Candidate]:
    """(backend, role) -> its best candidate; unsound ones only in roles that nobody plays soundly."""
    played = {one.role for one in found if one.sound}
    able: dict[tuple[str, str], list[Candidate]] = {}
    for one in found:
        if one.sound or one.role not in played:
            able.setdefault((one.backend, one.role), []).append(one)
    return {key: _best(each) for key, each in able.items()}


def _best(found: list[Candidate]) -> Candidate:
    """Of the kernels that were timed as their role is launched (without any: of all) and measured about as widely as
    any, the best suited; of these the fastest.
    """
    found = [one for one in found if one.fits] or found
    widest = max(one.rows for one in found)
    wide = [one for one in found if one.rows >= FEWEST * widest]
    suited = sorted(
        (one for one in wide if one.suits == min(o.suits for o in wide)), key=lambda one: (-one.rows, one.name)
    )
    best = suited[0]
    for other in suited[1:]:
        best = other if (_slower(other, [best]) or 0.0) < -NEAR else best
    return best


def _slower(one: Candidate, others: Sequence[Candidate]) -> float | None:
    """Median ln of its time over the others' in the cells that they share; None where these are few."""
    alike = [other.table for other in others if other.table.peer == one.table.peer]
    ratio = one.table.seconds / one.table.others(alike)
    ratio = ratio[one.table.sound & ~np.isnan(ratio)]
    return float(np.median(np.log(ratio))) if len(ratio) >= COMMON else None


def _first(best: Mapping[tuple[str, str], str], backends: Sequence[str], role: str) -> str:
    return next(best[backend, role] for backend in backends if (backend, role) in best)
