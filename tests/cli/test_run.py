"""`moesim run`, `explain`, `report`: files, streams and exit codes."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moesim.report.progress import told
from moesim.studies import run

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

GOOD = ["run", "demo-tiny"]


def test_a_run_is_stored_and_printed(moesim: Moesim) -> None:
    done = moesim(*GOOD)
    assert done.code == 0
    assert done.err == ""
    assert "Where did the time go" in done.out
    folder = next(Path("runs").iterdir())
    assert f"stored in {folder}" in done.out
    assert sorted(path.name for path in folder.iterdir()) == [
        "digests.json",
        "pictures.json",
        "result.json",
        "scenario.yaml",
    ]


def test_json_is_alone_on_stdout_and_equals_the_stored_document(moesim: Moesim) -> None:
    done = moesim(*GOOD, "--json")
    document = json.loads(done.out)
    assert set(document) == {"metrics", "breakdown", "provenance", "warnings"}
    assert "Where did the time go" in done.err
    assert json.loads(next(Path("runs").glob("*/result.json")).read_text()) == document
    shapes = {frozenset(metric) for metric in document["metrics"].values()}
    assert shapes == {frozenset({"value", "unit"}), frozenset({"value", "unit", "low", "high"})}


def test_the_same_command_writes_the_same_bytes(moesim: Moesim) -> None:
    first = moesim(*GOOD, "--json", "--out", "a")
    again = moesim(*GOOD, "--json", "--out", "b")
    assert first.out == again.out
    for name in ("result.json", "pictures.json", "scenario.yaml"):
        assert (Path("a") / name).read_bytes() == (Path("b") / name).read_bytes()


def test_the_stored_scenario_runs_to_the_same_result(moesim: Moesim) -> None:
    moesim(*GOOD, "--set", "batch.tokens_per_gpu=64", "--out", "a")
    assert moesim("run", "a/scenario.yaml", "--out", "b").code == 0
    assert Path("a/result.json").read_bytes() == Path("b/result.json").read_bytes()


def test_page_and_trace_go_where_they_are_told(moesim: Moesim) -> None:
    moesim(*GOOD, "--out", "a", "--report", "--trace")
    assert Path("a/report.html").is_file()
    assert json.loads(Path("a/trace.json").read_text())["schemaVersion"] == 1
    moesim("run", "--report=page.html", "--trace=ranks/", "demo-tiny", "--out", "b")
    assert Path("page.html").is_file()
    assert len(list(Path("ranks").iterdir())) == 8


def test_a_word_after_report_is_the_scenario(moesim: Moesim) -> None:
    assert moesim("run", "--report", "demo-tiny", "--out", "a").code == 0
    assert Path("a/report.html").is_file()


def test_a_missed_target_is_exit_code_4_and_the_run_is_kept(moesim: Moesim) -> None:
    assert moesim(*GOOD, "--assert", "step_time_s > 0").code == 0
    done = moesim(*GOOD, "--assert", "step_time_s < 0", "--out", "missed")
    assert done.code == 4
    assert done.err.count("\n") == 1
    assert Path("missed/result.json").is_file()


def test_a_page_draws_the_ranks_that_are_asked_for(moesim: Moesim) -> None:
    """Of a step two streams each, of a pipeline one GPU of each of its ranks; others by what they compute."""
    assert moesim(*GOOD, "--ranks", "5,0-1", "--out", "a").code == 0
    drawn = json.loads(Path("a/pictures.json").read_text())["gantt"]
    assert [row["rank"] for row in drawn["rows"]] == sorted([0, 1, 5] * (len(drawn["rows"]) // 3))
    assert drawn["chosen"] and len(set(drawn["row"])) > 3
    small = ("run", "qwen3-train-16", "--set", "batch.micro_batches=4")
    assert moesim(*small, "--ranks", "1", "--out", "b").code == 0
    slots = json.loads(Path("b/pictures.json").read_text())["slots"]
    assert set(slots["rank"]) == {1}
    for words, said in (((*GOOD, "--ranks", "8"), "0 to 7"), ((*small, "--ranks", "0,2"), "0 to 1"),
                        ((*GOOD, "--ranks", "3-1"), "no stretch"), ((*GOOD, "--ranks", "0-99"), "no stretch"),
                        (("run", "demo-serve", "--ranks", "0"), "no chart of ranks")):  # fmt: skip
        done = moesim(*words, "--out", "c")
        assert done.code == 2 and said in done.err and not Path("c").exists()


def test_explain_and_report_read_stored_runs(moesim: Moesim) -> None:
    moesim(*GOOD, "--out", "a")
    moesim(*GOOD, "--seed", "1", "--out", "b")
    assert "A step takes" in moesim("explain", "a").out
    assert json.loads(moesim("explain", "a", "--json").out)["words"]
    assert moesim("report", "a", "b", "-o", "both.html").out.strip() == "both.html"
    assert Path("both.html").read_text().count('class="result"') == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run"], "SCENARIO or --demo"),
        (["run", "demo-tiny", "--demo"], "only one"),
        (["run", "demo-tinny"], "did you mean 'demo-tiny'"),
        (["run", "nothing.yaml"], "nothing.yaml: cannot be read"),
        ([*GOOD, "--set", "batch.tokens=3"], "did you mean"),
        ([*GOOD, "--set", "batch.tokens_per_gpu=-3"], "--set batch.tokens_per_gpu"),
        ([*GOOD, "--set", "batch.tokens_per_gpu"], "key=value"),
        ([*GOOD, "--seed", "-1"], "--seed"),
        ([*GOOD, "--assert", "step_time < 1"], "did you mean 'step_time_s'"),
        ([*GOOD, "--assert", "import os"], "not an expression"),
        ([*GOOD, "--sed", "1"], "--seed"),
        (["explain", "abc"], "moesim run --demo"),
        (["report"], "RUNS"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(moesim: Moesim, arguments: list[str], told: str) -> None:
    done = moesim(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert told in done.err
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"), ("a: [1", "bad.yaml:"), ("- 1", "list"), ("moesim: 1\nmoesim: 1\n", "bad.yaml:2"),
        ("moesim: 2\n", "bad.yaml"), ("\tmoesim: 1", "bad.yaml:1"), ("a: &x 1\nb: *x", "anchors"),
        ("a: !!python/name:os.system", "tag"),
    ],
)  # fmt: skip
def test_a_malformed_scenario_names_its_place(moesim: Moesim, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    done = moesim("run", "bad.yaml")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert told in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_what_does_not_fit_is_exit_code_3_with_the_memory_table(moesim: Moesim) -> None:
    done = moesim("run", "demo-qwen3", "--set", "batch.tokens_per_gpu=100000")
    assert done.code == 3
    assert "KV cache" in done.err
    assert not Path("runs").exists()


def test_a_folder_that_cannot_be_made_is_bad_input(moesim: Moesim) -> None:
    Path("file").write_text("")
    done = moesim(*GOOD, "--out", "file/run")
    assert done.code == 2
    assert [path.name for path in Path.cwd().iterdir()] == ["file"]


def test_few_tokens_reach_few_experts_and_no_part_is_negative(moesim: Moesim) -> None:
    """One token a GPU on 128 experts: an even spread over all of them would read more weights than the step does."""
    done = moesim("run", "demo-qwen3", "--set", "batch.tokens_per_gpu=1", "--json")
    document = json.loads(done.out)
    parts = {key: value for key, value in document["breakdown"].items() if value is not None}
    assert all(value >= 0 for key, value in parts.items() if key != "schedule_effect_s")
    assert parts["imbalance_s"] > 0 and parts["schedule_effect_s"] == 0
    assert sum(parts.values()) == pytest.approx(document["metrics"]["step_time_s"]["value"], rel=1e-12)


def test_no_bound_is_searched_that_nobody_prints(moesim: Moesim, monkeypatch: pytest.MonkeyPatch) -> None:
    """At EP144 the bound took 94 % of the run."""

    def asked(*_: object) -> None:
        raise AssertionError("a bound was searched")

    monkeypatch.setattr("moesim.placement.bounds.balance.bounds", asked)
    done = moesim(*GOOD, "--set", "experts.placement=greedy", "--set", "experts.redundant=8")
    assert done.code == 0, done.err


def test_what_takes_long_says_what_it_does(moesim: Moesim, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*arguments: object, **others: object) -> object:
        time.sleep(2.2)
        return run(*arguments, **others)  # type: ignore[arg-type]

    monkeypatch.setattr("moesim.report.progress.PATIENCE", 2.0)
    monkeypatch.setattr("moesim.cli.play.play_scenario", slow)
    for first, said in (
        (False, "demo-tiny"),
        (True, "demo-tiny, after compiling it, once (half a minute)"),
    ):
        monkeypatch.setattr("moesim.cli.play.uncompiled", lambda first=first: first)
        done = moesim(*GOOD, "--json")
        assert done.err.startswith(f"moesim run {said} (2 s)\n"), done.err
        assert json.loads(done.out)


def test_a_terminal_s_line_is_rewritten_and_wiped() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with told(stream, "moesim run x", 0.01) as tell:
        tell("placing experts")
        time.sleep(0.1)
    written = stream.getvalue()
    assert "\rmoesim run x: placing experts (0 s)" in written and written.endswith(f"{'':78}\r")


def test_a_page_is_small_and_says_how_to_play_it_again(moesim: Moesim) -> None:
    assert moesim("run", "demo-tiny", "--seed", "3", "--out", "r", "--report=p.html").code == 0
    text = Path("p.html").read_text()
    held = json.loads(text.partition('class="pictures">')[2].partition("</script>")[0])
    assert len(text) < 1_500_000 and held["scenario"] == Path("r/scenario.yaml").read_text()
    Path("again.yaml").write_text(held["scenario"])
    again = json.loads(moesim("run", "again.yaml", "--seed", "3", "--json").out)
    assert again["metrics"] == json.loads(Path("r/result.json").read_text())["metrics"]
