"""Kernel sets: which of a backend's kernels plays which role in a profile.

Kernel sources of one operator are different kernels. A set is a backend; a role is what a cost model is asked for, e.g.
`experts.fp8`. Of the dtypes that a role may run in the first one that was measured widely counts, and of its kernels
the one with most rows. Roles that a backend does not have are played by the kernels of the next one in ORDER.
"""

from __future__ import annotations

from typing import Final

from moesim.calibration.records import Records

ORDER: Final = ("sglang", "trtllm", "vllm", "torch")
LABELS: Final = {
    "bf16": ("bf16",),
    "fp8": ("fp8_block", "fp8"),
    "fp4": ("nvfp4", "w4a8_mxfp4_mxfp8", "w4a16_mxfp4", "int4_wo"),
    "fp32": ("fp32",),
}
ROLES: Final = {"gemm": "gemm", "grouped_gemm": "experts", "attention_prefill": "gqa_prefill",
                "attention_decode": "gqa_decode", "mla_prefill": "mla_prefill", "mla_decode": "mla_decode"}  # fmt: skip
DISTRUSTED: Final = {
    ("sglang", "mla_prefill"): "SGLang 0.5.14's rows say 3.8 to 4.2 ms where a profile of the same shape and another "
    "backend's table say 1.25 ms",
}
FEWEST: Final = 0.2  # of the rows of a role's widest kernel


def name_of(records: Records) -> str:
    """The operator's name in a profile, from records of one kernel."""
    facts = {name: str(records[name][0]) for name in ("op", "backend", "kernel", "dtype", "cache_dtype", "mode")}
    op = facts["op"]
    tail = [facts[name] for name in ("cache_dtype", "mode") if facts[name]]
    return "/".join([op, facts["backend"], facts["kernel"], facts["dtype"], *tail])


def role_of(records: Records) -> tuple[str, int] | None:
    """The role that one kernel's records can play and how well its dtype suits (0 best); None if none."""
    op, dtype, cache = (str(records[name][0]) for name in ("op", "dtype", "cache_dtype"))
    if op not in ROLES or (str(records["backend"][0]), op) in DISTRUSTED:
        return None
    for precision, labels in LABELS.items():
        asked = cache or dtype
        if asked in labels:
            suits = 0 if cache and dtype == "bf16" else labels.index(asked) + bool(cache)
            return f"{ROLES[op]}.{precision}", suits
    return None


def kernel_sets(parts: list[Records]) -> dict[str, dict[str, str]]:
    """Records of one kernel each -> set -> role -> operator's name. Sets in ORDER."""
    candidates: dict[tuple[str, str], list[tuple[int, int, str]]] = {}
    for part in parts:
        role = role_of(part)
        if role is not None:
            key = (str(part["backend"][0]), role[0])
            candidates.setdefault(key, []).append((role[1], -len(part.usable), name_of(part)))
    best = {key: _best(found) for key, found in candidates.items()}
    own = [backend for backend in ORDER if any(backend == held for held, _ in best)]
    roles = sorted({role for _, role in best})
    return {one: {role: _first(best, [one, *own], role) for role in roles} for one in own}


def _best(found: list[tuple[int, int, str]]) -> str:
    """The best suited of the kernels that were measured about as widely as any."""
    widest = -min(rows for _, rows, _ in found)
    return min(one for one in found if -one[1] >= FEWEST * widest)[2]


def _first(best: dict[tuple[str, str], str], backends: list[str], role: str) -> str:
    return next(best[backend, role] for backend in backends if (backend, role) in best)
