"""Ranks on this machine: as many processes as ranks, over gloo, without torchrun."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from moesim.calibration.measure.cpu import CpuTarget
from moesim.calibration.measure.peers import peers
from moesim.calibration.operators.operator import Place

Result = TypeVar("Result")


def on_local_ranks(work: Callable[..., Result], world: int, *arguments: Any) -> list[Result]:
    """[rank]: what `work(place, *arguments)` returns in each of `world` new processes. Raises what one of them does."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{folder}/store"
        with ProcessPoolExecutor(world, mp_context=multiprocessing.get_context("spawn")) as pool:
            waiting = [pool.submit(_rank, work, store, rank, world, arguments) for rank in range(world)]
            return [one.result() for one in waiting]


def _rank(work: Callable[..., Result], store: str, rank: int, world: int, arguments: tuple[Any, ...]) -> Result:
    target = CpuTarget()
    with peers(target.backend, target.device, rank=rank, world=world, store=store) as together:
        return work(Place(target, together), *arguments)
