"""`moesim validate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cli.test_readme import ALL, check_printed, transcripts

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

TABLE = """library,kernel,op,ep,hidden,tokens_per_rank,topk,experts,dtype,system,value,unit
deepep,low_latency,dispatch,16,7168,64,8,256,fp8,hgx-h800,118,us
deepep,low_latency,dispatch,17,7168,64,8,256,fp8,hgx-h800,118,us
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
    check_printed(done.err, dict(transcripts())[ALL])
    assert moesim("validate", "network", "--steps").code == 2 and moesim("validate", "all", "--data", "x.csv").code == 2


def test_collectives_beside_published_figures(moesim: Moesim) -> None:
    """Large sizes within 15 % of time, 4 to 64 MiB within 25 %, DeepEP within 0.8 to 1.25 off the device of its fit."""
    document = json.loads(moesim("validate", "collectives", "--json").out)
    assert document["metrics"]["answered_fraction"]["value"] == 1
    rows = document["provenance"]["rows"]
    large = [r["error"] for r in rows if r["size"].isdigit() and int(r["size"]) > 2**28]
    small = [r["error"] for r in rows if r["size"].isdigit() and int(r["size"]) <= 2**28]
    exchanges = [1 / (1 + r["error"]) for r in rows if r["op"].startswith("deepep")]
    assert len(large) == 5 and max(map(abs, large)) < 0.15
    assert len(small) == 3 and max(map(abs, small)) < 0.25
    assert len(exchanges) == 6 and all(0.8 < ratio < 1.25 for ratio in exchanges)
    assert document["breakdown"]["all_reduce"]["nvls_tree"]["2"]["points"] == 2
    assert any("constants were fitted on H800" in text for text in document["warnings"])


def test_rows_of_collectives_that_are_not_understood_are_counted_and_named(moesim: Moesim) -> None:
    Path("rows.csv").write_text(
        "system,nodes,gpus,op,algorithm,bytes,tokens,value,unit\n"
        "dgx-h100,1,8,all_reduce,ring,8589934592,,370,busbw GB/s\n"
        "dgx-h100,1,8,all_redduce,ring,8589934592,,370,busbw GB/s\n"
        "dgx-h100,2,12,all_reduce,ring,8589934592,,370,busbw GB/s\n"
    )
    document = json.loads(moesim("validate", "collectives", "--data", "rows.csv", "--json").out)
    assert document["metrics"]["answered_fraction"]["value"] == 1 / 3
    assert len(document["warnings"]) == 2 and "did you mean 'all_reduce'" in document["warnings"][0]
    assert "gpus 12 are not all of 2 nodes" in document["warnings"][1]
