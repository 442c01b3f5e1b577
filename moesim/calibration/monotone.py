"""Physics of a profile's answers: more work should not be cheaper. Where it is, the measured kernel may have switched,
or the fit is wrong; either way it is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim.costs.profile import Profile
from moesim.costs.profile_file import read_profile
from moesim.costs.sparse import role_of
from moesim.models import Attention, Linear, load_model

Floats = npt.NDArray[np.float64]
Sweep = tuple[str, Floats, Callable[[Floats], Floats]]
TOLD: Final = 1.02  # times slower than more work
SLOW: Final = 1.3
WIDTHS: Final = (1024, 2048, 4096, 7168)
EXPERTS: Final = ((7168, 2048), (4096, 1536), (2048, 768))  # hidden, inter: three models' experts
GROUPS: Final = 8
MODELS: Final = {
    "mla": "DeepSeek-V3", "latent": "DeepSeek-V3", "gqa": "Qwen3-235B-A22B", "dsa": "DeepSeek-V3.2",
    "dsa_reuse": "DeepSeek-V3.2", "csa": "DeepSeek-V4-Flash", "hca": "DeepSeek-V4-Flash", "msa": "MiniMax-M3",
    "hyper": "DeepSeek-V4-Flash",
    "conv": "Qwen3-Next-80B-A3B-Instruct", "gdn": "Qwen3-Next-80B-A3B-Instruct", "kda": "Kimi-K3",
}  # fmt: skip
RECURRENT: Final = ("conv", "gdn", "kda")


@dataclass(frozen=True)
class Falls:
    """Answers of one kernel: how many were asked, how many take more than TOLD or SLOW times as long as more work, the
    worst factor and where it is.
    """

    kernel: str
    answers: int
    told: int
    slow: int
    worst: float
    where: str


def falls_of(path: Path) -> tuple[str, list[Falls]]:
    """A profile's name, and its kernels' answers along rows, tokens or context. Raises BadInput."""
    section, grids = read_profile(path)
    found: dict[str, Falls] = {}
    for kernels, roles in section.kernels.items():
        for role, name in roles.items():
            if name not in found:
                profile = Profile(section, grids, kernels, carried=0.0, dispatch=role.partition("@")[2])
                found[name] = _falls(name, _sweeps(profile, role))
    return section.name, list(found.values())


def to_json(profile: str, found: list[Falls]) -> dict[str, Any]:
    """The document that `--json` prints."""
    answers = sum(one.answers for one in found)
    metrics = {
        "non_monotone_answers": sum(one.told for one in found) / max(answers, 1),
        "much_slower_answers": sum(one.slow for one in found) / max(answers, 1),
        "worst_factor": max(one.worst for one in found),
    }
    return {
        "metrics": {name: {"value": round(value, 5), "unit": "1"} for name, value in metrics.items()},
        "breakdown": {one.kernel: {key: value for key, value in vars(one).items() if key != "kernel"} for one in found},
        "provenance": {"profile": profile, "tolerance": TOLD, "much": SLOW},
        "warnings": [],
    }  # fmt: skip


def _falls(name: str, sweeps: Iterator[Sweep]) -> Falls:
    answers = told = slow = 0
    worst, where = 1.0, ""
    for label, sizes, price in sweeps:
        seconds = price(sizes)
        least = np.minimum.accumulate(seconds[::-1])[::-1]
        factor = seconds / least
        answers, told, slow = (
            answers + len(sizes), told + int((factor > TOLD).sum()), slow + int((factor > SLOW).sum()),
        )  # fmt: skip
        at = int(factor.argmax())
        if factor[at] > worst:
            more = at + int(seconds[at:].argmin())
            worst = float(factor[at])
            where = (
                f"{label} {sizes[at]:.0f} -> {sizes[more]:.0f}: {seconds[at] * 1e6:.1f} -> {seconds[more] * 1e6:.1f} us"
            )
    return Falls(name, answers, told, slow, worst, where)


def sizes(most: int) -> Floats:
    """Powers of two up to `most`, what lies halfway, and one more than each."""
    base = np.arange(np.log2(most) * 2 + 1) / 2
    whole = np.rint(2**base)
    return np.unique(np.concatenate([whole, whole + 1]))


def _sweeps(profile: Profile, role: str) -> Iterator[Sweep]:
    kind, precision = role.partition("@")[0].split(".")
    op, _, phase = kind.rpartition("_")
    if kind == "gemm":
        for n in WIDTHS:
            for k in WIDTHS:
                yield f"n {n}, k {k}: m", sizes(16384), _gemm(profile, n, k, precision)
    elif kind == "experts":
        for hidden, inter in EXPERTS[:1] if "@" in role else EXPERTS:
            yield (
                f"hidden {hidden}, inter {inter}, {GROUPS} experts: rows of each",
                sizes(4096),
                _experts(profile, hidden, inter, precision),
            )
    elif op == "hyper":
        model = load_model(MODELS[op])
        part = 0 if phase == "pre" else 1
        yield (
            f"{model.name}: tokens", sizes(16384),
            lambda tokens: profile.hyper(tokens, model.hidden_size, model.hyper)[part].seconds,
        )  # fmt: skip
    elif kind == "absorbed":
        shape = load_model(MODELS["mla"]).attention
        for heads in (shape.num_heads, shape.num_heads // 8):
            yield f"{heads} heads: tokens", sizes(1024), _absorbed(profile, heads, shape)
    elif kind == "gqa_encoder":
        yield from _encoders(profile, Attention("mha", 16, 16, 64, 64, full=True))
    elif op in RECURRENT:
        yield from _recurrence(profile, op, phase)
    else:
        yield from _attention(profile, op, phase, precision)


def _gemm(profile: Profile, n: int, k: int, precision: str) -> Callable[[Floats], Floats]:
    return lambda m: profile.gemm(m, n, k, precision).seconds


def _absorbed(profile: Profile, heads: int, shape: Attention) -> Callable[[Floats], Floats]:
    return lambda tokens: profile.absorbed(tokens, heads, shape).seconds


def _encoders(profile: Profile, shape: Attention) -> Iterator[Sweep]:
    for batch in (1, 8, 64):

        def price(size: Floats, batch: int = batch) -> Floats:
            return profile.full_attention(size, batch, shape, shape.num_heads, "bf16").seconds

        yield f"{batch} sequences, {shape.num_heads} heads of {shape.head_dim}: tokens", sizes(16384), price


def _experts(profile: Profile, hidden: int, inter: int, precision: str) -> Callable[[Floats], Floats]:
    def price(each: Floats) -> Floats:
        rows = np.repeat(each.astype(np.int64)[:, None], GROUPS, axis=1)
        return profile.experts(rows, hidden, inter, precision, 3).seconds

    return price


def _recurrence(profile: Profile, op: str, phase: str) -> Iterator[Sweep]:
    shape = next(mixer for mixer in load_model(MODELS[op]).mixers if isinstance(mixer, Linear))
    for batch in (1, 8, 64):

        def price(size: Floats, batch: int = batch) -> Floats:
            query, number = (1.0, size) if phase == "decode" else (size, float(batch))
            return profile.recurrence(phase, query, number, shape, 1)[int(op != "conv")].seconds

        if phase != "decode" or batch == 1:
            label = "sequences" if phase == "decode" else f"{batch} sequences: query"
            yield f"{MODELS[op]}, {label}", sizes(1024 if phase == "decode" else 16384), price


def _plays(shape: Attention, op: str) -> bool:
    """Of a model's mixers: the one whose role that is; of other operators any."""
    return op not in ("csa", "hca") or role_of(shape, "decode").startswith(op)


def _attention(profile: Profile, op: str, phase: str, precision: str) -> Iterator[Sweep]:
    model = load_model(MODELS[op])
    shape = next(one for one in model.mixers if isinstance(one, Attention) and _plays(one, op))
    shape = replace(shape, index_heads=0) if op == "dsa_reuse" else shape
    heads = shape.num_heads // 8 if op == "gqa" else shape.num_heads
    for batch in (1, 8, 64):

        def price(size: Floats, batch: int = batch) -> Floats:
            query, context = (1.0, size) if phase == "decode" else (size, 0.0)
            if shape.by_module:
                return profile.sparse_attention(
                    phase, query, context, batch, shape, model.hidden_size, 1, precision
                ).seconds
            if op == "latent":
                return profile.latent_attention(
                    phase, query, context, batch, shape, heads, precision, precision
                ).seconds
            return profile.attention(phase, query, context, batch, shape, heads, precision).seconds

        label = "context" if phase == "decode" else "query"
        yield f"{MODELS[op]}, {batch} sequences, {heads} heads: {label}", sizes(16384), price
