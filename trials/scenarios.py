"""Random scenarios of tiny models: every key that shapes a step takes values that a user may write."""

from __future__ import annotations

from typing import Any

import numpy as np

DISPATCH = ("nccl", "deepep_normal", "deepep_low_latency", "allgather_reducescatter", "hierarchical_2d")
STATISTICS = ("decode_in2000out100", "prefill_in512", "prefill_in4096")


class Draw:
    """One random scenario after another from a seed."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def scenario(self) -> dict[str, Any]:
        """A document that `load_data` reads. It may be refused: not every draw fits together."""
        world = int(self.pick(1, 2, 4, 8, 8, 16, 16, 32))
        tensor = int(self.pick(1, 1, 1, 2, 4))
        experts = int(self.pick(world, world, 8, 2))
        phase = self.pick("decode", "decode", "prefill", "train")
        schedule = self.pick("sequential", "two_batch") if phase != "train" else "sequential"
        return {
            "name": "drawn",
            "model": self._model(),
            "batch": self._batch(phase),
            "cluster": self._cluster(world),
            "parallel": {
                "tensor_parallel_size": min(tensor, world),
                "data_parallel_size": max(world // tensor, 1),
                "expert_parallel_size": min(experts, world),
            },
            "comm": {"dispatch": self.pick(*DISPATCH) if phase != "train" else "nccl"},
            "overlap": {"schedule": schedule, "shared_expert": bool(self.pick(True, False))},
            "routing": self._routing(),
            "network": {"level": self.pick("auto", "fluid", "port_load"), "window": float(self.pick(0.0, 0.0, 0.01))},
            "costs": self.pick("h100_sxm", "h100_sxm", "roofline"),
            **({"training": {"recompute": ["moe"]}} if phase == "train" and self.pick(True, False) else {}),
        }

    def faulty(self) -> dict[str, Any]:
        """The same with a fault that may fall into the step."""
        made = self.scenario()
        made["network"]["level"] = "auto"
        rank = int(self._rng.integers(0, 2))
        at = f"{self._rng.uniform(0, 400):.0f} us"
        link = {"at": at, "link": f"gpu{rank}/nvlink_up", "factor": float(self.pick(0.0, 0.3)), "until": "20 ms"}
        slow = {"at": at, "rank": rank, "factor": float(self.pick(0.3, 0.7))}
        return {**made, "faults": [self.pick(link, slow)]}

    def pick(self, *values: Any) -> Any:
        """One of them."""
        return values[int(self._rng.integers(len(values)))]

    def _model(self) -> dict[str, Any]:
        experts = int(self.pick(8, 16, 32, 64))
        return {
            "name": "tiny",
            "hidden_size": int(self.pick(256, 512, 1024, 2048)),
            "num_layers": int(self.pick(1, 2, 3)),
            "dense_layers": int(self.pick(0, 0, 1)),
            "dense_intermediate": 1024,
            "vocab_size": 4096,
            "attention": self._attention(),
            "num_experts": experts,
            "top_k": int(self.pick(1, 2, 4, 8)),
            "expert_intermediate": int(self.pick(128, 512, 1024, 1536)),
            "shared_intermediate": int(self.pick(0, 512)),
        }

    def _attention(self) -> dict[str, int]:
        heads, kv_heads, width = self.pick(4, 8, 16), self.pick(2, 4), self.pick(64, 128)
        return {"num_heads": heads, "num_kv_heads": kv_heads, "head_dim": width}

    def _batch(self, phase: str) -> dict[str, Any]:
        if phase == "decode":
            tokens = int(self.pick(1, 2, 3, 8, 32, 128, 256))
            return {"phase": phase, "tokens_per_gpu": tokens, "context": int(self.pick(16, 256, 2048))}
        context = int(self.pick(32, 64, 128))
        batch = {"phase": phase, "tokens_per_gpu": context * int(self.pick(2, 4, 8)), "context": context}
        return {**batch, "micro_batches": int(self.pick(1, 2))} if phase == "train" else batch

    def _cluster(self, world: int) -> dict[str, Any]:
        topology = self.pick("dgx-h100", "dgx-h100", "rail-fat-tree", "leaf-fat-tree")
        nodes = -(-world // 8)
        ratio = {} if topology == "dgx-h100" else {"oversubscription": float(self.pick(1, 2, 4))}
        return {"topology": topology, "nodes": max(nodes, 2 if ratio else 1), **ratio}

    def _routing(self) -> dict[str, Any]:
        generated = {"popularity": {"lognormal": float(self.pick(0.0, 0.6, 1.5))}}
        return self.pick(  # type: ignore[no-any-return]
            {"balanced": True},
            {"sampled": self.pick(*STATISTICS)},
            {"router": "topk_softmax", "generator": generated},
            {"router": {"name": "top_p", "p": 0.3}, "generator": generated},
        )
