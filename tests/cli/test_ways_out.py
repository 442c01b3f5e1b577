"""Refusals of placements, faults, routed traces and calibration name a way out, and it works: each is taken here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from moesim.calibration.records import records_of, write_records

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

PLACE = ("place", "--trace", "tiny-moe", "--topology", "dgx-h100", "--gpus", "8", "--strategy", "contiguous",
         "--no-simulate")  # fmt: skip
LAYERS, EXPERTS = 9, 32  # of tiny-moe
ROW: dict[str, Any] = {"run": "r", "device": "NVIDIA H200", "device_class": "cuda", "backend": "torch", "version": "1",
                       "kernel": "mm", "dtype": "bf16", "provenance": "a law"}  # fmt: skip


def refused(moesim: Moesim, *words: str, says: str, way_out: str) -> None:
    """Exit code 2, one line, with that way out at its end."""
    done = moesim(*words)
    assert done.code == 2, done.err + done.out
    line = [one for one in done.err.splitlines() if one.startswith("moesim: ")]
    assert len(line) == 1 and says in line[0] and way_out in line[0].partition("Try: ")[2], done.err


def works(moesim: Moesim, *words: str) -> str:
    done = moesim(*words)
    assert done.code == 0, done.err
    return done.out + done.err


@pytest.mark.parametrize(
    ("wrong", "says", "way_out", "right"),
    [
        ("{at: 1 us, rank: 8, factor: 0.5}", "rank 8", "rank: 0 to 7", "{at: 1 us, rank: 7, factor: 0.5}"),
        (
            "{at: 1 us, link: gpu0/nvlink_up, factor: 0, then: reroute, detour: [gpu0/nvlink_up]}",
            "goes over the link itself", "then: stall", "{at: 1 us, link: gpu0/nvlink_up, factor: 0, until: 5 us}",
        ),
    ],
)  # fmt: skip
def test_faults(moesim: Moesim, wrong: str, says: str, way_out: str, right: str) -> None:
    refused(moesim, "run", "demo-tiny", "--set", f"faults=[{wrong}]", says=says, way_out=way_out)
    works(moesim, "run", "demo-tiny", "--set", f"faults=[{right}]")


def test_limits_of_a_search(moesim: Moesim) -> None:
    refused(moesim, *PLACE, "--load-cap", "nan", says="is not above 0", way_out="--load-cap 1.2")
    works(moesim, *PLACE, "--load-cap", "1.2")


def test_a_step_on_other_gpus_than_are_placed_for(moesim: Moesim) -> None:
    words = [word for word in PLACE if word != "--no-simulate"]
    refused(moesim, *words, "--set", "parallel.expert_parallel_size=4", says="the placement is for 8 GPUs",
            way_out="--gpus 4")  # fmt: skip
    works(moesim, *words)


def _table(path: Path, rows: Any) -> str:
    path.write_text(json.dumps({"physical_to_logical_map": rows}))
    return path.name


def test_placements_in_files(moesim: Moesim, tmp_path: Path) -> None:
    """A row too few, a slot too few, no number, and a file that was cut short."""
    whole = [list(range(EXPERTS)) for _ in range(LAYERS)]
    previous = (*PLACE, "--previous")
    good = _table(tmp_path / "good.json", whole)
    works(moesim, *previous, good)
    short = [*whole[:-1], whole[-1][:-1]]
    for name, rows, says, way_out in (
        ("short.json", short, "has 31 slots, row 0 has 32", "equally many in every row; an empty slot is -1"),
        ("word.json", [["a"] * EXPERTS] * LAYERS, "is no expert's number", "whole numbers from 0, or -1"),
        ("flat.json", [0, 1], "is no list of numbers", "[0, 1, 2, ...]"),
    ):
        refused(moesim, *previous, _table(tmp_path / name, rows), says=says, way_out=way_out)
    (tmp_path / "cut.json").write_text((tmp_path / "good.json").read_text()[:-20])
    refused(moesim, *previous, "cut.json", says="is not JSON", way_out="write it again")
    two = [one * 2 for one in whole]
    two[-1][-1] = -1
    works(moesim, *previous, _table(tmp_path / "even.json", [[*one, -1] for one in [[*w, *w[:7]] for w in whole]]))


def test_a_shapes_file(moesim: Moesim, tmp_path: Path) -> None:
    _records(tmp_path / "r")
    check = ("calibrate", "check", "h200_sxm", "--against", "r", "--shapes", "s.csv")
    for text, says, way_out in (("a,b\n", "first line", "hidden,inter,topk,num_experts there"),
                                ("hidden,inter,topk,num_experts\n", "holds no shape", "7168,2048,8,256"),
                                ("hidden,inter,topk,num_experts\n1,2,x,4\n", "1,2,x,4", "7168,2048,8,256"),
                                ("hidden,inter,topk,num_experts\n7168,2048,8,256\n", "no record is of its shapes",
                                 "no such file")):  # fmt: skip
        (tmp_path / "s.csv").write_text(text)
        refused(moesim, *check, says=says, way_out=way_out)


def _records(path: Path, device: str = "NVIDIA H200", **more: Any) -> None:
    rows = [ROW | more | {"op": "gemm", "m": m, "n": n, "k": 1024, "device": device,
                          "seconds": 5e-6 + 2.0 * m * n * 1024 / 3e14}
            for n in (512, 1024, 2048) for m in (1, 16, 256, 4096)]  # fmt: skip
    write_records(records_of(rows), path)


def test_records_that_make_no_profile(moesim: Moesim, tmp_path: Path) -> None:
    one = ROW | {"op": "elementwise", "bytes": 8, "seconds": 1e-6}
    write_records(records_of([one]), tmp_path / "few")
    says, way_out = "hold no GEMM, experts or attention", "records of gemm, grouped_gemm or attention"
    refused(moesim, "calibrate", "fit", "few", "-o", "p", says=says, way_out=way_out)
    refused(moesim, "calibrate", "select", "few", says="no kernel", way_out=way_out)
    _records(tmp_path / "r")
    works(moesim, "calibrate", "fit", "r", "-o", "p", "--prior", "none")
    works(moesim, "calibrate", "select", "r")


def test_a_profile_of_another_device(moesim: Moesim, tmp_path: Path) -> None:
    _records(tmp_path / "r", "NVIDIA H100 80GB HBM3")
    refused(moesim, "calibrate", "check", "h200_sxm", "--against", "r", says="the profile is of",
            way_out="moesim calibrate fit makes one of these records")  # fmt: skip
    refused(moesim, "calibrate", "fit", "r", "-o", "p", "--keep", "h200_sxm", says="the profile is of",
            way_out="no --keep: --prior lends")  # fmt: skip
    assert "assumed to be" in works(moesim, "calibrate", "fit", "r", "-o", "p", "--prior", "h200_sxm")
    works(moesim, "calibrate", "check", "p.yaml", "--against", "r")


def test_a_way_of_holding_out_that_the_records_do_not_have(moesim: Moesim, tmp_path: Path) -> None:
    _records(tmp_path / "r")
    works(moesim, "calibrate", "fit", "r", "-o", "p", "--prior", "none")
    refused(moesim, "calibrate", "check", "p.yaml", "--against", "r", "--holdout", "skew", says="none of the records",
            way_out="another --holdout than skew, or none")  # fmt: skip
    works(moesim, "calibrate", "check", "p.yaml", "--against", "r", "--holdout", "size")


def test_a_trace_of_a_router_that_fills_slots(moesim: Moesim) -> None:
    route = ("trace", "route", "demo-tiny", "-o", "t", "--set")
    routing = "routing={{router: {{name: {}}}, generator: {{domains: 2}}}}"
    refused(moesim, *route, routing.format("soft_moe"), says="soft_moe fills slots", way_out="router: topk_softmax")
    works(moesim, *route, routing.format("topk_softmax"))


def test_a_model_with_an_encoder_is_played_as_its_decoder(moesim: Moesim, tmp_path: Path) -> None:
    """In a step, served and trained: the model that the refusal writes down is taken as it stands there."""
    (tmp_path / "both").mkdir()
    config = {"model_type": "nllb-moe", "d_model": 512, "encoder_layers": 4, "decoder_layers": 4, "vocab_size": 32000,
              "encoder_ffn_dim": 1024, "decoder_ffn_dim": 1024, "encoder_attention_heads": 8, "num_experts": 8,
              "decoder_attention_heads": 8, "encoder_sparse_step": 2, "decoder_sparse_step": 2}  # fmt: skip
    (tmp_path / "both" / "config.json").write_text(json.dumps(config))
    even = ("--set", "routing={balanced: true}")
    for scenario in ("demo-tiny", "demo-serve", "mixtral-train-ep8"):
        both = ("run", scenario, *even, "--set", "model=both")
        refused(moesim, *both, says="4 layers of an encoder and 4 of a decoder", way_out="its decoder")
        decoder = moesim(*both).err.partition("model: ")[2].strip()
        works(moesim, "run", scenario, *even, "--set", f"model={decoder}")
