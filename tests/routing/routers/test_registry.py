"""The registry as a whole: names, facts, parameters, and that every router has its own test."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.routing.routers import RouterInput, build_router, registry

NAMES = sorted(registry)


def test_each_is_in_a_file_of_its_name_that_says_its_source() -> None:
    for name, router in registry.items():
        module = sys.modules[router.__module__]
        assert router.__module__ == f"moesim.routing.routers.{name}" and "Source:" in (module.__doc__ or "")


def test_every_key_says_what_it_is() -> None:
    keys = [(name, key, field.description) for name, router in registry.items()
            for key, field in router.model_fields.items()]  # fmt: skip
    assert len(keys) > 130 and not [key for key in keys if not key[2]]


def test_every_router_has_a_test_that_is_proved_against_plain_top_k() -> None:
    text = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    tested = set(re.findall(r"^def test_(\w+)\(build: Build", text, re.MULTILINE))
    assert set(NAMES) <= tested


def test_stand_ins_are_counted_apart() -> None:
    modelled = [name for name in NAMES if build_router(name).facts.stand_in]
    assert len(modelled) == 30 and "sam" not in modelled and "recurrent_rmoe" in modelled


@pytest.mark.parametrize("name", NAMES)
def test_a_router_reads_no_more_than_it_says(name: str, given: Callable[..., RouterInput], noise: Any) -> None:
    router = build_router(name)
    number = np.arange(64)
    columns = {
        "token_id": number % 9,
        "domain": number // 16 % 2,
        "importance": np.ones(64, dtype=np.float32),
        "recorded": np.argsort(-noise(64, 16), axis=1)[:, :2].astype(np.uint16),
    }
    logits = np.stack([noise(64, 16, n) for n in range(3)])
    where: dict[str, Any] = {"request": number // 16, "rank": number // 8, "ranks": 8, "gpus_per_node": 4, "layer": 1}
    tokens = given(logits, columns=columns, **where)
    lookups = {n: column for n, column in tokens.columns.items() if n in router.facts.needs}
    found = router.route(RouterInput(**{**vars(tokens), "columns": lookups}))
    assert found.table()[0].dtype == np.uint16 and np.isfinite(found.weight).all()
    for needed in router.facts.needs:
        fewer = {n: column for n, column in lookups.items() if n != needed}
        with pytest.raises(BadInput, match=f"needs {needed}"):
            lacking = RouterInput(**{**vars(tokens), "columns": fewer})
            router.learn(lacking, router.route(lacking))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("top_q", "unknown router 'top_q'.*did you mean 'top_p'"),
        ({"name": "top_p", "q": 0.4}, "unknown key 'q'.*known: p"),
        ({"name": "top_p", "p": 1.5}, "p: .*less than or equal to 1"),
        ({"name": "batch_priority", "inner": "switch"}, "unknown router 'switch'.*did you mean 'switch_top1'"),
        ({"name": "batch_priority", "inner": {"name": "top_p", "p": "x"}}, "inner: .*valid number"),
        ({"p": 0.4}, "unknown router None"),
        (7, "unknown router None"),
    ],
)
def test_bad_names_and_parameters_are_refused(value: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build_router(value)


def test_logits_that_are_no_numbers_are_refused_with_layer_and_token(given: Callable[..., RouterInput]) -> None:
    rows = np.zeros((3, 4))
    rows[1, 2] = np.nan
    with pytest.raises(BadInput, match="step 0, layer 0, token 1: logits is not a finite number"):
        build_router("topk_softmax").route(given(rows))
