"""`moesim place`: out of the box, into files of engines, and one line for everything that cannot be."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from moesim.placement import Answer, Bound, Budget, PlacementProblem, Progress, strategies
from moesim.placement.formats import Frame, read_placement
from moesim.report.progress import bar, words
from moesim.routing import read_trace
from moesim.routing.loads import LoadRecord, loads_of, write_loads
from moesim.studies.routing import trace_path
from tests.cli.test_golden import assert_same, compared

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

GOOD = ["place", "--trace", "tiny-moe", "--topology", "dgx-h100", "--gpus", "8", "--redundant", "8"]
QUICK = [*GOOD, "--strategy", "greedy,round_robin"]


def test_a_golden_run(moesim: Moesim) -> None:
    done = moesim(*QUICK, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    for row in document["strategies"]:
        row["seconds"] = 0.0
    text = json.dumps(document, indent=2) + "\n"
    assert_same(document, json.loads(compared("place-tiny.json", text)))
    assert document["provenance"]["verdict"] in done.err


@pytest.mark.parametrize(
    ("name", "file"),
    [("sglang", "p.json"), ("vllm", "p.npz"), ("trtllm", "p.yaml"), ("eplb", "p.json"), ("omniinfer", "p.npy")],
)
def test_the_best_is_written_for_every_engine(moesim: Moesim, name: str, file: str) -> None:
    done = moesim(*QUICK, "--no-simulate", "-o", file, "--format", name)
    assert done.code == 0, done.err
    assert f"placement written to {file}" in done.out
    placement = read_placement(Path(file), Frame(8, 32, tuple(range(1, 9)), 9))
    assert (placement.num_layers, placement.num_slots, placement.num_ranks) == (8, 40, 8)


def test_a_written_placement_is_played_by_a_scenario_and_is_the_next_one_s_previous(moesim: Moesim) -> None:
    moesim(*QUICK, "-o", "p.npy")
    assert moesim("run", "demo-tiny", "--set", "experts.placement=p.npy", "--out", "r").code == 0
    done = moesim(*QUICK, "--previous", "p.npy", "--max-moves", "0", "--json")
    assert done.code == 0, done.err
    rows = {row["strategy"]: row["moves"] for row in json.loads(done.out)["strategies"]}
    assert rows["previous"] == rows["greedy"] == 0
    assert "left out: round_robin moves" in done.err


def test_hot_layers_may_have_more_slots_and_the_next_run_starts_from_there(moesim: Moesim) -> None:
    command = [*GOOD[:7], "--strategy", "greedy", "--no-simulate"]
    done = moesim(*command, "--redundant", "8", "--by-layer", "-o", "p.npy")
    assert done.code == 0 and "layers differ in slots: 0 to" in done.out, done.err
    held = read_placement(Path("p.npy"))
    assert held.owned.sum() == 8 * 40 and len(set(held.owned.sum(axis=1).tolist())) > 1
    assert moesim(*command, "--redundant", "8", "--by-layer", "-o", "q.json", "--format", "sglang").code == 2
    assert moesim("run", "demo-tiny", "--set", "experts.placement=p.npy", "--out", "r").code == 0
    again = moesim(*GOOD[:7], "--no-simulate", "--previous", "p.npy", "--max-moves", "9", "--json")
    assert again.code == 0, again.err
    assert 0 <= json.loads(again.out)["strategies"][1]["moves"] <= 9
    refused = moesim(*command, "--by-layer")
    assert refused.code == 3 and "--redundant" in refused.err


def test_what_the_engine_cannot_hold_is_not_picked(moesim: Moesim) -> None:
    """With 8 redundant slots round robin puts the same expert twice on a GPU."""
    command = ["place", "--trace", "tiny-moe", "--topology", "dgx-h100", "--gpus", "8", "--redundant", "8"]
    done = moesim(*command, "--strategy", "greedy,round_robin", "-o", "p.npy", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["provenance"]["best"] == "greedy"
    assert any("round_robin cannot be picked: omni-infer holds" in text for text in document["warnings"])
    assert moesim(*command, "--strategy", "round_robin", "-o", "q.npy").code == 0  # contiguous stays


def test_a_target_that_is_missed_is_exit_code_4(moesim: Moesim) -> None:
    done = moesim(*QUICK, "--no-simulate", "--json", "--assert", "gain_over_eplb > 0.9")
    assert done.code == 4 and "does not hold: gain_over_eplb" in done.err
    document = json.loads(done.out)
    assert {"verdict", "ceiling", "strategies"} <= set(document)
    assert document["verdict"]["reference"] == "eplb" and document["ceiling"]["text"] in done.err
    assert moesim(*QUICK, "--no-simulate", "--assert", "gain_over_eplb > -9").code == 0


def test_a_history_from_the_command_line(moesim: Moesim) -> None:
    trace = read_trace(trace_path("tiny-moe"))
    Path("past").mkdir()
    for number in range(4):
        record = loads_of(trace.window(number * 2000, number * 2000 + 2000))
        write_loads(record, Path(f"past/{number}.npz"))
    command = ["place", "--history", "past", *GOOD[3:], "--no-simulate"]
    done = moesim(*command, "--json", "-o", "p.json", "--format", "eplb", "--report=h.html")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    page = Path("h.html").read_text()
    assert json.loads(page.split('id="data">')[1].split("</script>")[0])["document"] == document
    assert document["provenance"]["regimes"][0] == 0 and len(document["provenance"]["regimes"]) == 4
    assert all(len(way["moved_each"]) == len(way["each"]) == 4 for way in document["ways"])
    moved = [way for way in document["ways"] if way["changes"]]
    assert moved and all(way["bytes"] is None and max(way["moved_each"]) > 0 for way in moved)
    assert document["verdict"]["text"].startswith("Your load comes in") and "Rebalancing" in done.err
    assert len(document["ways"]) == 4
    assert read_placement(Path("p.json"), Frame(8, 32, tuple(range(1, 9)), 9)).num_slots == 40
    assert moesim(*command, "--trace", "tiny-moe").code == 2


def test_several_recordings_from_the_command_line(moesim: Moesim) -> None:
    """Three different loads, and a near copy of the first that counts with it: each is left out in its turn, or a named
    one is held out; a folder is the same as its files.
    """
    header = loads_of(read_trace(trace_path("tiny-moe"))).header
    Path("loads").mkdir()
    random = np.random.default_rng(0)
    loads = [(random.lognormal(0, 0.8, (1, 8, 32)) * 1000).astype(np.int64) for _ in range(3)]
    for name, counts in zip("abcd", (*loads, loads[0] + 1), strict=True):
        write_loads(LoadRecord(header, counts, tuple(range(1, 9)), 9), Path(f"loads/{name}.npz"))
    options = [*GOOD[3:], "--strategy", "eplb,multiwindow", "--no-simulate", "--json"]
    files = ",".join(f"loads/{name}.npz" for name in "abcd")
    listed, folder = (moesim("place", "--trace", trace, *options) for trace in (files, "loads"))
    assert listed.code == folder.code == 0, listed.err
    one, other = json.loads(listed.out), json.loads(folder.out)
    assert len(one["provenance"]["left_out_in_turn"]) == 3 and "near cop" in listed.err
    assert [row["judged"] for row in one["strategies"]] == [row["judged"] for row in other["strategies"]]
    assert all(len(row["each"]) == 3 for row in one["strategies"]) and one["verdict"]["n"] == 3
    held = moesim("place", "--trace", "loads", *options, "--holdout", "b")
    assert held.code == 0 and json.loads(held.out)["provenance"]["judged_windows"]["held out"] == 1
    assert json.loads(held.out)["provenance"]["windows"] == 2
    assert moesim("place", "--trace", "loads", *options, "--holdout", "x").code == 2


def test_hierarchical_against_global_is_answered_with_load_and_traffic(moesim: Moesim) -> None:
    """Groups of experts that stay in a node cannot touch more nodes than they are."""
    command = ["place", "--trace", "tiny-moe", "--topology", "dgx-h100", "--gpus", "16", "--groups", "2"]
    done = moesim(*command, "--strategy", "eplb,eplb_hierarchical", "--no-simulate", "--json")
    assert done.code == 0, done.err
    told = [text for text in json.loads(done.out)["warnings"] if text.startswith("hierarchical EPLB beside global")]
    assert len(told) == 1 and "makespan" in told[0] and "nodes a token goes to" in told[0]


def test_a_page_is_written(moesim: Moesim) -> None:
    done = moesim(*QUICK, "--report")
    assert done.code == 0, done.err
    assert "Does a plan carry over?" in Path("placement.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--slots", "3"], 3, "8 slots too few. Try: 4 slots a rank"),
        (["--load-cap", "1.0001"], 3, "load cap"),
        (["--set", "batch={phase: decode, tokens_per_gpu: 4096, context: 60000}"], 3, "experts may take"),
        (["--strategy", "gredy"], 2, "did you mean 'greedy'"),
        (["--format", "sglang"], 2, "--format needs -o"),
        (["-o", "p.json"], 2, "not told by its name"),
        (["-o", "p.json", "--format", "sglan"], 2, "did you mean 'sglang'"),
        (["-o", "p.npz", "--format", "sglang"], 2, "sglang is not written there"),
        (["--slots", "x"], 2, "no number of slots"),
        (["--holdout", "1"], 2, "holdout"),
        (["--previous", "nowhere.json"], 2, "nowhere.json: cannot be read"),
        (
            ["--slots", "4,4,4,4,4,4,4,5", "-o", "p.json", "--format", "sglang"],
            2,
            "sglang gives every GPU equally many",
        ),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    moesim: Moesim, arguments: list[str], code: int, message: str
) -> None:
    done = moesim(*GOOD[:7], "--strategy", "greedy", *arguments)
    assert (done.code, done.err.count("\n")) == (code, 1), done.err
    assert message in done.err
    assert not list(Path().iterdir())


class Endless:
    """Offers the plan of contiguous, is interrupted, and answers with the best that it has offered."""

    name, summary = "endless", "for this test"

    def plan(self, problem: PlacementProblem, budget: Budget) -> Answer:
        placement = strategies.find("round_robin").plan(problem, budget).placement
        budget.offer(placement, 2.0, Bound(1.0, "test"))
        os.kill(os.getpid(), signal.SIGINT)
        while not budget.expired:
            pass
        assert budget.best is not None
        return budget.best


def test_ctrl_c_answers_with_the_best_found_and_its_gap(moesim: Moesim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(strategies.REGISTRY, "endless", Endless())
    done = moesim(*GOOD, "--strategy", "endless,greedy", "-o", "p.yaml")
    assert done.code == 130
    assert "interrupted: the best found until then" in done.out
    assert "greedy" not in done.out  # nothing was begun after it
    assert "is the best found so far (gap " in done.err and "written to p.yaml" in done.err
    assert Path("p.yaml").is_file()


def test_the_bar_shows_incumbent_bound_and_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    assert words(Progress("ilp", 1.0, 1.25, 1.0, 0.25)) == "best 1.25, bound 1, gap 25.00%"
    assert words(Progress("ilp", 1.0, 1.25, 0.0, None)) == "best 1.25, no bound"
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    with bar(stream, 10.0) as tell:
        tell(Progress("first", 0.1, 2.0, 0.0, None))
        tell(Progress("second", 0.2, 1.5, 1.0, 0.5))
    assert "second" in stream.getvalue() and "gap 50.00%" in stream.getvalue()
