"""`moesim validate steps`: shipped scenarios whose throughput was published, whole steps of them; nothing is fitted."""

from __future__ import annotations

from pathlib import Path

from moesim import shipped
from moesim.errors import BadInput
from moesim.studies.load import FOLDER, Loaded, load
from moesim.studies.run import run
from moesim.studies.serving.load import is_serving
from moesim.studies.training.load import is_training
from moesim.studies.validation.validation import Point, Validation


def validate(data: Path | None = None) -> Validation:
    """Play every shipped scenario that names a published figure. Raises BadInput where a table is given."""
    if data is not None:
        raise BadInput("whole steps are scenarios, not rows of a table", where=data, way_out="published: in a scenario")
    loaded = [load(name) for name in shipped.names(FOLDER, ".yaml") if not is_serving(name) and not is_training(name)]
    points = tuple(_point(one) for one in loaded if one.scenario.published)
    facts = {"data": "published: of the shipped scenarios", "unit": "tokens/s of a node"}
    return Validation("steps", points, ("phase", "scenario"), facts)


def _point(loaded: Loaded) -> Point:
    published, found = loaded.scenario.published, run(loaded)
    assert published is not None
    keys = {"phase": loaded.scenario.batch.phase, "scenario": loaded.scenario.name}
    measured, predicted = published.tokens_per_s_per_node, found.metrics["tokens_per_s_per_node"].value
    return Point(keys, "tok/s", measured, predicted)
