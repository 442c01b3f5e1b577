"""Placement runs: what strategies see, what they are judged on, who is picked, and what is said about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

import moesim as ms
from moesim.errors import BadInput, DoesNotFit
from moesim.models import load_model
from moesim.placement import Solution
from moesim.placement.bounds import balance
from moesim.placement.different import variation
from moesim.placement.formats import read_placement, write_placement
from moesim.placement.loads import rank_loads
from moesim.placement.relabel import held_by
from moesim.routing import RoutingTrace, TraceHeader, make_trace, read_trace, write_trace
from moesim.routing.loads import LoadRecord, loads_of, write_loads
from moesim.studies import Outcome
from moesim.studies.placing import Options, rebalance
from moesim.studies.placing.evidence import Paired
from moesim.studies.placing.history import LAST, SOME
from moesim.studies.placing.recordings import recordings
from moesim.studies.placing.windows import split, split_many
from moesim.studies.routing import trace_path

TINY = ("tiny-moe", "dgx-h100", 8)
HUGE = "batch={phase: decode, tokens_per_gpu: 4096, context: 60000}"  # a KV cache that leaves nothing for experts


@pytest.fixture(scope="module")
def trace() -> RoutingTrace:
    return read_trace(trace_path("tiny-moe"))


@pytest.fixture(scope="module")
def found() -> Outcome:
    return ms.place(*TINY, redundant=8, strategies=("greedy", "round_robin"))


def one(outcome: Outcome, **changes: Any) -> Solution:
    return replace(outcome.solutions[1], **{"each": (), "step_each": (), **changes})


def test_no_strategy_sees_what_it_is_judged_on(trace: RoutingTrace) -> None:
    made = split(trace, Options("tiny-moe", "dgx-h100", 8, holdout=0.25))
    assert made.train.tokens is not None and made.deciding.tokens is not None
    assert made.train.tokens.shape[1] + made.deciding.tokens.shape[1] == trace.tokens
    assert np.array_equal(made.train.load + made.deciding.load, trace.counts())
    later = trace.window(made.train.tokens.shape[1], trace.tokens)
    phases = [windows.load for name, windows in made.judged.items() if name.startswith("held out,")]
    assert np.array_equal(sum(phases), later.counts())


def test_drift_is_the_domain_that_is_furthest_from_training(trace: RoutingTrace) -> None:
    made = split(trace, Options("tiny-moe", "dgx-h100", 8))
    assert made.train.tokens is not None
    later = trace.window(made.train.tokens.shape[1], trace.tokens)
    json_rows = later.take(later.domain == later.header.domains.index("json"))
    assert np.array_equal(made.judged["drift"].load, json_rows.counts())
    assert "domain json alone" in made.notes[0]


def test_one_phase_alone_and_another_trace_as_drift(trace: RoutingTrace, tmp_path: Path) -> None:
    write_trace(trace.window(0, 5000), tmp_path / "other.parquet")
    made = split(trace, Options("t", "x", 8, phase="decode", drift=str(tmp_path / "other.parquet"), holdout=0))
    assert made.train.load.sum() == trace.take(trace.phase == 1).counts().sum()
    assert set(made.judged) == {"drift"} and made.judged["drift"].load.sum() == trace.counts(0, 5000).sum()


def test_the_picked_one_has_the_least_step_time(found: Outcome) -> None:
    quick = one(found, strategy="quick", step_time={"held out": 0.5}, heldout={"held out": 9.0})
    slow = one(found, strategy="slow", step_time={"held out": 1.0}, heldout={"held out": 1.0})
    near = one(found, strategy="near", step_time={"held out": 0.5003}, heldout={"held out": 2.0})
    assert replace(found, solutions=(slow, quick)).best is quick
    assert replace(found, solutions=(slow, quick, near)).best is near  # equal within 0.1 %: the objective decides
    assert replace(found, solutions=(slow, quick), judge="objective").best is slow


def test_a_plan_that_does_not_carry_over_is_warned_about(found: Outcome) -> None:
    base = one(found, strategy="contiguous", objective=2.0, heldout={"held out": 2.0, "drift": 2.0})
    fits = one(found, strategy="overfit", objective=1.0, heldout={"held out": 1.9, "drift": 2.2})
    told = replace(found, solutions=(base, fits)).warnings[-1]
    assert told.startswith("overfit does not carry over: its makespan gains +50.0%")
    assert "+5.0% on held out windows, -10.0% on drift windows" in told
    good = one(found, strategy="good", objective=1.0, heldout={"held out": 1.1, "drift": 1.2})
    assert not any("carry over" in text for text in replace(found, solutions=(base, good)).warnings)


def test_the_verdict_says_no_where_nothing_beats_what_stands(found: Outcome) -> None:
    base = one(found, strategy="contiguous", step_time={"held out": 1.0})
    slower = one(found, strategy="greedy", step_time={"held out": 1.1})
    assert "No: by simulated step time" in replace(found, solutions=(base, slower)).verdict().text
    free = one(found, strategy="eplb", step_time={"held out": 0.8})
    told = replace(found, solutions=(base, free)).verdict().text
    assert told.endswith("beats eplb, itself 20.0% below contiguous.")
    faster = replace(slower, step_time={"held out": 0.9})
    assert "Yes: greedy is 10.0% below contiguous" in replace(found, solutions=(base, faster)).verdict().text
    hardly = replace(slower, step_time={"held out": 0.9985})
    assert "Hardly" in replace(found, solutions=(base, hardly)).verdict().text


def test_evidence_is_of_what_the_judge_reads(found: Outcome) -> None:
    """Surely worse in makespan and surely better in step time is a yes by step time; where steps leave it open, nothing
    is known, whatever makespan says."""
    base = one(found, strategy="contiguous", step_time={"held out": 1.0}, each=(2.0, 2.0), step_each=(1.0, 1.01, 0.99))
    better = one(found, strategy="greedy", step_time={"held out": 0.9}, each=(2.2, 2.2), step_each=(0.9, 0.91, 0.89))
    sure = replace(found, solutions=(base, better)).verdict()
    assert sure.answer == "yes" and sure.paired.gain == pytest.approx(0.1) and sure.equal == ()
    open_ = replace(better, each=(1.0, 1.0), step_each=(0.7, 1.1, 0.9))
    unsure = replace(found, solutions=(base, open_)).verdict()
    assert unsure.answer == "not known" and unsure.equal == ("contiguous",)


def test_a_plan_that_drift_makes_worse_pays_only_while_nothing_drifts(found: Outcome) -> None:
    base = one(found, strategy="contiguous", step_time={"held out": 1.0, "drift": 1.0})
    fits = one(found, strategy="greedy", step_time={"held out": 0.9, "drift": 1.1})
    told = replace(found, solutions=(base, fits)).verdict().text
    assert "Only while the load stays what it was" in told and "after drift it is 10.0% ABOVE" in told


def test_a_baseline_over_the_load_cap_is_not_picked() -> None:
    capped = ms.place(*TINY, redundant=8, strategies=("greedy",), load_cap=1.1, simulate=False)
    assert set(capped.barred) == {"contiguous"} and "above load cap 1.1" in capped.barred["contiguous"]
    assert capped.best.strategy == "greedy"


def test_moving_from_a_previous_placement_is_priced_and_relabelled(found: Outcome, tmp_path: Path) -> None:
    """The same bundles of experts under other names of GPUs: nothing has to move."""
    before = found.placement
    shuffled = before.slot_expert.reshape(8, 8, 5)[:, [3, 1, 0, 2, 7, 6, 5, 4]].reshape(8, 40)
    path = tmp_path / "previous.json"
    write_placement(replace(before, slot_expert=np.ascontiguousarray(shuffled)), path, "sglang", found.frame)
    again = ms.place(*TINY, redundant=8, strategies=("greedy", "random"), previous=path)
    moves = {row.strategy: row.moves for row in again.solutions}
    assert moves["previous"] == moves["greedy"] == 0 < (moves["random"] or 0)
    new, old = again.solutions[2].placement, again.solutions[0].placement
    arrived = sum(int((held_by(new, layer) & ~held_by(old, layer)).sum()) for layer in range(8))
    assert arrived == moves["random"]
    assert again.migration is not None and again.migration.bytes % (3 * 128 * 64 * 2) == 0


def test_counts_get_the_time_of_a_step_with_assumed_tokens(trace: RoutingTrace, tmp_path: Path) -> None:
    """Tokens drawn from the counts' margins load experts as counted, and the step is near that of the tokens."""
    write_loads(loads_of(trace), tmp_path / "counts.npz")
    outcome = ms.place(str(tmp_path / "counts.npz"), "dgx-h100", 8, strategies=("greedy",))
    assert outcome.judge == "step_time" and any("tokens are assumed" in text for text in outcome.warnings)
    played, model = outcome.split.played, load_model("tiny-moe")
    assert played is not None and played.tokens is not None
    assert variation(played.load, outcome.split.deciding.load) < 0.02
    assert all(len(set(row)) == model.top_k for row in played.tokens[0, :100].tolist())
    own = ms.place(*TINY, strategies=("greedy",))
    assert outcome.best.step_time["held out"] == pytest.approx(own.best.step_time["held out"], rel=0.1)
    alone = ms.place(str(tmp_path / "counts.npz"), "dgx-h100", 8, strategies=("greedy",), simulate=False)
    assert alone.judge == "objective" and "not simulated, as asked" in alone.warnings[0]


def split_counts(trace: RoutingTrace, tmp_path: Path) -> list[str]:
    """Three recordings of the tiny trace: two of one domain's halves, one of another domain."""
    names = []
    for name, domain, part in (("a", 0, 0), ("b", 0, 1), ("c", 2, 0)):
        rows = np.flatnonzero(trace.domain == domain)
        record = loads_of(trace.take(np.isin(np.arange(trace.tokens), rows[part::2])))
        merged = replace(record, counts=record.counts.sum(axis=0, keepdims=True), by_source=None)
        write_loads(merged, tmp_path / f"{name}.npz")
        names.append(str(tmp_path / f"{name}.npz"))
    return names


def test_recordings_are_clustered_and_left_out_in_turn(trace: RoutingTrace, tmp_path: Path) -> None:
    names = split_counts(trace, tmp_path)
    outcome = ms.place(",".join(names), "dgx-h100", 8, redundant=8, strategies=("multiwindow",), simulate=False)
    assert "3 recordings, 2 different loads" in outcome.notes[0] and "a = b" in outcome.notes[0]
    assert outcome.split.train.num_windows == 2 and [fold.name for fold in outcome.split.folds] == ["a", "c"]
    best = outcome.solutions[1]
    assert best.heldout["held out"] == pytest.approx(np.mean(best.each)) and len(best.each) == 2
    assert outcome.verdict().reference == "eplb"
    named = ms.place(str(tmp_path), "dgx-h100", 8, strategies=("greedy",), holdout="c", simulate=False)
    assert named.split.train.num_windows == 1 and named.split.deciding.name == "held out"
    with pytest.raises(BadInput, match="unknown recording 'd'"):
        ms.place(",".join(names), "dgx-h100", 8, holdout="d")
    with pytest.raises(BadInput, match="--holdout: a share of several recordings"):
        ms.place(",".join(names), "dgx-h100", 8, holdout=0.3)


def test_each_different_load_weighs_as_much(trace: RoutingTrace, tmp_path: Path) -> None:
    names = split_counts(trace, tmp_path)
    made = split_many(recordings(names), Options(",".join(names), "x", 8))
    totals = made.train.counts.sum(axis=2)
    assert np.allclose(totals[0], totals[1], rtol=1e-5)


def test_one_dump_works_and_says_that_nothing_is_known(trace: RoutingTrace, tmp_path: Path) -> None:
    name = split_counts(trace, tmp_path)[0]
    outcome = ms.place(name, "dgx-h100", 8, redundant=8, strategies=("lpt",), simulate=False)
    assert any("nothing is held out" in text for text in outcome.warnings)
    assert outcome.verdict().answer in ("not known", "no") and "othing" in outcome.verdict().text


def test_a_verdict_knows_when_evidence_is_thin(found: Outcome) -> None:
    """Gains of 10, 9, 11 and 10 % are known; of 30, -20, 25 and -15 % are not; two that are within noise are equal."""
    base = one(found, strategy="eplb", heldout={"held out": 2.0}, each=(2.0, 2.0, 2.0, 2.0))
    sure = one(found, strategy="sure", heldout={"held out": 1.8}, each=(1.8, 1.82, 1.78, 1.8))
    wild = one(found, strategy="wild", heldout={"held out": 1.9}, each=(1.4, 2.4, 1.5, 2.3))
    alone = replace(found, judge="objective", ceilings=None)
    assert replace(alone, solutions=(base, sure)).verdict().answer == "yes"
    verdict = replace(alone, solutions=(base, wild)).verdict()
    assert verdict.answer == "not known" and verdict.reference == "eplb"
    assert replace(alone, solutions=(base, sure, wild)).verdict().equal == ("wild",)
    thin = replace(alone, solutions=(replace(base, each=(2.0,)), replace(sure, each=(1.8,)))).verdict()
    assert thin.answer == "not known" and "evidence is thin" in thin.text


def test_evidence_of_the_other_sign_is_no_yes(found: Outcome) -> None:
    """10 % below on all windows together, 10 % above on each alone: parts that say the opposite pay nobody."""
    base = one(found, strategy="eplb", heldout={"held out": 2.0}, each=(2.0, 2.0, 2.0))
    against = one(found, strategy="against", heldout={"held out": 1.8}, each=(2.2, 2.21, 2.19))
    verdict = replace(found, judge="objective", ceilings=None, solutions=(base, against)).verdict()
    assert verdict.answer == "not known" and "speaks against it (-11.2% to -8.8% over 3)" in verdict.text


def test_the_interval_of_a_gain_is_student_s() -> None:
    paired = Paired.of([2.0, 2.0, 2.0], [1.8, 1.9, 1.7])  # gains 10, 5, 15 %: 10 % +- 4.303 x 5 % / sqrt(3)
    assert paired.low == pytest.approx(0.1 - 0.12421, abs=1e-4)
    assert paired.high == pytest.approx(0.1 + 0.12421, abs=1e-4)


def test_the_ceiling_is_what_perfect_balance_and_no_traffic_leave(found: Outcome) -> None:
    ceiling = found.ceiling()
    assert found.ceilings is not None and ceiling.most >= max(ceiling.balance, ceiling.traffic or 0) - 1e-12
    assert ceiling.taken <= ceiling.most
    alone = ms.place(*TINY, redundant=8, strategies=("greedy",), simulate=False).ceiling()
    assert alone.traffic is None and 0 < alone.most < 1


def test_what_stands_brings_its_own_redundancy(found: Outcome, tmp_path: Path) -> None:
    path = tmp_path / "previous.json"
    write_placement(found.placement, path, "sglang", found.frame)
    again = ms.place(*TINY, strategies=("greedy",), previous=path, simulate=False)
    assert again.problem.slots == 40


def test_a_format_implies_its_engine_s_dispatch() -> None:
    asked = ms.place(*TINY, redundant=8, strategies=("greedy",), format="sglang", simulate=False)
    assert asked.problem.dispatch.name == "sglang" and any("sglang's own dispatch" in text for text in asked.warnings)
    other = ms.place(*TINY, redundant=8, strategies=("greedy",), format="sglang", dispatch="even", simulate=False)
    assert other.problem.dispatch.name == "even"


def test_speeds_memory_and_groups_of_the_command_line() -> None:
    slow = ms.place(*TINY, redundant=8, strategies=("lpt",), speed=(1, 1, 1, 1, 1, 1, 1, 0.5), simulate=False)
    loads = rank_loads(slow.problem, slow.solutions[1].placement, slow.problem.train.merged())[0].sum(axis=0)
    assert loads[7] < 0.75 * loads[:7].mean()
    with pytest.raises(BadInput, match="3 speeds for 8 GPUs"):
        ms.place(*TINY, speed=(1, 1, 1))
    with pytest.raises(DoesNotFit, match="experts may take"):
        ms.place(*TINY, strategies=("greedy",), expert_memory=1000)


def test_history_is_answered_in_words(tmp_path: Path) -> None:
    """Two loads that take turns: few moves on both beat EPLB on the last one."""
    random = np.random.default_rng(0)
    loads = random.lognormal(0, 1, (2, 2, 32)) * 10_000
    header = TraceHeader(model="nobody's", moe_layers=2, num_experts=32, top_k=2, origin="test")
    for number, which in enumerate((0, 1, 0, 1, 0, 1)):
        counts = (loads[which] * random.lognormal(0, 0.02, (2, 32))).astype(np.int64)
        write_loads(LoadRecord(header, counts[None], (0, 1), 2), tmp_path / f"w{number}.npz")
    found = rebalance(Options(str(tmp_path), "dgx-h100", 8, redundant=8))
    assert found.regimes == 2 and found.mean(SOME) < found.mean(LAST) and found.moved(SOME) <= 0.05
    assert "Your load comes in 2 regimes" in found.text() and "Rebalancing" in found.text()
    with pytest.raises(BadInput, match="no history"):
        rebalance(Options(f"{tmp_path}/w0.npz,{tmp_path}/w1.npz", "dgx-h100", 8))


def test_the_same_call_gives_the_same_answer(found: Outcome) -> None:
    again = ms.place(*TINY, redundant=8, strategies=("greedy", "round_robin"))
    assert np.array_equal(again.placement.slot_expert, found.placement.slot_expert)
    assert [row.step_time for row in again.solutions] == [row.step_time for row in found.solutions]


def test_a_bound_is_below_every_strategy(found: Outcome) -> None:
    assert all(row.bound <= row.objective * (1 + 1e-12) for row in found.solutions)


def unknown_model(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    experts = np.stack([[rng.permutation(6)[:2] for _ in range(2)] for _ in range(300)])
    header = TraceHeader(model="nobody's", moe_layers=2, num_experts=6, top_k=2, origin="test")
    write_trace(make_trace(header, experts), tmp_path / "t.parquet")
    return str(tmp_path / "t.parquet")


def test_a_model_that_is_not_known_is_placed_by_its_objective(tmp_path: Path) -> None:
    outcome = ms.place(unknown_model(tmp_path), "dgx-h100", 2, strategies=("greedy",))
    assert outcome.judge == "objective" and "does not know (--model)" in outcome.warnings[0]
    path = tmp_path / "out.json"
    write_placement(outcome.placement, path, "sglang", outcome.frame)
    assert np.array_equal(read_placement(path, outcome.frame).slot_expert, outcome.placement.slot_expert)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"slots": (3,)}, DoesNotFit, "32 experts on 24 slots of 8 ranks: 8 slots too few"),
        ({"slots": (4, 4)}, BadInput, "2 numbers for 8 GPUs"),
        ({"load_cap": 1.0001}, DoesNotFit, "load cap"),
        ({"strategies": ("gredy",)}, BadInput, "did you mean 'greedy'"),
        ({"objective": "makspan"}, BadInput, "did you mean 'makespan'"),
        ({"max_moves": 3}, BadInput, "needs the previous placement"),
        ({"model": "Qwen/Qwen3-30B-A3B"}, BadInput, "is of tiny-moe .* not of Qwen/Qwen3.*--transplant"),
        ({"changes": (HUGE,)}, DoesNotFit, "slots x 8 layers need"),
        ({"changes": ("batch.contxt=1",)}, BadInput, "--set batch.contxt"),
        ({"phase": "train"}, BadInput, "has no tokens of train"),
        ({"trace": "tiny"}, BadInput, "unknown trace"),
        ({"topology": "dgx-h101"}, BadInput, "unknown topology"),
        ({"window": 60000, "holdout": 0.3}, BadInput, "cannot be held out.* Try: holdout 0"),
        ({"slots": (10**30,)}, BadInput, "slots of a GPU for 32 experts"),
        ({"redundant": 10**9}, BadInput, "slots of a GPU for 32 experts"),
        ({"redundant": 225}, BadInput, "33 slots of a GPU for 32 experts. Try: --redundant 224 or less"),
        ({"slots": (5,), "redundant": 8}, BadInput, "the same twice"),
        ({"time_limit": float("nan")}, BadInput, "--time-limit: nan is not above 0"),
        ({"load_cap": float("nan")}, BadInput, "--load-cap: nan is not above 0"),
        ({"changes": ("batch.tokens_per_gpu=64",), "simulate": False}, BadInput, "--set: .* not simulated"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_with_the_way_out(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    options = {"trace": "tiny-moe", "topology": "dgx-h100", "gpus": 8, "strategies": ("greedy",), **changes}
    with pytest.raises(error, match=message):
        ms.place(**options)


def test_counts_are_steps_and_say_what_they_cannot(trace: RoutingTrace, tmp_path: Path) -> None:
    record = loads_of(trace.window(0, 4000))
    write_loads(record, tmp_path / "c.npz")
    write_loads(replace(record, counts=record.counts * 0, by_source=None), tmp_path / "idle.npz")
    for name, changes, message in (
        ("c", {"window": 64}, "a step is a window"),
        ("c", {"changes": ("batch.tokens_per_gpu=64",), "simulate": False}, "--set"),
        ("idle", {}, "all counts are 0"),
        ("none", {}, "unknown trace"),
    ):
        with pytest.raises(BadInput, match=message):
            ms.place(str(tmp_path / f"{name}.npz"), "dgx-h100", 8, **changes)


def test_the_bound_is_found_once_for_all_strategies(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = Mock(wraps=balance.bounds)
    monkeypatch.setattr(balance, "bounds", bounds)
    found = ms.place(*TINY, redundant=8, strategies=("greedy", "random"), simulate=False)
    assert len(found.solutions) == 4 and bounds.call_count == 1


def counted(folder: Path, name: str, seed: int, dense: int = 0) -> Path:
    """A dump of three layers of 16 experts on disk, `dense` layers without counts before them."""
    table = np.random.default_rng(seed).multinomial(9000, np.random.default_rng(seed).dirichlet(np.ones(16), 3))
    np.save(folder / name, np.concatenate([np.zeros((dense, 16), dtype=np.int64), table]))
    return folder / name


def test_layers_without_counts_are_named_and_a_proved_optimum_leaves_no_ceiling(tmp_path: Path) -> None:
    """Of 915 choices 900 go to one expert: with three more on its GPU it has 903, and no balance is promised beyond."""
    found = ms.place(counted(tmp_path, "a.npy", 0, dense=2), "dgx-h100", 4, strategies=("eplb",))
    assert any("no counts in layers 0, 1: taken to be layers without experts" in note for note in found.warnings)
    np.save(tmp_path / "one.npy", np.array([[900, *[1] * 15]] * 2))
    one = ms.place(tmp_path / "one.npy", "dgx-h100", 4, strategies=("multiwindow",))
    assert one.best.objective == one.best.bound == pytest.approx(903 / 915 * 4) and one.ceiling().most == 0


def test_a_stall_that_nobody_knows_is_not_called_zero(tmp_path: Path) -> None:
    for seed in range(3):
        counted(tmp_path, f"{seed}.npy", seed)
    document = rebalance(Options(str(tmp_path), "dgx-h100", 4)).to_json()
    ways = {row["way"]: row for row in document["ways"]}
    assert ways[LAST]["moves"] > 0 and ways[LAST]["stall_s"] is None and ways[LAST]["bytes"] is None
    assert ways["keep the first plan"]["stall_s"] == 0
