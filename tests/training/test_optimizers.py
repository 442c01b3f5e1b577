"""What optimizers keep and do in pipelined steps: sums written out here, and laws over all of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from moesim.errors import BadInput
from moesim.layout import OPTIMIZERS
from moesim.training import Job, rank_memory, train_step
from moesim.training.memory import checkpoint_bytes, restored_bytes
from moesim.training.sharding import data_parallel_bytes
from tests.training.test_job import LAYER, VOCAB, H, job

ORDER = ("sgd", "momentum", "muon", "adam")  # by what they keep


def updated(name: str, *, master: bool = True, **changes: int) -> Job:
    """Two stages of two layers, each on four replicas; a vocabulary's table at either end."""
    return replace(job(**changes), optimizer=replace(OPTIMIZERS[name], master=master))


def states(one: Job, rank: int = 0) -> int:
    return next(row.bytes for row in rank_memory(one, rank).rows if row.item == "optimizer states")


@pytest.mark.parametrize(("name", "layers", "table"), [
    ("sgd", 4, 4), ("momentum", 8, 8), ("muon", 8, 12), ("adam", 12, 12),
])  # fmt: skip
def test_states_by_hand(name: str, layers: int, table: int) -> None:
    """fp32 numbers over four replicas, the master copy among them: Muon keeps one moment of matrices, two of tables."""
    for rank in (0, 1):
        whole = layers * 2 * LAYER + table * H * VOCAB
        assert states(updated(name), rank) == whole // 4
        assert states(updated(name, master=False), rank) == (whole - 4 * (2 * LAYER + H * VOCAB)) // 4
    assert checkpoint_bytes(updated(name)) == restored_bytes(updated(name)) == whole / 4


def test_adafactor_keeps_sums_of_the_tables_that_a_stage_has() -> None:
    gemms = [(24 * 64, H), (H, H), (2 * 4096, H), (H, 4096)]
    sums = 2 * sum(n + k for n, k in gemms) + H + VOCAB
    assert states(updated("adafactor", master=False)) == 4 * sums // 4


def test_who_keeps_more_needs_more() -> None:
    """SGD <= momentum <= Muon <= Adam, with any number of replicas; with DDP a rank keeps all of it."""
    for zero in (0, 1, 2):
        kept = [states(replace(updated(name), zero=zero)) for name in ORDER]
        assert kept == sorted(kept)
    assert states(replace(updated("muon"), zero=0)) == 4 * states(updated("muon"))


def test_muon_gathers_matrices_and_multiplies() -> None:
    """Eight matrices over four replicas: the last FFN is most of a stage, so that ranks share it. Nothing else changes,
    and a rank alone has nothing to gather.
    """
    steps = {name: train_step(updated(name)).passes[0] for name in ORDER}
    assert len({one.sync for one in steps.values()}) == len({one.one for one in steps.values()}) == 1
    times = [steps[name].update for name in ("sgd", "momentum", "adam", "muon")]
    assert all(less < more for less, more in pairwise(times))
    moved = {name: data_parallel_bytes(updated(name), 0) for name in ORDER}
    assert moved["sgd"] == moved["adam"] < moved["muon"] <= moved["adam"] + 2 * 2 * LAYER
    alone = {name: data_parallel_bytes(updated(name, world=2), 0) for name in ("adam", "muon")}
    assert alone["muon"] == alone["adam"] == 0


def test_ranks_that_share_nothing_of_the_work_do_all_of_it() -> None:
    """With DDP every rank makes all matrices orthogonal, with ZeRO-1 those that it has a part of: GEMMs are fewer."""
    plain, sharded = (train_step(replace(updated("muon"), zero=zero)).passes[0] for zero in (0, 1))
    assert sharded.update < plain.update


def test_matrices_in_parts_on_all_ranks_are_refused() -> None:
    with pytest.raises(BadInput, match="muon needs whole matrices"):
        replace(updated("muon"), zero=3)
