"""Answers that were wrong, played again: before, now, and the published or hand-computed figure beside them.

    python -m trials.accuracy [-o calibration/ACCURACY.md]

"Before" is what the issue that found them states. Each case is one run of the command line's own function; a refusal is
an answer too. Takes some minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from moesim import atomic
from moesim.errors import MoesimError
from moesim.studies import Result, run
from moesim.studies.validation import validate, validate_all
from moesim.units import show_bytes, show_seconds

HEAD = "# How far off: answers that were wrong\n\nWritten by `python -m trials.accuracy`; not edited by hand.\n"
CONTIGUOUS = ("experts.placement=contiguous", "experts.redundant=0", "routing={balanced: true}")
TREE = ("cluster={topology: rail-fat-tree, nodes: 2}", "parallel={data_parallel_size: 16, expert_parallel_size: 16}",
        "comm.dispatch=nccl", "batch.tokens_per_gpu=256", "routing={balanced: true}")  # fmt: skip
GB200 = (*CONTIGUOUS, "cluster={topology: gb200-nvl72, nodes: 1}", "network.level=port_load",
         "batch={phase: decode, tokens_per_gpu: 128, context: 4096}",
         "parallel={data_parallel_size: 64, expert_parallel_size: 64}")  # fmt: skip
EP64 = (*CONTIGUOUS, "cluster.nodes=8", "parallel={data_parallel_size: 64, expert_parallel_size: 64}")
LATENT = (*EP64, "batch={phase: decode, tokens_per_gpu: 128, context: 4096}", "network.level=port_load")
TP8 = (*CONTIGUOUS, "cluster={topology: hgx-h200, nodes: 1}", "overlap.schedule=sequential", "comm.dispatch=nccl",
       "parallel={tensor_parallel_size: 8, data_parallel_size: 1, expert_parallel_size: 8}",
       "batch={phase: decode, tokens_per_gpu: 128, context: 4096}")  # fmt: skip


class Case(NamedTuple):
    """One row: a scenario and its overrides, what is read off, what it was, and what it should be."""

    section: str
    scenario: str
    changes: tuple[str, ...]
    read: Callable[[Result], str]
    before: str
    reference: str


def step(result: Result) -> str:
    """The step time."""
    return show_seconds(result.metrics["step_time_s"].value)


def core(result: Result) -> str:
    """The core of attention: seconds, and what it reaches of the memory's rate."""
    found = next(one for one in result.provenance["operators"] if one["label"] == "attention core")
    named = any(kernel in text for text in result.warnings for kernel in found["kernels"])
    warned = ", the kernel is warned of" if named else ""
    return f"attention core {show_seconds(found['seconds'])}, {found['of_bandwidth']:.0%} of memory's rate{warned}"


def imbalance(result: Result) -> str:
    """Its share of the step."""
    seconds = result.breakdown["imbalance_s"] or 0.0
    return f"imbalance {seconds / result.metrics['step_time_s'].value:+.1%}"


def link(result: Result) -> str:
    """How full the hottest link is on average, and the step."""
    return f"{step(result)}, hottest link {result.metrics['hottest_link_utilisation'].value:.0%}"


def rate(result: Result) -> str:
    """Tokens a second and node, over the published figure."""
    return f"predicted / published {result.metrics['predicted_over_published'].value:.3f}, {imbalance(result)}"


def served(result: Result) -> str:
    """The step, and tokens a second and node."""
    return f"{step(result)}, {result.metrics['tokens_per_s_per_node'].value:,.0f} tok/s a node"


def memory(result: Result) -> str:
    """Peak memory of a GPU."""
    return f"{show_bytes(result.metrics['peak_memory_bytes'].value)} a GPU"


def warned(result: Result) -> str:
    """Tokens of a node, and what is said of GPUs that idle."""
    idle = [text for text in result.warnings if "idle" in text or "no rank" in text]
    return f"{result.metrics['tokens_per_s_per_node'].value:,.0f} tok/s a node; " + ("; ".join(idle) or "no warning")


COLLECTIVES_BEFORE = {458.65: "44.5", 483.77: "44.5", 365.84: "44.5", 480.0: "315", 370.0: "315"}
CASES = (
    Case("Parts of a step", "demo-qwen3", ("batch.tokens_per_gpu=1",), imbalance, "-8.8 %", ">= 0"),
    Case("Parts of a step", "mixtral-train-ep8", (), imbalance, "-4.5 ms", ">= 0 (balanced routing)"),
    Case("Parts of a step", "dsv3-prefill-ep32", (), rate, "1.037, imbalance -0.2 %",
         "1; the published pair differs by 18 %"),
    Case("Parts of a step", "dsv3-prefill-ep32-balanced", (), rate, "0.877", "1"),
    Case("Parts of a step", "dsv3-decode-ep72", (), rate, "1.268 (72.5 ms)", "1; fluid network 77.4 ms"),
    Case("Network", "dsv3-prefill-ep32", ("network.efficiency=0.0000000001",), step, "2.503 s, exit 0",
         "refused: a time beyond the clock"),
    Case("Network", "demo-tiny", TREE, link, "", "the row below without 2:1 leaves"),
    Case("Network", "demo-tiny", (*TREE, "cluster.oversubscription=2"), link, "no change, a link 111 % used",
         "slower; at most 100 %"),
    Case("Network", "nic-fault-ep16", ("faults=[]",), served, "", "the row below without the fault"),
    Case("Network", "nic-fault-ep16", ("faults=[{at: 20 us, link: node0/nic3, factor: 0, then: abort}]",), served,
         "35 % more tokens/s than without the fault", "an eighth of a node's rows lost, not throughput"),
    Case("Compute", "dsv3-decode-ep72", (*LATENT, "precision.kv_cache=bf16"), core, "40.4 ms",
         "roofline 20.9 ms"),
    Case("Compute", "dsv3-decode-ep72", (*LATENT, "precision.kv_cache=fp8"), core, "95.5 ms",
         "roofline 18.7 ms; not slower than bf16, or a warning"),
    Case("Compute", "dsv3-decode-ep72", (*GB200, "costs={profile: gb200, kernels: vllm}"), step,
         "131 ms (batch not stated)", "near the other sets"),
    Case("Compute", "dsv3-decode-ep72", (*GB200, "costs={profile: gb200, kernels: sglang}"), step,
         "20 ms (batch not stated)", "near the other sets"),
    Case("Compute", "dsv3-decode-ep72", ("network.level=port_load", "batch.tokens_per_gpu=256"), step, "53.7 ms", ""),
    Case("Compute", "dsv3-decode-ep72", ("network.level=port_load", "batch.tokens_per_gpu=257"), step, "61.7 ms",
         "the row above, and hardly more"),
    Case("Compute", "demo-tiny", ("cluster.topology=dgx-b200",), step, "2 % faster (H100's kernels)",
         "faster than on H100, costs follow the device"),
    Case("Compute", "demo-tiny", (), step, "", "on H100"),
    Case("Memory and layout", "demo-qwen3", ("parallel={tensor_parallel_size: 8, data_parallel_size: 1, "
         "expert_parallel_size: 8}",), memory, "4 KV heads cut in 8: half the cache", "KV heads held twice"),
    Case("Memory and layout", "dsv3-decode-ep72", TP8, memory, "accepted (102 GB in its batch)",
         "refused: the latent is on every rank (231 GB)"),
    Case("Memory and layout", "demo-tiny", ("cluster.nodes=2",), warned, "no warning, tokens a node halved",
         "8 GPUs idle"),
)  # fmt: skip


def now(case: Case) -> str:
    """What moesim answers today; said on stderr as it comes, since a case may take a minute."""
    answer = _answer(case)
    print(f"{case.scenario} {' '.join(case.changes)}: {answer}", file=sys.stderr)
    return answer


def _answer(case: Case) -> str:
    try:
        return case.read(run(case.scenario, overrides=list(case.changes)))
    except MoesimError as error:
        return f"refused ({error.exit_code}): {error.what}"


def suite(name: str, title: str, before: Mapping[float, str]) -> Iterator[str]:
    """A table of published points; `before`: published value -> what was predicted once."""
    yield f"\n## {title} (`moesim validate {name}`)\n\n| point | unit | published | before | now | error |"
    yield "|---|---|---|---|---|---|"
    for point in validate(name).points:
        keys = ", ".join(str(value) for value in point.keys.values() if value)
        shown = f"{point.measured:.4g} | {before.get(point.measured, '')} | {point.predicted:.4g} | {point.error:+.1%}"
        yield f"| {keys} | {point.unit} | {shown} |"


def lines(cases: tuple[Case, ...]) -> Iterator[str]:
    """The document."""
    yield HEAD
    for section in dict.fromkeys(case.section for case in cases):
        yield f"\n## {section}\n\n| scenario | changes | before | now | should be |\n|---|---|---|---|---|"
        for case in cases:
            if case.section == section:
                changes = " ".join(f"`{one}`" for one in case.changes) or "as shipped"
                yield f"| {case.scenario} | {changes} | {case.before} | {now(case)} | {case.reference} |"
    yield from suite("collectives", "Collectives and DeepEP off H800", COLLECTIVES_BEFORE)
    yield from suite("kernels", "Expert kernels as users measured them", {})
    yield from suite("network", "DeepEP on H800", {})
    yield from suite("papers", "Training in papers", {})
    yield "\n## Operators and their figures (`moesim validate all`)\n\n| operator | figure | typical | worst | of |"
    yield "|---|---|---|---|---|"
    for one in validate_all(steps=False).figures:
        shown = ["" if value is None else f"{value:.1%}" for value in (one.typical, one.worst)]
        yield f"| {one.operator} | {one.kind} | {' | '.join(shown)} | {one.of} |"


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Answers that were wrong, played again.")
    parser.add_argument("-o", "--out", type=Path, default=Path("calibration/ACCURACY.md"))
    atomic.write(parser.parse_args().out, "\n".join(lines(CASES)) + "\n")


if __name__ == "__main__":
    main()
