"""`moesim validate papers`: each law by hand on shipped rows, and from the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from moesim.studies.validation.papers import chunk_ms

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim


@pytest.fixture(scope="module")
def phases() -> dict[str, float]:
    return chunk_ms()


def told(moesim: Moesim) -> dict[str, Any]:
    done = moesim("validate", "papers", "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)  # type: ignore[no-any-return]


def test_laws_by_hand(moesim: Moesim) -> None:
    document = told(moesim)
    rows = {(row["paper"], row["of"], row["case"]): row for row in document["provenance"]["rows"]}
    line = np.polyfit([1 / 3, 0.5, 0.6, 2 / 3], [277.8, 387.3, 427.6, 449.6], 1)
    assert rows["MoE++", "0.6B", "tau 0.1"]["predicted"] == pytest.approx(line[0] / 6 + line[1], rel=1e-3)
    rest = 9.64 - 16 * 0.41263
    assert rows["CoE", "MoE(K=8,N=64)", "peak memory"]["predicted"] == pytest.approx(16 * 0.54451 + rest)
    assert rows["Tutel", "V100 fp16", "top-2, two experts"]["measured"] == pytest.approx(0.03005 / 0.01422)
    errors = document["breakdown"]
    assert errors["MoE++"]["mean_abs_error"] < 0.05 and errors["CoE"]["max_abs_error"] < 0.1 / 9.64
    assert errors["DeepSeek DualPipe"]["sum of phases"]["max_abs_error"] < 0.25
    assert "in-sample" in document["provenance"]["held_out"]


def test_fsmoe_s_order_holds_on_both_testbeds(moesim: Moesim) -> None:
    """The bars: 1.5 % on the testbed of the fit, 2.5 % on the other, no value beyond 6 %."""
    document = told(moesim)
    errors, said = document["breakdown"]["FSMoE"], document["provenance"]["fsmoe"]
    assert errors["testbed A, fitted"]["mean_abs_error"] < 0.015 and errors["testbed B"]["mean_abs_error"] < 0.025
    assert max(one["max_abs_error"] for one in errors.values() if isinstance(one, dict)) < 0.06
    assert said.endswith("on both testbeds: yes") and "trivial predictors: B as published on A 2.5" in said
    assert "in view" in document["provenance"]["fsmoe_reading"]


def test_gradients_of_inputs_and_weights_make_the_backward_pass(phases: dict[str, float]) -> None:
    """Of experts both multiply as much as the forward pass; all phases are there, each above 0."""
    assert len(phases) == 6 and min(phases.values()) > 0
    assert 1.8 < (phases["mlp(B)"] + phases["mlp(W)"]) / phases["mlp(F)"] < 2.2


def test_a_table_is_refused(moesim: Moesim) -> None:
    done = moesim("validate", "papers", "--data", "rows.csv")
    assert done.code == 2 and "leave --data out" in done.err


def test_ranks_wait_as_long_as_profiled_and_equal_ones_not_at_all(moesim: Moesim) -> None:
    """The bars: 22 to 38 ms of all, the combine of the forward pass most, the last layer more than twice the first."""
    document = told(moesim)
    waits = {
        row["case"]: (row["measured"], row["predicted"])
        for row in document["provenance"]["rows"] if row["of"] == "waiting"
    }  # fmt: skip
    assert waits["all"][0] == pytest.approx(32.578) and 22 < waits["all"][1] < 38
    for which in (0, 1):
        assert waits["combine(F)"][which] == max(one[which] for case, one in waits.items() if case != "all")
    said = document["provenance"]["waiting"]
    assert said.count("equal lanes 0 ms") == 2
    assert all(float(part.split()[0]) > 2 for part in said.split("the last layer ")[1:])


def test_with_transfers_as_long_as_profiled_ranks_wait_least_before_the_dispatch_of_the_backward_pass(
    moesim: Moesim,
) -> None:
    rows = [row for row in told(moesim)["provenance"]["rows"] if row["of"] == "waiting, transfers as profiled"]
    waits = {row["case"]: (row["measured"], row["predicted"]) for row in rows if row["case"] != "all"}
    for which in (0, 1):
        least, most = (pick(waits, key=lambda case: waits[case][which]) for pick in (min, max))
        assert (least, most) == ("dispatch(B)", "combine(F)")
