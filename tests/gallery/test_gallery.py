"""The gallery: ids without gaps, each row held by a check that can fail, laws of every step, and the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from moesim.cli.gallery import _command
from moesim.errors import BadInput
from moesim.report.gallery_tables import markdown
from moesim.studies.gallery import Row, Verdict, find_rows, play, rows, timely
from moesim.studies.gallery.row import RowFile
from moesim.yamlfile import parse_yaml

ROWS = rows()


def test_ids_cover_all_mechanisms() -> None:
    assert [row.file.seed for row in ROWS] == [f"S{number:03}" for number in range(1, 120)]


def test_the_table_in_docs_is_what_the_command_prints() -> None:
    """That the rows work is a step of .ci/run of its own: `moesim gallery --within 3`."""
    verdicts = [Verdict(row, "needs" if row.file.needs else "works") for row in ROWS]
    docs = Path(__file__).parents[2] / "docs" / "GALLERY.md"
    assert docs.read_text(encoding="utf-8") == markdown(verdicts)


TEXT = """
gallery: 1
seed: S053
system: test
title: test
base: {set: {routing: {router: {name: switch_top1, cf: 1.0}}, model.top_k: 1}}
variants: {intra: {set: {routing: {router: rectify_intra_gpu}}}}
"""


def made(text: str) -> Row:
    document = parse_yaml(text, "row.yaml")
    return Row(document.validate(RowFile), document)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("expect: [intra.drop_rate > base.drop_rate]", "does not hold"),
        ("expect: [intra.drop_rate < 0.9]", "no expectation fails when intra and base are swapped"),
        ("expect: [intra.drop_rate < base.drop_rate]\nlaw: [intra.mean_k == base.mean_k]", "does not hold"),
        (
            "expect: [intra.drop_rate < base.drop_rate]\npublished: [{quantity: base.drop_rate, value: 0.9, "
            "tolerance: 0.1, source: nobody}]",
            "published 0.9",
        ),
    ],
)
def test_a_row_can_fail(line: str, why: str) -> None:
    verdict = play(made(TEXT + line + "\n"), _command)
    assert verdict.state == "fails"
    assert why in verdict.failures[0]


def test_a_row_has_its_time() -> None:
    row = made(TEXT + "expect: [intra.drop_rate < base.drop_rate]\n")
    assert timely(row, _command, 60).state == "works"
    late = timely(row, _command, 1e-6)
    assert late.state == "fails"
    assert "CPU time" in late.failures[0]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("expect: [intra.drop_rat < 1]", "row.yaml:8 expect[0]"),
        ("expects: []", "row.yaml:8 expects"),
        ("", "give expect, or needs"),
    ],
)
def test_errors_have_their_line(change: str, what: str) -> None:
    with pytest.raises(BadInput, match=what.replace("[", r"\[")):
        play(made(TEXT + change + "\n"), _command)


def test_a_row_is_found_by_number_system_title_and_feature() -> None:
    for word in ("s053", "rectify-router", "own GPU"):
        assert [row.file.seed for row in find_rows([word])] == ["S053"]
    assert len(find_rows(["F30"])) > 3
    with pytest.raises(BadInput, match="unknown row"):
        find_rows(["S999"])


SERVED = """
gallery: 1
seed: S063
system: test
title: test
base: {scenario: _serve, set: {requests.number: 2}}
variants: {staged: {set: {stages: [{name: router, seconds: 5 ms}]}}}
law: [staged.median_tpot_ms == base.median_tpot_ms]
"""


def test_a_row_may_serve_requests() -> None:
    """Five more milliseconds to the first token, none after it."""
    row = made(SERVED + "expect: [abs(staged.mean_ttft_ms - base.mean_ttft_ms - 5) < 1e-6]\n")
    assert play(row, _command).failures == ()
