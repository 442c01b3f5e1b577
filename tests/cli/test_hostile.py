"""Broken and hostile input as a user meets it: one line, the right code, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from moesim.routing.arrays import read_npz, write_npz

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

COUNTS = np.ones((2, 3, 8), dtype=np.int64)
MAP = np.tile(np.arange(8), (3, 1))


@pytest.mark.parametrize(
    ("format_", "arrays", "said"),
    [
        ("sglang-stat", {"logical_count": COUNTS * 1.5}, "not integers|float64"),
        ("sglang-stat", {"logical_count": COUNTS[:0]}, "holds nothing"),
        ("sglang-stat", {"logical_count": COUNTS + (1 << 40)}, "reach"),
        ("sglang-per-pass", {"forward_pass_id": np.arange(3), "rank": np.zeros(3), "global_physical_count": COUNTS,
                             "last_physical_to_logical_map": MAP}, "2 passes"),
        ("vllm-eplb", {"expert_load_window": COUNTS, "physical_to_logical_map": MAP + 0.5}, "not whole"),
        ("vllm-eplb", {"expert_load_window": COUNTS, "physical_to_logical_map": MAP + 100}, "names expert 107"),
        ("router-logits", {"router_logits": np.zeros((2, 4, 8)), "bias": np.full((2, 8), np.nan)}, "bias"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_routing_are_refused(
    moesim: Moesim, format_: str, arrays: dict[str, Any], said: str
) -> None:
    np.savez("x.npz", **arrays)
    done = moesim("trace", "import", format_, "x.npz", "--top-k", "2", "-o", "out.npz")
    assert done.code == 2 and any(one in done.err for one in said.split("|")) and done.err.count("\n") == 1
    assert not Path("out.npz").exists()


@pytest.mark.parametrize("path", ["/dev/zero", ".", "a" * 5000 + ".npz"])
def test_what_is_no_file_is_refused(moesim: Moesim, path: str) -> None:
    for command in (("trace", "import", "sglang-stat", path, "-o", "o.npz"), ("topo", "import", path), ("run", path)):
        assert moesim(*command).code == 2


def test_sizes_are_asked_for_before_memory(moesim: Moesim) -> None:
    Path("t").mkdir()
    for sizes in ({"num_experts": 10**13, "num_experts_per_token": 2}, {"num_experts": 8, "num_experts_per_token": 0}):
        Path("t/meta_info.json").write_text(json.dumps(sizes))
        Path("t/rank0.safetensors").write_text("<!doctype html>")
        done = moesim("trace", "import", "trtllm", "t", "-o", "o.npz")
        assert done.code == 2 and "sizes" in done.err
    assert moesim("run", "demo-tiny", "--set", "batch.tokens_per_gpu=1000000000").code == 2


def test_counts_beyond_two_gib_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moesim.routing.arrays.ZIP64", 1 << 10)
    write_npz(tmp_path / "x.npz", counts=np.arange(1000))
    assert (read_npz(tmp_path / "x.npz", ("counts",))["counts"] == np.arange(1000)).all()


def test_a_flipped_bit_in_a_run_is_no_result(moesim: Moesim) -> None:
    moesim("run", "demo-tiny", "--out", "a")
    for name in ("result.json", "pictures.json", "scenario.yaml", "digests.json"):
        whole = Path("a", name).read_bytes()
        Path("a", name).write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
        assert moesim("explain", "a").code == moesim("report", "a", "-o", "p.html").code == 2
        Path("a", name).write_bytes(whole)
    assert moesim("explain", "a").code == 0


def test_a_run_is_named_by_the_contents_of_its_files(moesim: Moesim) -> None:
    Path("t.yaml").write_text(_shipped())
    runs = set()
    for path in ("t.yaml", "./t.yaml"):
        assert moesim("run", "demo-tiny", "--set", f"cluster.topology={path}").code == 0
        runs |= {one.name for one in Path("runs").iterdir()}
    assert len(runs) == 1
    Path("t.yaml").write_text(Path("t.yaml").read_text() + "# edited\n")
    assert moesim("run", "demo-tiny", "--set", "cluster.topology=t.yaml").code == 0
    assert len(list(Path("runs").iterdir())) == 2


def _shipped() -> str:
    from moesim.hardware import find_topology

    return find_topology("dgx-h100").read_text()


def test_a_run_takes_the_place_of_another_and_of_nothing_else(moesim: Moesim) -> None:
    moesim("run", "demo-tiny", "--out", "a", "--report")
    assert moesim("run", "demo-tiny", "--out", "a").code == 0 and Path("a/report.html").exists()
    assert moesim("run", "demo-tiny", "--seed", "1", "--out", "a").code == 0
    assert not Path("a/report.html").exists(), "a page of another run goes with it"
    Path("a/thesis.txt").write_text("years of work")
    done = moesim("run", "demo-tiny", "--out", "a")
    assert done.code == 2 and "thesis.txt" in done.err and Path("a/thesis.txt").exists()


def test_brackets_are_no_markup_and_control_characters_are_not_obeyed(moesim: Moesim) -> None:
    done = moesim("run", "demo-tiny", "--set", "cluster.nod\x1b[2Jes=1")
    assert done.code == 2 and "\x1b" not in done.err
    Path("t.yaml").write_text(_shipped().replace("name: dgx-h100", "name: 'dgx [/lab]'", 1))
    done = moesim("run", "demo-tiny", "--set", "cluster.topology=t.yaml")
    assert done.code == 0 and "dgx [/lab]" in done.out


def test_a_failed_target_fails_through_a_closed_pipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "moesim", "run", "demo-tiny", "--json", "--assert", "step_time_s < 1e-9"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=tmp_path)
    os.close(writer)
    assert done.returncode == 4 and b"does not hold" in done.stderr


@pytest.mark.parametrize("target", ["step_time_s < 1" + "0" * 400, "step_time_s < 1e308 * 1e308 * 0"])
def test_numbers_beyond_all_range_in_a_target(moesim: Moesim, target: str) -> None:
    assert moesim("run", "demo-tiny", "--assert", target).code in (2, 4)


def test_a_page_that_cannot_be_written_says_what_was_kept(moesim: Moesim) -> None:
    done = moesim("run", "demo-tiny", "--out", "a", "--report=" + "x" * 5000)
    assert done.code == 2 and "the run itself is stored in a" in done.err and moesim("explain", "a").code == 0


@pytest.mark.parametrize("words", [("run", "demo-tiny", "--out", "a\0b"), ("trace", "import", "a\0b"), ("a\0b",)])
def test_a_null_byte_is_in_no_name(moesim: Moesim, words: tuple[str, ...]) -> None:
    """`--out` with one was exit 70."""
    done = moesim(*words)
    assert done.code == 2 and "a\\x00b: holds a null byte" in done.err


def test_a_value_of_five_thousand_digits_is_not_repeated(moesim: Moesim) -> None:
    done = moesim("run", "demo-tiny", "--set", "batch.tokens_per_gpu=" + "9" * 5000)
    assert done.code == 2 and len(done.err) < 500 and "(5002 characters)" in done.err


def test_a_run_is_named_by_the_sources_too(moesim: Moesim, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same scenario under changed sources took the place of the run before it."""
    moesim("run", "demo-tiny")
    moesim("run", "demo-tiny")
    monkeypatch.setattr("moesim.cli.play.sources_digest", lambda: "other sources")
    moesim("run", "demo-tiny")
    assert len(list(Path("runs").iterdir())) == 2
