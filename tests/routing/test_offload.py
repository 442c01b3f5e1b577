"""A cache of experts: two layers by hand, laws on random passes, and against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.routing import TraceHeader, make_trace
from moesim.routing.offload import EVICTION, PREDICTORS, Machine, Passes, find_predictor, passes_of, play, spread_slots
from moesim.routing.offload.predict import Asked


def passes(*needs: list[list[int]], experts: int = 4) -> Passes:
    """Of each pass, of each layer, the experts that it needs."""
    used = np.zeros((len(needs), len(needs[0]), experts), dtype=np.bool_)
    for at, layers in enumerate(needs):
        for layer, some in enumerate(layers):
            used[at, layer, some] = True
    alone, unknown = np.ones(len(needs), dtype=np.int64), np.full(len(needs), -1)
    return Passes(used, alone, unknown, unknown)


def drawn(seed: int) -> Passes:
    """60 passes of three layers, two of eight experts, the first ones liked most."""
    draw = np.random.default_rng(seed)
    liked = np.arange(8, 0, -1) / 36
    return passes(
        *[[draw.choice(8, 2, replace=False, p=liked).tolist() for _ in range(3)] for _ in range(60)], experts=8
    )


def test_two_layers_by_hand() -> None:
    """A fetch takes 10, a layer 3: both layers wait in the first pass; in the second one of four is missing."""
    found = play(passes([[0, 1], [2, 3]], [[0, 2], [2, 3]]), Machine([2, 2], 10.0, 3.0), "lru", PREDICTORS["none"], 1)
    assert (found.needed, found.hits, found.fetched) == (8, 3, 5)
    assert found.stall == 20 + 20 + 10 and found.time == found.stall + 4 * 3 and found.longest == 46


def test_a_fetch_hides_behind_the_layer_before() -> None:
    """The second layer's expert is fetched while the first waits for its own and computes: 4 of its 10 are seen."""
    both = passes([[0], [1]])
    machine = Machine([1, 1], 10.0, 6.0)
    blind, told = (play(both, machine, "lru", PREDICTORS[name], 1) for name in ("none", "oracle"))
    assert blind.stall == 20 and told.stall == 14 and told.late == 1 and told.ahead == 1


@pytest.mark.parametrize("seed", range(5))
def test_an_oracle_fetches_what_demand_fetches_only_earlier(seed: int) -> None:
    machine = Machine([4, 4, 4], 1.0, 1.0)
    for name in EVICTION:
        blind, told = (play(drawn(seed), machine, name, PREDICTORS[way], 1) for way in ("none", "oracle"))
        assert told.fetched == blind.fetched and told.stall <= blind.stall and told.right == told.named == told.needed
        assert blind.needed - blind.hits == blind.fetched, "each miss is fetched once"


@pytest.mark.parametrize("seed", range(5))
def test_no_eviction_misses_less_than_that_by_next_use(seed: int) -> None:
    misses = {
        name: play(drawn(seed), Machine([3] * 3, 1.0, 1.0), name, PREDICTORS["none"], 1).fetched for name in EVICTION
    }
    assert misses["belady"] == min(misses.values()) < misses["lfu"]


@pytest.mark.parametrize("seed", range(4))
def test_eviction_by_next_use_is_the_best_there_is(seed: int) -> None:
    """One layer, one expert a pass, two slots: against all ways to evict."""
    asked = np.random.default_rng(seed).integers(0, 4, size=9).tolist()
    least = min(_misses(asked, ways) for ways in itertools.product(range(2), repeat=len(asked)))
    found = play(passes(*[[[one]] for one in asked]), Machine([2], 1.0, 1.0), "belady", PREDICTORS["none"], 1)
    assert found.fetched == least


def _misses(asked: list[int], evicted: tuple[int, ...]) -> int:
    held, misses = list[int](), 0
    for one, which in zip(asked, evicted, strict=True):
        if one not in held:
            misses += 1
            held = [other for number, other in enumerate(held) if len(held) < 2 or number != which] + [one]
    return misses


def test_all_experts_resident_are_fetched_once() -> None:
    found = play(drawn(0), Machine([8] * 3, 1.0, 1.0), "lru", PREDICTORS["none"], 1)
    assert found.fetched == int(drawn(0).used.any(axis=0).sum())


def test_a_gate_is_right_as_often_as_it_says() -> None:
    found = play(drawn(1), Machine([4] * 3, 1.0, 1.0), "lru", find_predictor("gate", 0.8, 0), 1)
    assert found.right / found.named == pytest.approx(0.8, abs=0.05)


def test_requests_with_like_prompts_decode_together() -> None:
    """Requests 0 and 2 use expert 0, 1 and 3 expert 1: batched alike each pass needs one expert, as they come two."""
    request = np.repeat(np.arange(4), 4)
    header = TraceHeader("m", 1, 2, 1, "by hand")
    trace = make_trace(header, (request % 2)[:, None, None], request=request, position=np.tile(np.arange(4), 4))
    fifo, number = passes_of(trace, 2, "fifo", 99)
    assert number == 4 and fifo.unique == 2 and passes_of(trace, 2, "affinity", 99)[0].unique == 1


def test_shallow_layers_hold_all_their_experts() -> None:
    assert spread_slots(4, 8, 4, 1) == [8, 3, 3, 2]
    with pytest.raises(BadInput, match="--shallow"):
        spread_slots(4, 8, 2, 1)


def test_a_task_is_expected_to_need_what_it_needed_before() -> None:
    """Two tasks take turns: what is frequent over all is the other's half of the time."""
    turns = passes([[0]], [[0]], [[1]], [[0]], [[1]])._replace(domain=np.array([0, 0, 1, 0, 1]))
    ask = Asked(turns, 4, 0, -1)
    assert PREDICTORS["frequency"](ask).tolist() == [0]
    assert PREDICTORS["task"](ask).tolist() == [1]
    assert PREDICTORS["task"](Asked(turns._replace(domain=np.full(5, -1)), 4, 0, -1)).tolist() == [0]
