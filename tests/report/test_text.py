"""Text for the terminal, the template, and the lists."""

from __future__ import annotations

import io
from typing import Any

import pytest

from moesim import shipped, yamlfile
from moesim.report import tables
from moesim.report.catalogue import catalogue
from moesim.report.health import examine
from moesim.report.template import template
from moesim.studies import Scenario
from moesim.studies.scenario import Setup
from moesim.studies.serving import ServeScenario
from moesim.studies.training import TrainScenario


def printed(renderable: Any) -> str:
    file = io.StringIO()
    tables.show(renderable, file)
    return file.getvalue()


def test_a_run_prints_its_numbers_its_ladder_and_its_warnings(document: dict[str, Any], drawn: dict[str, Any]) -> None:
    text = printed(tables.run_text(document, drawn))
    hidden = (*tables.IN_JSON, "alltoall_s", "comm_overlap_fraction")
    shown = [name for name in document["metrics"] if not name.startswith(hidden)]
    assert len(shown) > 8 and all(name in text for name in shown)
    assert "contention" in text
    assert all(f"warning: {warning}" in text for warning in document["warnings"])
    assert document["provenance"]["congestion"]["hot_spots"][0]["link"] in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("name", "value", "unit", "text"),
    [
        ("step_time_s", 0.0123, "s", "12.3 ms"), ("mfu", 0.41, "1", "41.0%"), ("ratio", 0.84769, "1", "0.8477"),
        ("tokens_per_s", 169995.2, "tok/s", "169,995 tok/s"), ("peak_memory_bytes", 8e10, "B", "80 GB"),
        ("median_itl_ms", 22.88, "ms", "22.88 ms"), ("contention_s", None, "s", "not played"),
    ],
)  # fmt: skip
def test_numbers_are_scaled_for_reading(name: str, value: float | None, unit: str, text: str) -> None:
    assert tables.show_metric(name, value, unit) == text


KINDS: dict[str, type[Setup]] = {"serve": ServeScenario, "train": TrainScenario}


@pytest.mark.parametrize("name", sorted(shipped.names("workloads/scenarios", ".yaml")))
def test_a_template_has_every_key_and_loads_to_the_same_scenario(name: str) -> None:
    data = yamlfile.read_yaml(shipped.names("workloads/scenarios", ".yaml")[name]).data
    text = template(data)
    again = yamlfile.parse_yaml(text, "template")
    schema: type[Setup] = KINDS.get(data["mode"], Scenario)
    assert again.data == data
    assert again.validate(schema).digest == schema.model_validate(data).digest
    assert all(f"{key}:" in text for key in schema.model_fields if key not in getattr(schema, "silent", ()))


def test_lists_name_what_is_shipped() -> None:
    known = catalogue()
    assert all(rows and all(name and about for name, about in rows) for rows in known.values())
    assert "dgx-h100" in dict(known["topologies"])
    assert "dsv3-decode-ep72" in dict(known["scenarios"])
    assert "dgx-h100" in printed(tables.list_text(known))


def test_the_doctor_finds_nothing_wrong_here() -> None:
    findings = examine()
    assert [finding for finding in findings if finding.state == "wrong" and finding.what != "moesim"] == []
    assert "numpy" in printed(tables.health_table(findings))
