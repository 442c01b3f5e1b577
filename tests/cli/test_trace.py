"""`moesim trace`: each verb writes what the next one reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from moesim.routing import read_trace
from moesim.routing.loads import LoadRecord, loads_of, write_loads
from moesim.studies.routing import trace_path

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim


@pytest.fixture
def synthetic(moesim: Moesim) -> str:
    knobs = ("--set", "tokens=600", "--set", "popularity.zipf=0.5", "--set", "domains=[a, b]")
    assert moesim("trace", "synth", "tiny-moe", *knobs, "-o", "s.parquet").code == 0
    return "s.parquet"


def test_stats_print_one_json_document_and_write_a_page(moesim: Moesim, synthetic: str) -> None:
    done = moesim("trace", "stats", synthetic, "--knobs", "--report=page.html", "--json")
    found = json.loads(done.out)
    assert done.code == 0 and found["metrics"]["tokens"]["value"] == 600 and "knob_zipf" in found["metrics"]
    page = Path("page.html").read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert data["summary"]["breakdown"] == found["breakdown"] and len(data["load"]) == 8
    assert data["summary"]["metrics"].items() <= found["metrics"].items() and list(found)[2:] == [
        "provenance",
        "warnings",
    ]


def test_export_then_import_gives_the_same_tokens(moesim: Moesim, synthetic: str) -> None:
    assert moesim("trace", "export", "vllm-returned", synthetic, "-o", "v.jsonl").code == 0
    assert moesim("trace", "import", "vllm-returned", "v.jsonl", "--model", "tiny-moe", "-o", "b.parquet").code == 0
    found = json.loads(moesim("trace", "diff", synthetic, "b.parquet", "--json").out)
    assert found["metrics"]["common_tokens"]["value"] == 600 and found["metrics"]["fluctuation"]["value"] == 0


def test_counts_travel_as_npz(moesim: Moesim, synthetic: str) -> None:
    assert moesim("trace", "export", "trtllm", synthetic, "-o", "folder").code == 0
    assert "no tokens" in moesim("trace", "import", "trtllm", "folder", "-o", "counts.npz").out
    assert moesim("trace", "export", "sglang-stat", "counts.npz", "-o", "stat.npz").code == 0
    tokens, counts = (json.loads(moesim("trace", "stats", name, "--json").out) for name in (synthetic, "counts.npz"))
    assert counts["metrics"]["gini_mean"] == tokens["metrics"]["gini_mean"] and "tokens" not in counts["metrics"]
    assert moesim("trace", "stats", "counts.npz", "--knobs").code == 2


def test_stats_take_a_placement_file(moesim: Moesim, synthetic: str) -> None:
    Path("p.json").write_text(json.dumps({"physical_to_logical_map": [list(range(32))] * 8}))
    done = moesim("trace", "stats", synthetic, "--placement", "p.json", "--gpus", "8", "--json")
    assert 0 <= json.loads(done.out)["metrics"]["local_activation_rate"]["value"] <= 1, done.err


def test_a_transplant_says_what_it_is(moesim: Moesim, synthetic: str) -> None:
    done = moesim("trace", "transplant", synthetic, "Qwen/Qwen3-30B-A3B", "-o", "t.parquet")
    assert done.code == 0 and "transplanted, assumed" in done.out
    assert moesim("trace", "diff", synthetic, "t.parquet").code == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("stats", "tiny-mo"), "did you mean 'tiny-moe'"),
        (("import", "vlm-returned", "x", "-o", "y"), "did you mean 'vllm-returned'"),
        (("synth", "tiny-moe", "--set", "afinity=1", "-o", "y"), "did you mean 'affinity'"),
        (("synth", "tiny-moe", "--set", "affinity=2", "-o", "y"), "less than or equal to 1"),
        (("export", "sglang-stat", "none.npz", "-o", "y"), "none.npz"),
        (("transplant", "tiny-moe", "mistralai/Mixtral-8x7B-v0.1", "-o", "y"), "no multiple of the 32"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(moesim: Moesim, arguments: tuple[str, ...], message: str) -> None:
    done = moesim("trace", *arguments)
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1 and not Path("y").exists()


def test_counts_and_tokens_of_one_recording_do_not_differ_and_another_s_do(moesim: Moesim) -> None:
    """Total variation by hand: shares 3/4, 1/4 against 1/4, 3/4 are 1/2 apart."""
    whole = read_trace(trace_path("tiny-moe"))
    write_loads(loads_of(whole), Path("a.npz"))
    same = json.loads(moesim("trace", "diff", "a.npz", "tiny-moe", "--json").out)
    assert same["metrics"]["total_variation"]["value"] == 0
    assert "common_tokens" not in same["metrics"] and "counts tell no tokens" in same["warnings"][0]
    header = replace(whole.header, moe_layers=1, num_experts=2, top_k=1)
    for name, counts in (("b", [3, 1]), ("c", [10, 30]), ("d", [0, 0])):
        write_loads(LoadRecord(header, np.array([[counts]]), (0,), 1), Path(f"{name}.npz"))
    apart = json.loads(moesim("trace", "diff", "b.npz", "c.npz", "--json").out)["metrics"]
    assert apart["total_variation"]["value"] == 0.5 and apart["correlation"]["value"] == pytest.approx(-1)
    assert moesim("trace", "diff", "a.npz", "b.npz").code == 2
    assert "all counts are 0" in moesim("trace", "diff", "b.npz", "d.npz").err
