"""`moesim validate kernels`: fused expert kernels on one GPU against times that users published.

A row names its kernels in words ("vllm triton tuned"): it is priced with the kernel set of that engine, or where its
expert kernel is another (a Triton kernel asked for, FlashInfer's in the set) with the set whose kernel's name holds
most of the words, which a warning says. Routing is uniform and random, as such benchmarks draw it: the mean over seeded
draws. A row below the time that the weights of the experts reached take at the HBM's peak rate was not routed so, and
says so. "EPn" in the model's name means that `experts` are those of one of n ranks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from moesim import shipped, streams
from moesim.costs import CostModel, load_costs, profile_of
from moesim.costs.profile_file import ProfileSection, read_section
from moesim.costs.roofline import Roofline
from moesim.errors import BadInput, unknown_name
from moesim.hardware import Device, load_cluster
from moesim.studies.validation.rows import Row, nothing_understood, number, read_rows, whole
from moesim.studies.validation.systems import topology_of
from moesim.studies.validation.validation import Point, Validation

DATA: Final = ("workloads", "validation", "kernels_public.csv")
ENGINES: Final = ("vllm", "sglang", "trtllm")
MATRICES: Final = 3  # gate, up and down
NUMBERS: Final = ("experts", "inter", "hidden", "topk", "tokens")
COLUMNS: Final = ("system", "kernels", "model", *NUMBERS, "dtype", "us", "note", "source")
DRAWS: Final = 16


def validate(data: Path | None = None) -> Validation:
    """Price every row of a file with these columns. Raises BadInput where none is understood."""
    path = data or shipped.shipped(*DATA)
    points: list[Point] = []
    refused: list[str] = []
    rows = read_rows(path, COLUMNS[:-2], rest=COLUMNS[-2:])
    for line, row in rows:
        try:
            points.append(_point(row))
        except BadInput as error:
            refused.append(f"{path.name}:{line}: {error}")
    if not points:
        raise nothing_understood(path, refused)
    return Validation(
        suite="kernels",
        points=tuple(points),
        breakdown_by=("set", "tokens"),
        provenance={
            "data": path.name,
            "routing": f"uniform and random, mean over {DRAWS} draws",
            "held_out": "no row of this file was used in a fit, nor in the choice of a kernel",
        },
        warnings=(*refused, *dict.fromkeys(note for point in points for note in point.notes)),
        asked=len(rows),
    )


def _point(row: Row) -> Point:
    """Raises BadInput with the key and value that is not understood."""
    system = row["system"]
    kernels = kernel_set(read_section(profile_of(_device(system))), row["kernels"], row["dtype"])
    found = re.search(r"\bEP(\d+)\b", row["model"])
    ranks = int(found[1]) if found else 1
    experts, inter, hidden, topk, tokens = (whole(row, name) for name in NUMBERS)
    if topk > experts * ranks:
        raise BadInput(f"topk {topk} of {experts * ranks} experts")
    rows = uniform_rows(tokens, experts * ranks, topk)[:, :experts]
    shape = (rows, hidden, inter, row["dtype"], MATRICES, tokens * topk)
    priced = _costs(system, kernels).experts(*shape)
    keys = {
        "set": f"{row['system']} {row['kernels']}, {row['model']}", "tokens": row["tokens"],
        "kernel": priced.kernel, "source": row["source"],
    }  # fmt: skip
    least = float(Roofline(_device(system), ()).experts(*shape).seconds.mean()) * 1e6
    measured = number(row, "us")
    notes = (*_other_engine(row["kernels"], kernels, priced.kernel), *_too_fast(measured, least))
    return Point(keys, "us", measured, float(priced.seconds.mean()) * 1e6, notes=notes)


def _other_engine(words: str, kernels: str, kernel: str) -> Iterator[str]:
    asked = words.lower().split()
    if asked and asked[0] in ENGINES and asked[0] != kernels:
        yield f"{words}: {asked[0]}'s table has no such kernel, priced by {kernel}"


def _too_fast(measured: float, least: float) -> Iterator[str]:
    if measured < least:
        yield (
            f"{measured:g} us is less than the {least:.0f} us in which the HBM reads the experts that uniform routing "
            "reaches: it was measured with another routing"
        )


def kernel_set(section: ProfileSection, words: str, dtype: str) -> str:
    """The set whose expert kernel's name holds most of the words, the engine's own where several do or none; the
    default for the precision where the words say nothing. Raises BadInput where they fit none.
    """
    asked = words.lower().split()
    if not asked:
        return section.default_kernels.get(dtype) or next(iter(section.default_kernels.values()))
    engine = asked[0] if asked[0] in section.kernels else ""
    kinds = asked[1:] if engine else asked
    held = {
        name: (sum(word in roles.get(f"experts.{dtype}", "") for word in kinds), name == engine)
        for name, roles in section.kernels.items()
    }
    best = max(held, key=lambda name: held[name])
    if held[best] == (0, False):
        raise unknown_name("kernels", words, section.kernels)
    return best


def uniform_rows(tokens: int, experts: int, topk: int) -> npt.NDArray[np.int64]:
    """int64[DRAWS, experts]: rows of each expert where every token takes topk different ones, all equally likely."""
    rng = streams.stream(0, "validation", "kernels", tokens, experts, topk)
    draws = (rng.random((tokens, experts)).argpartition(topk - 1, axis=1)[:, :topk] for _ in range(DRAWS))
    return np.stack([np.bincount(draw.ravel(), minlength=experts) for draw in draws])


@lru_cache(maxsize=8)
def _costs(system: str, kernels: str) -> CostModel:
    return load_costs("auto", _device(system), kernels)


def _device(system: str) -> Device:
    return load_cluster(topology_of(system)).devices[0]
