"""Every key that only serving scenarios have changes the result of some scenario."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from moesim.errors import BadInput
from moesim.hardware import load_cluster
from moesim.studies.scenario import Setup
from moesim.studies.serving import ServeScenario, run_serving
from moesim.studies.serving.offload_section import KvOffloadSection
from tests.studies.test_schema_walk import leaves

SMALL = ("model=tiny-moe", "routing={trace: tiny-moe}", "precision={}", "seeds=1")
ASK = {
    "number": "24",
    "arrivals": "{poisson: {rate: 300/s}}",
    "input_length": "{fixed: 200}",
    "output_length": "{fixed: 20}",
}


def requests(**changes: str) -> str:
    return "requests={" + ", ".join(f"{key}: {value}" for key, value in {**ASK, **changes}.items()) + "}"


PREFIX = requests(prefix="{documents: 4, share: 0.5, zipf: 1.0}")


def faults(text: str) -> str:
    return f"faults=[{{{text}}}]"


def autoscale(**changes: str) -> str:
    given = {"target": "1", "max_replicas": "3", "startup_time": "1 ms", "interval": "4 ms", **changes}
    return "autoscale={" + ", ".join(f"{key}: {value}" for key, value in given.items()) + "}"


def classes(**changes: str) -> str:
    """Two classes, the second one changed."""
    second = {"name": "b", "share": "0.5", **changes}
    told = ", ".join(f"{key}: {value}" for key, value in second.items() if value)
    share = "0.5" if second["share"] == "0.5" else "1.0" if not second["share"] else "0.9"
    return requests(classes=f"[{{name: a, share: {share}}}, {{{told}}}]", output_length="{fixed: 20}")


def own(arrivals: str, number: str = "8") -> str:
    lengths = {"input_length": "50", "output_length": "9"}
    return classes(share="", arrivals=f"{{{arrivals}}}", number=number, **lengths)


def ranked(first: int) -> str:
    kinds = f"[{{name: a, share: 0.5, priority: {first}}}, {{name: b, share: 0.5, priority: 4}}]"
    return requests(arrivals="{burst: {size: 24, every: 1 s}}", classes=kinds)


def sessions(**changes: str) -> str:
    kids = {key[2:]: value for key, value in changes.items() if key.startswith("c_")}
    given = {"turns": "3", **{key: value for key, value in changes.items() if not key.startswith("c_")}}
    if kids:
        base = {"number": "2", "input_length": "40", "output_length": "9", **kids}
        given["children"] = "{" + ", ".join(f"{key}: {value}" for key, value in base.items()) + "}"
    told = ", ".join(f"{key}: {value}" for key, value in given.items())
    return requests(number="8", sessions=f"{{{told}}}")


LENGTHS = {
    "fixed": "{fixed: 30}", "uniform.low": "{uniform: {low: 5, high: 9}}",
    "uniform.high": "{uniform: {low: 5, high: 11}}", "lognormal.mean": "{lognormal: {mean: 30, cv: 1}}",
    "lognormal.cv": "{lognormal: {mean: 30, cv: 0.2}}", "dataset.file": "{dataset: {file: azure-code-2023}}",
}  # fmt: skip
COUNTS = {
    "fixed": "{fixed: 5}", "uniform.low": "{uniform: {low: 1, high: 6}}",
    "uniform.high": "{uniform: {low: 1, high: 9}}", "geometric": "{geometric: 4.0}",
}  # fmt: skip


def stages(**changes: str) -> str:
    given = {"name": "a", "seconds": "1 ms", **changes}
    return "stages=[{" + ", ".join(f"{key}: {value}" for key, value in given.items() if value) + "}]"


MODEL = {"model": "Qwen/Qwen3-32B", "devices": "2"}
DRAFTS = ("scheduler={preset: vllm_dp_ep, num_speculative_tokens: 1, draft_acceptance_rate: 0.8}",)
SHORT = (  # of KV: preempted requests go to the host
    "scheduler={preset: vllm_dp_ep, free_gpu_memory_fraction: 4.0e-5}", "kv_offload={swap_space: 1 GiB}",
    requests(arrivals="{burst: {size: 24, every: 1 s}}", output_length="{fixed: 150}"),
)  # fmt: skip
SHARING = (  # more texts than the HBM has room for
    "scheduler={preset: vllm_dp_ep, free_gpu_memory_fraction: 2.0e-5}",
    requests(number="80", arrivals="{poisson: {rate: 1000/s}}", prefix="{documents: 12, share: 0.9, zipf: 0.5}"),
)  # fmt: skip
MOVES = "rebalance={step_interval: 20, window_size: 10}"
RANKED = ("scheduler={scheduling_policy: priority, preset: vllm_dp_ep, max_num_seqs: 1}", ranked(0))
SCALES = (autoscale(),)
DIES = ("replicas=2", "balancer=round_robin", faults("replica: 0, at: 5 ms, until: 1 s"))
AZURE, FEW = "replay: {file: azure-conv-2023", ("scheduler.max_num_seqs=2",)
CASES: dict[str, tuple[tuple[str, ...], str]] = {  # overrides before, and the one that is added
    "routing.renew": ((), "routing.renew=16"),
    "requests.number": ((), requests(number="25")),
    "requests.arrivals.poisson.rate": ((), requests(arrivals="{poisson: {rate: 100/s}}")),
    "requests.arrivals.gamma.rate": (
        (requests(arrivals="{gamma: {rate: 300/s, burstiness: 0.5}}"),),
        requests(arrivals="{gamma: {rate: 100/s, burstiness: 0.5}}"),
    ),
    "requests.arrivals.gamma.burstiness": (
        (requests(arrivals="{gamma: {rate: 300/s, burstiness: 0.5}}"),),
        requests(arrivals="{gamma: {rate: 300/s, burstiness: 2}}"),
    ),
    **{
        f"requests.arrivals.ramp.{key}": (
            (requests(arrivals="{ramp: {first: 9/s, last: 300/s, over: 1 s}}"),),
            requests(arrivals=f"{{ramp: {text}}}"),
        )
        for key, text in {
            "first": "{first: 99/s, last: 300/s, over: 1 s}", "last": "{first: 9/s, last: 30/s, over: 1 s}",
            "over": "{first: 9/s, last: 300/s, over: 2 s}",
        }.items()
    },
    **{
        f"requests.arrivals.wave.{key}": (
            (requests(arrivals="{wave: {low: 9/s, high: 300/s, period: 1 s}}"),),
            requests(arrivals=f"{{wave: {text}}}"),
        )
        for key, text in {
            "low": "{low: 99/s, high: 300/s, period: 1 s}", "high": "{low: 9/s, high: 30/s, period: 1 s}",
            "period": "{low: 9/s, high: 300/s, period: 2 s}",
        }.items()
    },
    "requests.arrivals.burst.size": (
        (requests(arrivals="{burst: {size: 4, every: 20 ms}}"),), requests(arrivals="{burst: {size: 8, every: 20 ms}}")
    ),
    "requests.arrivals.burst.every": (
        (requests(arrivals="{burst: {size: 4, every: 20 ms}}"),), requests(arrivals="{burst: {size: 4, every: 9 ms}}")
    ),
    "requests.arrivals.closed_loop.concurrency": (
        (requests(arrivals="{closed_loop: {concurrency: 2}}"),), requests(arrivals="{closed_loop: {concurrency: 4}}")
    ),
    "requests.arrivals.replay.file": (
        (requests(arrivals=f"{{{AZURE}}}}}"),), requests(arrivals="{replay: {file: azure-code-2023}}")
    ),
    "requests.arrivals.replay.format": (
        (requests(arrivals=f"{{{AZURE}}}}}"),), requests(arrivals=f"{{{AZURE}, format: mooncake}}}}")
    ),
    "requests.arrivals.replay.speed": (
        (requests(arrivals=f"{{{AZURE}}}}}"),), requests(arrivals=f"{{{AZURE}, speed: 30}}}}")
    ),
    **{
        f"requests.{side}.{key}": ((), requests(**{side: text}))
        for side in ("input_length", "output_length")
        for key, text in {
            "fixed": "{fixed: 30}", "uniform.low": "{uniform: {low: 5, high: 9}}",
            "uniform.high": "{uniform: {low: 5, high: 11}}", "lognormal.mean": "{lognormal: {mean: 30, cv: 1}}",
            "lognormal.cv": "{lognormal: {mean: 30, cv: 0.2}}", "dataset.file": "{dataset: {file: azure-code-2023}}",
        }.items()
    },
    **{
        f"requests.{side}.dataset.format": (
            (requests(**{side: "{dataset: {file: azure-code-2023}}"}),),
            requests(**{side: "{dataset: {file: azure-code-2023, format: vidur}}"}),
        )
        for side in ("input_length", "output_length")
    },
    **{
        f"requests.prefix.{key}": ((PREFIX,), requests(prefix=text))
        for key, text in {
            "documents": "{documents: 1, share: 0.5, zipf: 1.0}", "share": "{documents: 4, share: 0.9, zipf: 1.0}",
            "zipf": "{documents: 4, share: 0.5, zipf: 0.0}",
        }.items()
    },
    **{
        f"requests.classes.{key}": ((classes(),), classes(**{key.split(".")[0]: text}))
        for key, text in {
            "name": "c", "share": "0.1", "slo.ttft": "{ttft: 1 us}", "slo.tpot": "{tpot: 1 us}",
            "slo.e2el": "{e2el: 1 us}",
        }.items()
    },
    "requests.classes.priority": (
        RANKED, ranked(9)
    ),
    **{
        f"requests.classes.{side}.{key}": ((classes(),), classes(**{side: text}))
        for side in ("input_length", "output_length")
        for key, text in {
            "fixed": "{fixed: 30}", "uniform.low": "{uniform: {low: 5, high: 9}}",
            "uniform.high": "{uniform: {low: 5, high: 11}}", "lognormal.mean": "{lognormal: {mean: 30, cv: 1}}",
            "lognormal.cv": "{lognormal: {mean: 30, cv: 0.2}}", "dataset.file": "{dataset: {file: azure-code-2023}}",
        }.items()
    },
    **{
        f"requests.classes.{side}.dataset.format": (
            (classes(**{side: "{dataset: {file: azure-code-2023}}"}),),
            classes(**{side: "{dataset: {file: azure-code-2023, format: vidur}}"}),
        )
        for side in ("input_length", "output_length")
    },
    "requests.classes.number": ((own("poisson: {rate: 90/s}"),), own("poisson: {rate: 90/s}", "9")),
    **{
        f"requests.classes.arrivals.{key}": ((own(base),), own(text))
        for base, cases in {
            "poisson: {rate: 90/s}": {"poisson.rate": "poisson: {rate: 50/s}"},
            "gamma: {rate: 300/s, burstiness: 0.5}": {
                "gamma.rate": "gamma: {rate: 100/s, burstiness: 0.5}",
                "gamma.burstiness": "gamma: {rate: 300/s, burstiness: 2}",
            },
            "ramp: {first: 9/s, last: 300/s, over: 1 s}": {
                "ramp.first": "ramp: {first: 99/s, last: 300/s, over: 1 s}",
                "ramp.last": "ramp: {first: 9/s, last: 30/s, over: 1 s}",
                "ramp.over": "ramp: {first: 9/s, last: 300/s, over: 2 s}",
            },
            "wave: {low: 9/s, high: 300/s, period: 1 s}": {
                "wave.low": "wave: {low: 99/s, high: 300/s, period: 1 s}",
                "wave.high": "wave: {low: 9/s, high: 30/s, period: 1 s}",
                "wave.period": "wave: {low: 9/s, high: 300/s, period: 2 s}",
            },
            "burst: {size: 4, every: 20 ms}": {
                "burst.size": "burst: {size: 8, every: 20 ms}", "burst.every": "burst: {size: 4, every: 9 ms}",
            },
        }.items()
        for key, text in cases.items()
    },
    **{
        f"requests.sessions.{key}": ((sessions(),), sessions(**{key.split(".")[0]: text}))
        for key, text in {
            **{f"turns.{key}": text for key, text in COUNTS.items()}, "think_time.fixed": "9 ms",
            "think_time.exponential": "{exponential: 9 ms}",
            "think_time.lognormal.mean": "{lognormal: {mean: 9 ms, cv: 1}}",
            "think_time.lognormal.cv": "{lognormal: {mean: 9 ms, cv: 2}}",
        }.items()
    },
    **{
        f"requests.sessions.children.{key}": ((sessions(c_number="2"),), sessions(**{f"c_{key.split('.')[0]}": text}))
        for key, text in {
            **{f"number.{key}": text for key, text in COUNTS.items()},
            **{f"{side}.{key}": text for side in ("input_length", "output_length") for key, text in LENGTHS.items()},
            "begin": "dispatch", "context": "parent",
        }.items()
    },
    **{
        f"requests.sessions.children.{side}.dataset.format": (
            (sessions(**{f"c_{side}": "{dataset: {file: azure-code-2023}}"}),),
            sessions(**{f"c_{side}": "{dataset: {file: azure-code-2023, format: vidur}}"}),
        )
        for side in ("input_length", "output_length")
    },
    "requests.warmup": ((), requests(warmup="20 ms")),
    "scheduler.preset": ((), "scheduler={preset: sglang}"),
    "scheduler.scheduling_policy": (RANKED, "scheduler.scheduling_policy=fcfs"),
    "scheduler.policy": ((), "scheduler.policy=prefill_first"),
    "scheduler.max_num_batched_tokens": ((), "scheduler={preset: vllm_dp_ep, max_num_batched_tokens: 256}"),
    "scheduler.max_num_seqs": ((), "scheduler.max_num_seqs=1"),
    "scheduler.prefix_cache": ((PREFIX,), "scheduler.prefix_cache=false"),
    "scheduler.block_size": ((), "scheduler.block_size=256"),
    "scheduler.gpu_memory_utilization": ((), "scheduler.gpu_memory_utilization=0.5"),
    "scheduler.free_gpu_memory_fraction": ((), "scheduler.free_gpu_memory_fraction=0.5"),
    "scheduler.num_gpu_blocks_override": ((), "scheduler.num_gpu_blocks_override=40"),
    "scheduler.reserved_output": ((), "scheduler.reserved_output=1.0"),
    "scheduler.schedule_ahead": ((), "scheduler.schedule_ahead=true"),
    "scheduler.poll_interval": ((), "scheduler.poll_interval=5"),
    "scheduler.balance_timeout": ((), "scheduler.balance_timeout=20"),
    "scheduler.balance_wait": (
        (requests(arrivals="{burst: {size: 8, every: 5 ms}}"), "scheduler.balance_timeout=40"),
        "scheduler.balance_wait=9",
    ),
    "scheduler.prefill_schedule_interval": ((), "scheduler.prefill_schedule_interval=8"),
    "scheduler.prefill_decode_interval": ((), "scheduler.prefill_decode_interval=8"),
    **{
        f"kv_offload.{key}": (SHORT, f"kv_offload.{key}={text}")
        for key, text in {"swap_space": "160 KiB", "host_link": "1 GB/s"}.items()
    },
    "kv_offload.host_cache": ((*SHARING, "kv_offload={host_cache: 1 GiB}"), "kv_offload.host_cache=1 MiB"),
    **{
        f"kv_offload.pool.{key}": ((*SHARING, "kv_offload={pool: {size: 1 GiB, rate: 9 GB/s}}"), change)
        for key, change in {"size": "kv_offload.pool.size=1 MiB", "rate": "kv_offload.pool.rate=1 GB/s"}.items()
    },
    **{
        f"rebalance.{key}": ((MOVES,), f"rebalance.{key}={text}")
        for key, text in {
            "step_interval": "30", "window_size": "20", "strategy": "random", "hysteresis": "0.9", "max_moved": "0.05",
        }.items()
    },
    "scheduler.num_speculative_tokens": (DRAFTS, "scheduler.num_speculative_tokens=3"),
    "scheduler.draft_acceptance_rate": (DRAFTS, "scheduler.draft_acceptance_rate=0.1"),
    "scheduler.draft_layers": (DRAFTS, "scheduler.draft_layers=0.5"),
    "scheduler.host_time": ((), "scheduler.host_time=1 ms"),
    "scheduler.eager_time_per_layer": ((), "scheduler.eager_time_per_layer=5 ms"),
    "scheduler.graph_batch": (("scheduler.eager_time_per_layer=5 ms",), "scheduler.graph_batch=0"),
    "scheduler.graph_tokens": (("scheduler.eager_time_per_layer=5 ms",), "scheduler.graph_tokens=2048"),
    "scheduler.prompt_slowdown": ((), "scheduler.prompt_slowdown=1.5"),
    "scheduler.frontend_time": ((), "scheduler.frontend_time=1 ms"),
    **{
        f"stages.{key}": ((stages(),), stages(**{key: text}))
        for key, text in {
            "name": "b", "where": "per_token", "seconds": "9 ms", "passes": "2", "devices": "replica"
        }.items()
    },
    "stages.model": ((stages(),), stages(seconds="", model="Qwen/Qwen3-32B")),
    **{
        f"stages.{key}": ((stages(seconds="", **MODEL),), stages(seconds="", **{**MODEL, key: text}))
        for key, text in {
            "input_length": "99", "output_length": "9", "bidirectional": "true", "resident": "2",
            "tensor_parallel_size": "2",
        }.items()
    },
    **{f"slo.{key}": ((), f"slo={{{key}: 1 us}}") for key in ("ttft", "tpot", "e2el")},
    "prices.gpu_hour": (("prices={gpu_hour: 2}",), "prices.gpu_hour=3"),
    "prices.gpu_watts": (("prices={gpu_hour: 2}",), "prices.gpu_watts=1000"),
    "prices.kilowatt_hour": (("prices={gpu_hour: 2, gpu_watts: 1000}",), "prices.kilowatt_hour=0.1"),
    "replicas": (FEW, "replicas=2"),
    "balancer": ((*FEW, "replicas=2"), "balancer=round_robin"),
    "faults.at": (DIES, faults("replica: 0, at: 30 ms, until: 1 s")),
    "faults.until": (DIES, faults("replica: 0, at: 5 ms, until: 9 ms")),
    "faults.replica": (DIES, faults("replica: 1, at: 5 ms, until: 1 s")),
    "faults.pool": (DIES, faults("pool: decode, replica: 1, at: 5 ms, until: 1 s")),
    "faults.gpu": (DIES, faults("gpu: 11, at: 5 ms, until: 1 s")),
    "faults.node": (DIES, faults("node: 1, at: 5 ms, until: 1 s")),
    "faults.then": (DIES, faults("replica: 0, at: 5 ms, until: 1 s, then: lose")),
    "faults.retry_after": (DIES, faults("replica: 0, at: 5 ms, until: 1 s, retry_after: 1 ms")),
    "autoscale.policy": (SCALES, autoscale(policy="utilisation", target="0.9")),
    "autoscale.target": (SCALES, autoscale(target="100")),
    "autoscale.min_replicas": (("replicas=3", autoscale()), autoscale(min_replicas="3")),
    "autoscale.max_replicas": (SCALES, autoscale(max_replicas="1")),
    "autoscale.startup_time": (SCALES, autoscale(startup_time="1 s")),
    "autoscale.interval": (SCALES, autoscale(interval="20 ms")),
    "autoscale.scale_down_after": (("replicas=3", autoscale(scale_down_after="0 s")), autoscale()),
    "seeds": ((), "seeds=2"),
}  # fmt: skip
REFUSED = {
    "faults.pool": "there are no pools",  # with pools: tests/cli/test_serve_faults.py
    **dict.fromkeys(
        (
            "requests.arrivals.replay.format", "requests.input_length.dataset.format",
            "requests.output_length.dataset.format", "requests.classes.input_length.dataset.format",
            "requests.classes.output_length.dataset.format",
            "requests.sessions.children.input_length.dataset.format",
            "requests.sessions.children.output_length.dataset.format",
        ), "has no",
    ),
    "scheduler.scheduling_policy": "priorities do not count",
    "stages.resident": "stage a weights 131 GB",  # of a stage's own GPUs only the ledger sees it
}  # fmt: skip


def test_every_key_has_a_case() -> None:
    elsewhere = ("pools.", "stages.model.")  # walked with the keys of pools, and of models
    own = {key for key in leaves(ServeScenario) if not key.startswith(elsewhere)} - set(leaves(Setup)) - {"mode"}
    assert own == set(CASES)


@cache
def played(overrides: tuple[str, ...]) -> dict[str, Any]:
    document = run_serving("qwen3-serve", overrides=(*SMALL, requests(), *overrides)).to_json()
    return {name: document[name] for name in ("metrics", "breakdown")}


@pytest.mark.parametrize("key", CASES)
def test_a_key_changes_a_result_or_is_refused(key: str) -> None:
    base, change = CASES[key]
    if key in REFUSED:
        with pytest.raises(Exception, match=REFUSED[key]):
            played((*base, change))
    else:
        assert played((*base, change)) != played(base), change


def test_large_blocks_are_swapped_where_there_is_no_pool() -> None:
    """64 tokens of Qwen3-30B-A3B are 6.3 MB; none of them is priced at the rate of a pool that is not there."""
    host = KvOffloadSection.model_validate({"swap_space": "1 GB"}).memory(load_cluster("dgx-h100").devices[0], 6.4e6, 1)
    assert (host.swap, host.copy, host.pool, host.pool_copy) == (156, 10**8, 0, 0)


def test_more_requests_than_a_recording_holds_are_refused_with_how_many_it_has() -> None:
    many = (*SMALL, requests(number="9999999", arrivals="{replay: {file: azure-code-2023}}"))
    with pytest.raises(BadInput, match=r"holds (\d+) requests. Try: number: \1 or less"):
        run_serving("qwen3-serve", overrides=many)
