"""`parallel.plan: auto`: the plan that trying all of them by hand finds."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from moesim.errors import BadInput, DoesNotFit
from moesim.studies.training import run_training
from tests.studies.test_train_schema import SMALL

AUTO = (SMALL[0], "pipeline={schedule: 1f1b}", "batch={sequence_length: 512, global_batch_size: 32}")


def run(parallel: dict[str, Any], *more: str) -> Any:
    return run_training("qwen3-train-16", overrides=(*AUTO, f"parallel={json.dumps(parallel)}", *more))


def test_the_plan_is_the_best_of_all_that_are_tried_by_hand() -> None:
    """Two nodes, tensor and context 1: every pipeline and expert degree that multiplies to 16 GPUs."""
    found, by_hand = run({"plan": "auto", "tensor_parallel_size": 1}), {}
    for pipeline, expert in product((1, 2, 4, 8), (1, 2, 4, 8, 16)):
        if expert <= (data := 16 // pipeline):
            keys = {"pipeline_parallel_size": pipeline, "data_parallel_size": data, "expert_parallel_size": expert}
            by_hand[pipeline, data, expert] = run(keys).metrics["step_time_s"].value
    plan = found.provenance["plan"]["plans"][0]
    best = (plan["pipeline_parallel_size"], plan["data_parallel_size"], plan["expert_parallel_size"])
    assert best == min(by_hand, key=by_hand.__getitem__) and found.metrics["step_time_s"].value == by_hand[best]
    assert found.provenance["plan"]["fit"] == len(by_hand) and any(
        "parallel.plan: tensor 1" in w for w in found.warnings
    )


def test_with_rows_of_their_own_the_plan_is_the_best_of_those_played_so() -> None:
    """Hot experts, two nodes, no tensor parallelism: every plan by hand, with the same rows."""
    rows = ("routing={router: topk_softmax, generator: {popularity: {lognormal: 1.0}}}",)
    given = {"tensor_parallel_size": 1, "pipeline_parallel_size": 2}
    found, by_hand = run({"plan": "auto", **given}, *rows), {}
    for expert in (1, 2, 4, 8):
        keys = {**given, "data_parallel_size": 8, "expert_parallel_size": expert}
        by_hand[expert] = run(keys, *rows).metrics["step_time_s"].value
    plan = found.provenance["plan"]
    assert plan["plans"][0]["expert_parallel_size"] == min(by_hand, key=by_hand.__getitem__)
    assert plan["plans"][0]["step_time_s"] == min(by_hand.values()) == found.metrics["step_time_s"].value
    assert len(plan["plans"]) == plan["fit"] == 4  # all that fit are finalists, whatever even rows say
    assert any("with rows of their own" in said for said in found.warnings)


def test_degrees_that_are_given_stay() -> None:
    plans = run({"plan": "auto", "expert_parallel_size": 4, "pipeline_parallel_size": 2}).provenance["plan"]["plans"]
    assert {(one["expert_parallel_size"], one["pipeline_parallel_size"]) for one in plans} == {(4, 2)} and len(
        plans
    ) > 1


def test_plans_that_take_as_long_are_named() -> None:
    """Half a thousandth of a step tells no two apart; a tenth of it does."""
    from moesim.studies.training.plan import Degrees, Plans, Tried

    fitting = (
        Tried(Degrees(1, 2, 8, 4), 1.0, 9, 1.0),
        Tried(Degrees(2, 1, 8, 4), 1.0005, 9, 1.0005),
        Tried(Degrees(4, 1, 4, 4), 1.1, 9, 1.1),
    )
    note = Plans(fitting, 3, 1).note
    assert "not played" not in note
    few = Plans(fitting[:1], 0, 7, 3, ("no islands", "no islands")).note
    assert "of 3 that fit (0 do not, 7 are no layout)" in few
    assert "1 of them with rows of their own, 2 not played with rows of their own (no islands)" in few
    assert "as fast within 0.1 %: tensor 2, pipeline 1" in note and "the next takes 10.0% longer" in note


@pytest.mark.parametrize(("parallel", "more", "kind", "said"), [
    ({"plan": "auto"}, ("batch={sequence_length: 512, micro_batches: 2}",), BadInput, "needs batch.global_batch_size"),
    ({"plan": "auto"}, ("batch.sequence_length=4194304",), DoesNotFit, "plans fits; of tensor"),
    ({"plan": "auto", "data_parallel_size": 5}, (), BadInput, "no degrees multiply"),
    ({"data_parallel_size": 16}, ("batch.global_batch_size=40",), BadInput, "no multiple of micro_batch_size x"),
    ({"data_parallel_size": 16}, ("batch.micro_batches=2",), BadInput, "says micro_batches, which is there"),
])  # fmt: skip
def test_what_has_no_plan_says_why(parallel: dict[str, int], more: tuple[str, ...], kind: type, said: str) -> None:
    with pytest.raises(kind, match=said):
        run(parallel, *more)
