"""Replicas that die while they serve, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.test_serve import SMALL
from tests.studies.test_pools_schema import BASE

if TYPE_CHECKING:
    from tests.cli.conftest import Moesim

LENGTHS = "input_length: {fixed: 200}, output_length: {fixed: 40}"
ASK = f"requests={{number: 24, arrivals: {{poisson: {{rate: 200/s}}}}, {LENGTHS}}}"
TWO = (*SMALL, "--set", ASK, "--set", "replicas=2", "--set", "balancer=round_robin")


def test_requests_of_a_dead_replica_are_computed_again_or_lost(moesim: Moesim) -> None:
    for then, more in (("retry", ", retry_after: 2 ms"), ("lose", "")):
        fault = f"faults=[{{replica: 1, at: 50 ms, until: 80 ms, then: {then}{more}}}]"
        done = moesim("run", *TWO, "--set", fault, "--json")
        assert done.code == 0, done.err
        document = json.loads(done.out)
        values = {name: metric["value"] for name, metric in document["metrics"].items()}
        assert values["completed"] + values["lost"] == 24 and values["failed"] == values["lost"]
        assert (values["retries"] > 0, values["lost"] > 0) == (then == "retry", then == "lose")
        assert values["down_s"] == pytest.approx(0.03)
        assert sum(document["breakdown"].values()) * 1e3 == pytest.approx(values["mean_e2el_ms"], rel=1e-9)
        assert "1 times a replica died" in done.err


@pytest.mark.parametrize(
    ("faults", "code", "where"),
    [
        ("[{replica: 2, at: 1 s}]", 2, "faults[0].replica: no replica 2, there are at most 2"),
        ("[{pool: decode, replica: 1, at: 1 s}]", 2, "faults[0].pool: there are no pools"),
        ("[{gpu: 16, at: 1 s}]", 2, "no gpu 16, the last is 15"),
        ("[{node: 7, at: 1 s}]", 2, "no node 7, the last is 1"),
        ("[{replica: 0, gpu: 1, at: 1 s}]", 2, "one of replica, gpu and node"),
        ("[{at: 1 s}]", 2, "one of replica, gpu and node"),
        ("[{replica: 0, at: 1 s, until: 1 s}]", 2, "until has to come after at"),
        ("[{replica: 0, at: 1 s, then: lose, retry_after: 1 s}]", 2, "retry_after needs then: retry"),
        ("[{replica: 0, at: 1}]", 2, "has no unit"),
        ("[{replica: 0, at: 0 s}, {replica: 1, at: 0 s}]", 3, "no request is answered, 24 are lost"),
    ],
)
def test_what_cannot_be_is_refused(moesim: Moesim, faults: str, code: int, where: str) -> None:
    done = moesim("run", *TWO, "--set", f"faults={faults}")
    assert done.code == code and where in done.err, done.err
    assert "Traceback" not in done.err


def test_replicas_of_pools_die_by_their_own_gpus(moesim: Moesim) -> None:
    """Replicas 0 and 1 compute prompts on a node each, 2 and 3 answer on the next two."""
    pools = [f"pools.{role}={{replicas: 2, parallel: {{data_parallel_size: 8, expert_parallel_size: 8}}}}"
             for role in ("prefill", "decode")]  # fmt: skip
    asked = ("model=tiny-moe", "routing={trace: tiny-moe}", "precision={}", "cluster.nodes=4", *pools,
             "scheduler={preset: vllm_dp_ep}", "requests={number: 24, arrivals: {poisson: {rate: 300/s}}, "
             "input_length: {fixed: 200}, output_length: {fixed: 20}}")  # fmt: skip
    base = ("run", "dsv3-pools", *(word for text in asked for word in ("--set", text)))
    for what in ("pool: decode, replica: 0", "node: 2", "gpu: 17"):
        done = moesim(*base, "--set", f"faults=[{{{what}, at: 20 ms}}]", "--json")
        assert done.code == 0, done.err
        values = {name: metric["value"] for name, metric in json.loads(done.out)["metrics"].items()}
        assert values["completed"] == 24 and values["retries"] > 0 and values["lost"] == 0, what
    for what, says in (
        ("pool: decode, replica: 2", "no decode replica 2, there are at most 2"),
        ("replica: 2", "faults[0].replica: a replica of which pool? Try: pool: prefill or pool: decode"),
        ("pool: decode, gpu: 2", "a gpu or node is the cluster's"),
    ):
        done = moesim(*base, "--set", f"faults=[{{{what}, at: 1 s}}]")
        assert done.code == 2 and says in done.err, done.err


def test_a_fault_is_of_the_same_replica_whatever_size_other_pools_have(moesim: Moesim) -> None:
    """The one replica that answers dies before anybody came and returns: as long for one prefill replica as for two."""
    base = [word for text in (*BASE, "pools.transfer=infinite") for word in ("--set", text)]
    dies = "faults=[{pool: decode, replica: 0, at: 0 s, until: 90 ms}]"
    for many in (1, 2):
        done = moesim("run", "dsv3-pools", *base, "--set", f"pools.prefill.replicas={many}", "--set", dies, "--json")
        assert done.code == 0, done.err
        values = {name: metric["value"] for name, metric in json.loads(done.out)["metrics"].items()}
        assert values["mean_ttft_ms"] > 80 and values["retries"] == 0 and values["completed"] == 24


def test_a_search_over_replicas_wants_faults_of_hardware(moesim: Moesim) -> None:
    done = moesim("recommend", *SMALL, "--set", ASK, "--set", "faults=[{replica: 0, at: 1 ms, until: 1 s}]")
    assert done.code == 2 and "faults[0]: replicas are searched" in done.err and "a gpu or node" in done.err, done.err


def test_no_prompt_waits_for_answers_of_another_pool(moesim: Moesim) -> None:
    base = [part for text in BASE for part in ("--set", text)]
    for key in ("scheduler.prefill_decode_interval=4", "scheduler.prefill_schedule_interval=4",
                "pools.decode.scheduler={preset: sglang, prefill_decode_interval: 4}"):  # fmt: skip
        done = moesim("run", "dsv3-pools", *base, "--set", key)
        assert done.code == 2 and "different replicas" in done.err and "interval:" in done.err, done.err


def test_late_outages_are_said_to_change_nothing(moesim: Moesim) -> None:
    done = moesim("run", *TWO, "--set", "faults=[{replica: 0, at: 1000 s}]", "--json")
    calm = moesim("run", *TWO, "--json")
    assert "1 outages begin after the last answer" in done.err
    one, other = (json.loads(run.out)["metrics"] for run in (done, calm))
    assert {name: one[name] for name in other} == other


def test_replicas_come_and_go_and_their_time_is_paid(moesim: Moesim) -> None:
    scale = "autoscale={target: 1, max_replicas: 3, startup_time: 5 ms, interval: 4 ms, scale_down_after: 20 ms}"
    one = (*SMALL, "--set", ASK, "--set", "prices={gpu_hour: 3600}", "--set", "requests.warmup=0 s")
    done = moesim("run", *one, "--set", scale, "--json")
    assert done.code == 0, done.err
    values = {name: metric["value"] for name, metric in json.loads(done.out)["metrics"].items()}
    assert values["completed"] == 24 and values["replicas_started"] > 0 and 1 < values["mean_replicas"] < 3
    first = values["gpu_hours"] * 3600 / (8 * values["duration_s"])  # mean replicas of the counted time
    assert 1 < first < 3
    cost = values["gpu_hours"] * 3600 / values["total_output"] * 1e6
    assert values["cost_per_million_output_tokens"] == pytest.approx(cost)


def test_replicas_of_pools_come_and_go(moesim: Moesim, tmp_path: Path) -> None:
    """What is paid is a pool's GPUs x its mean replicas; its series and page tell the replicas over time."""
    scale = "{target: 2, max_replicas: 3, startup_time: 5 ms, interval: 4 ms, scale_down_after: 20 ms}"
    asked = (*BASE, "cluster.nodes=4", f"pools.decode.autoscale={scale}", "prices={gpu_hour: 1}", "requests.warmup=0 s")
    page = tmp_path / "page.html"
    done = moesim(
        "run", "dsv3-pools", *(part for text in asked for part in ("--set", text)), "--json", f"--report={page}"
    )
    assert done.code == 0, done.err
    document = json.loads(done.out)
    values = {name: metric["value"] for name, metric in document["metrics"].items()}
    assert values["completed"] == 24 and values["decode_replicas_started"] > 0
    assert "prefill_mean_replicas" not in values and 1 < values["decode_mean_replicas"] <= 3
    hours = 8 * (1 + values["decode_mean_replicas"]) * values["duration_s"] / 3600
    assert values["gpu_hours"] == pytest.approx(hours, rel=0.02)  # the counted time begins with the first request
    assert {1} < {row["decode_replicas"] for row in document["provenance"]["series"]} <= {1, 2, 3}
    assert "decode replicas" in page.read_text() and any("autoscale of pools" in one for one in document["warnings"])


def test_replicas_that_never_served_are_not_drawn_and_those_left_out_are_counted(moesim: Moesim) -> None:
    asked = ("requests.number=12", "requests.arrivals={burst: {size: 12, every: 1 s}}")
    for many, scale, left in ((1, "{target: 99, max_replicas: 3, startup_time: 1 s}", 0), (6, None, 2)):
        pools = (f"pools.decode.replicas={many}", f"pools.decode.autoscale={scale}") if scale else (
            f"pools.decode.replicas={many}", "cluster.nodes=8")  # fmt: skip
        every = (*BASE, "cluster.nodes=4", *asked, *pools)
        done = moesim("run", "dsv3-pools", *(part for text in every for part in ("--set", text)), "--out", f"r{many}")
        assert done.code == 0, done.err
        drawn = json.loads(Path(f"r{many}/pictures.json").read_text())
        names = [one["name"] for one in drawn["replicas"] if one["name"].startswith("decode")]
        assert names == [f"decode replica {number}" for number in range(many - left)] and drawn["undrawn"] == left


def test_a_pool_begins_within_its_bounds(moesim: Moesim) -> None:
    base = [part for text in BASE for part in ("--set", text)]
    own = "{target: 2, max_replicas: 3, min_replicas: 2, startup_time: 1 s}"
    for key, where in (
        (f"pools.prefill.autoscale={own}", "pools.prefill.autoscale"),
        (f"autoscale={own}", "autoscale"),
    ):
        done = moesim("run", "dsv3-pools", *base, "--set", key)
        assert done.code == 2 and f"{where}:" in done.err and "Traceback" not in done.err, done.err


@pytest.mark.parametrize(
    ("scale", "where"),
    [
        ("{target: 1, max_replicas: 3, startup_time: 1 s, min_replicas: 2}", "begins with 1"),
        ("{target: 2, max_replicas: 3, startup_time: 1 s, policy: utilisation}", "a share of 2"),
        ("{target: 2, max_replicas: 3, startup_time: 1 s, policy: magic}", "magic"),
        ("{target: 2, max_replicas: 3}", "startup_time"),
        ("{target: 0, max_replicas: 3, startup_time: 1 s}", "target"),
        ("{target: 2, max_replicas: 3, startup_time: 1 s, interval: 1 ns}", "more often than every millisecond"),
    ],
)
def test_scaling_that_cannot_be_is_refused(moesim: Moesim, scale: str, where: str) -> None:
    done = moesim("run", *SMALL, "--set", ASK, "--set", f"autoscale={scale}")
    assert done.code == 2 and where in done.err and "Traceback" not in done.err, done.err
