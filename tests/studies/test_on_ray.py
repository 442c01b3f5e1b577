"""A sweep on a Ray cluster of two nodes of this machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from moesim.errors import TryAgain
from moesim.studies.sweeping import read_plan, sweep
from moesim.studies.sweeping.elsewhere import played
from moesim.studies.sweeping.executor import LOST, Here
from moesim.studies.sweeping.on_ray import Ray
from moesim.studies.sweeping.plan import Digests
from moesim.studies.sweeping.subject import Subject

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'moesim[ray]'")
STORE = 80 * 2**20  # bytes of a node's objects, about the least that Ray takes


@dataclass(frozen=True)
class Marked(Subject):
    """Answers with the node that it runs on; the point of 32 tokens ends its process."""

    def play(self, overrides: Sequence[str], seed: int) -> Mapping[str, Any]:
        if overrides[0].endswith("=32"):
            os.kill(os.getpid(), signal.SIGKILL)
        node = ray.get_runtime_context().get_node_id()
        return {"metrics": {node: {"value": 1.0, "unit": "1"}}, "breakdown": {}, "warnings": []}


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[None]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE})
    cluster.add_node(num_cpus=1, object_store_memory=STORE)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    cluster.shutdown()


def test_a_cluster_answers_as_this_process_does(two_nodes: None, tmp_path: Path) -> None:
    plan = read_plan("demo-tiny", ["batch.tokens_per_gpu=16,32,48", "batch.context=64,100000000"])
    there, here = (sweep(plan, folder=tmp_path / type(e).__name__, executor=e) for e in (Ray(), Here()))
    assert [(one.code, one.record) for one in there.kept] == [(one.code, one.record) for one in here.kept]
    assert len(here.done) == 3 and ray.is_initialized()  # whoever was in a cluster before stays in it


def test_both_nodes_work_and_a_process_that_dies_takes_its_own_point_only(two_nodes: None, tmp_path: Path) -> None:
    plan = read_plan("demo-tiny", [f"batch.tokens_per_gpu={','.join(map(str, range(25, 49)))}"])
    marked = Marked(plan.subject.name, plan.subject.mode, plan.subject.base)
    found = sweep(replace(plan, subject=marked), folder=tmp_path / "s", executor=Ray())
    assert [one.code for one in found.kept] == [LOST if n == 32 else 0 for n in range(25, 49)]
    assert "Ray, 2 times" in found.kept[7].record["reason"]
    assert len({name for _, one in found.done for name in one.record["metrics"]}) == 2


def test_a_machine_that_would_play_something_else_gives_no_number(tmp_path: Path) -> None:
    plan = read_plan("demo-tiny", ["batch.tokens_per_gpu=16"])
    (point,) = plan.points(Digests())
    code, result, reason = played(plan.subject, replace(point, key="of another moesim"), str(Path.cwd()))
    assert (code, result) == (TryAgain.exit_code, None) and "another moesim" in reason
