"""`moesim validate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

TABLE = """kernel,op,ep,value,unit,version,config,system
low_latency,dispatch,16,118,us,V1,hidden=7168; tokens/GPU=64; topk=8; dispatch FP8; combine BF16,H800
low_latency,dispatch,17,118,us,V1,hidden=7168; tokens/GPU=64; topk=8; dispatch FP8; combine BF16,H800
"""


def test_points_errors_and_refused_rows_are_printed(moesim: Moesim) -> None:
    Path("table.csv").write_text(TABLE)
    done = moesim("validate", "network", "--data", "table.csv", "--json")
    document = json.loads(done.out)
    assert document["metrics"]["mean_abs_error"]["unit"] == "1"
    assert document["breakdown"]["low_latency"]["16"]["points"] == 1
    assert document["warnings"] == ["table.csv:3: ep 17 does not divide 256 experts"]
    assert "hgx-h800" in done.err


def test_an_unknown_suite_names_the_known_ones(moesim: Moesim) -> None:
    done = moesim("validate", "netwrk")
    assert done.code == 2 and "did you mean 'network'" in done.err


def test_all_prints_every_operator_and_says_which_have_no_figure(moesim: Moesim) -> None:
    done = moesim("validate", "all", "--json")
    document = json.loads(done.out)
    bare = [one for one in document["provenance"]["figures"] if one["kind"] == "no figure"]
    assert document["metrics"]["operators_without_figure"]["value"] == len(bare) > 0
    assert f"{len(bare)} of {len(document['provenance']['figures'])} operators have no figure" in done.err
    assert moesim("validate", "network", "--steps").code == 2 and moesim("validate", "all", "--data", "x.csv").code == 2
