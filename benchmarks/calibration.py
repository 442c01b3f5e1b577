"""How well kernels are predicted that a fit has not seen: `python -m benchmarks.calibration` prints the tables, and
`--write` puts them into calibration/README.md. Needs aiconfigurator-core 0.12.0; nothing here touches the profiles.

Rows are held out by unseen shape (sorted within a kernel source, fold = index modulo 4) or by skew (fitted on balanced,
uniform, 0.6 and 0.8; judged on 1.2; 1.01 and 1.02 left out of both). Errors are |predicted / measured - 1| of rows that
obey physics, and of all rows. The other tables are what each shipped profile says about itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moesim import atomic
from moesim.calibration.aiconfigurator import import_tables
from moesim.calibration.heldout import Errors, held_out, pooled, prepare
from moesim.calibration.physics import by_kernel, label
from moesim.calibration.records import Records, join
from moesim.calibration.systems import find_system
from moesim.costs.profile_file import HeldOut, OperatorSection, known_profiles, read_section

README = Path(__file__).parents[1] / "calibration" / "README.md"
BEGIN, END = "<!-- written by python -m benchmarks.calibration --write -->\n", "<!-- end -->\n"
LARGE = 256  # tokens from which skew matters


class TableSet(NamedTuple):
    """One table of measured MoE kernels; skew: whether the transfer to skewed rows is judged on it too."""

    name: str
    system: str
    backend: str
    dtype: str
    skew: bool


SETS = (
    TableSet("H200 vLLM 0.24.0 bf16", "h200_sxm", "vllm", "bf16", True),
    TableSet("H200 TensorRT-LLM 1.3.0rc20 fp8", "h200_sxm", "trtllm", "fp8", True),
    TableSet("H200 SGLang 0.5.14 fp8_block", "h200_sxm", "sglang", "fp8_block", True),
    TableSet("H100 TensorRT-LLM 1.3.0rc20 fp8_block", "h100_sxm", "trtllm", "fp8_block", True),
    TableSet("H100 vLLM 0.24.0 bf16", "h100_sxm", "vllm", "bf16", False),
    TableSet("B200 SGLang 0.5.14 fp8_block", "b200_sxm", "sglang", "fp8_block", True),
    TableSet("B200 TensorRT-LLM 1.3.0rc20 nvfp4", "b200_sxm", "trtllm", "nvfp4", False),
    TableSet("B200 SGLang 0.5.14 nvfp4", "b200_sxm", "sglang", "nvfp4", False),
)
BARS = {"gemm": (0.04, 0.15), "attention": (0.04, 0.15), "mla": (0.04, 0.15), "collectives": (0.08, 0.25),
        "deepep": (0.05, 0.20)}  # fmt: skip
VERSIONS = ("0.24.0", "1.3.0rc20", "0.5.14")


def main() -> None:
    """Print the tables, and write them where asked to."""
    text = "\n".join([*_grouped_gemm(), *_profiles()]) + "\n"
    print(text)
    if "--write" in sys.argv[1:]:
        before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
        atomic.write(README, before + BEGIN + text + END + rest.partition(END)[2])


def _grouped_gemm() -> Iterator[str]:
    shapes, skews = [], []
    for system in dict.fromkeys(one.system for one in SETS):
        found = find_system(system)
        records = label(import_tables(found.facts.table, ["grouped_gemm"]), found)
        for one in SETS:
            if one.system == system:
                parts = _parts(records, one)
                fitted = [prepare(part, found.peaks(one.dtype)) for part in parts]
                by_source = [held_out(kernel, "shape") for kernel in fitted]
                shapes.append((one.name, pooled(by_source)))
                shapes += [(f"- {part['kernel'][0]}", errors) for part, errors in zip(parts, by_source, strict=True)]
                if one.skew:
                    skews.append((one.name, join(parts), pooled([held_out(kernel, "skew") for kernel in fitted])))
    yield from _shape_table(shapes)
    yield from _skew_table(skews)


def _parts(records: Records, one: TableSet) -> list[Records]:
    """Records of one table, by kernel source."""
    parts = by_kernel(records.of(backend=one.backend, dtype=one.dtype))
    return [part for part in parts if str(part["version"][0]) in VERSIONS]


def _shape_table(rows: list[tuple[str, Errors]]) -> Iterator[str]:
    yield "### MoE grouped GEMM, unseen shapes\n"
    yield "| table set, its kernel sources | rows | median / p90 | all rows | 80 % interval | covers | 8 % / 35 % met |"
    yield "|---|---|---|---|---|---|---|"
    sets = [errors for name, errors in rows if not name.startswith("- ")]
    for name, errors in rows:
        low, high = np.expm1(errors.interval())
        held = "" if name.startswith("- ") else _yes(_meets(errors, (0.08, 0.35)))
        yield (f"| {name} | {len(errors.log)} | {_both(errors)} | {_both(errors, all_rows=True)} | "
               f"{low:+.0%} to {high:+.0%} | {errors.coverage():.0%} | {held} |")  # fmt: skip
    yield f"\nMet by {sum(_meets(errors, (0.08, 0.35)) for errors in sets)} of {len(sets)}; asked for: 6.\n"


def _skew_table(rows: list[tuple[str, Records, Errors]]) -> Iterator[str]:
    yield "### MoE grouped GEMM, from balanced rows to power_law_1.2\n"
    yield f"| table set | median / p90 | median at >= {LARGE} tokens | <= 8 % and <= 12 % |\n|---|---|---|---|"
    met = 0
    for name, records, errors in rows:
        tokens = _tokens(records)[: len(errors.log)]
        at = tokens >= LARGE
        large = Errors(errors.log[at], errors.sound[at], errors.fold[at], errors.row[at])
        fine = errors.absolute(0.5) <= 0.08 and large.absolute(0.5) <= 0.12
        met += fine
        yield f"| {name} | {_both(errors)} | {large.absolute(0.5):.1%} | {_yes(fine)} |"
    yield f"\nMet by {met} of {len(rows)}; asked for: 4.\n"


def _tokens(records: Records) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.asarray(records["tokens"][records["distribution"] == "power_law_1.2"])


def _profiles() -> Iterator[str]:
    sections = {name: read_section(path) for name, path in known_profiles().items()}
    measured = {name: one for name, one in sections.items() if one.device_class == "cuda"}
    yield "### Shipped profiles: unseen shapes and world sizes, all kernel sets together\n"
    yield "| profile | op | median / p90 | covers | bar | met |\n|---|---|---|---|---|---|"
    for name, section in measured.items():
        together = {op: held for op, held in section.heldout_communication.items() if "/" not in op}
        for op, held in {**section.heldout, **together}.items():
            bar = BARS.get(op.partition("_")[0])
            told = (
                f"{bar[0]:.0%} / {bar[1]:.0%} | {_yes(held.median <= bar[0] and held.p90 <= bar[1])}" if bar else " | "
            )
            yield f"| {name} | {op} | {held.median:.1%} / {held.p90:.1%} | {held.coverage:.0%} | {told} |"
    for name, section in measured.items():
        default = ", ".join(f"{kernels} for {precision}" for precision, kernels in section.default_kernels.items())
        yield f"\n### {name}\n\n{section.source}. Default kernels: {default}.\n"
        yield "| role | " + " | ".join(section.kernels) + " |\n|---|" + "---|" * len(section.kernels)
        for role in next(iter(section.kernels.values())):
            cells = [_cell(section.operators[roles[role]]) for roles in section.kernels.values()]
            yield f"| {role} | " + " | ".join(cells) + " |"


def _cell(one: OperatorSection) -> str:
    held: HeldOut = one.heldout
    labelled = [
        f"{n} rows {what}" for n, what in ((one.beats_physics, "beat physics"), (one.too_slow, "too slow")) if n
    ]
    left_out = f", {', '.join(labelled)} (with them {held.all_median:.1%} / {held.all_p90:.1%})" if labelled else ""
    wide = one.heldout_width
    widths = f"; whole n left out {wide.median:.1%} / {wide.p90:.1%}" if wide else ""
    beyond = f"; beyond the hull {np.expm1(one.beyond[0]):+.0%} to {np.expm1(one.beyond[1]):+.0%}" if one.beyond else ""
    return f"{one.kernel} {one.dtype}: {held.median:.1%} / {held.p90:.1%}{left_out}{widths}{beyond}"


def _meets(errors: Errors, bar: tuple[float, float]) -> bool:
    return errors.absolute(0.5) <= bar[0] and errors.absolute(0.9) <= bar[1]


def _both(errors: Errors, *, all_rows: bool = False) -> str:
    return f"{errors.absolute(0.5, all_rows=all_rows):.1%} / {errors.absolute(0.9, all_rows=all_rows):.1%}"


def _yes(held: bool) -> str:
    return "yes" if held else "no"


if __name__ == "__main__":
    main()
