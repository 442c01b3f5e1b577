"""A measured row played: a closed loop of `concurrency` clients who send 10 prompts each, the first ones at t = 0, of
lengths drawn evenly from 0.8 to 1.0 of the nominal ones. And the constants of engines that it may be played with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from moesim import streams
from moesim.errors import BadInput
from moesim.serving import Requests, Settings, engine
from moesim.serving.closed import serve_closed
from moesim.studies.serving.build import kv_memory
from moesim.studies.validation.rows import Row, whole
from moesim.studies.validation.serving_kinds import MOST, Kind, clock_of, settings_of

PROMPTS: Final = 10  # of each client
SHORTEST: Final = 0.8  # of nominal lengths


class Constants(NamedTuple):
    """Of an engine: seconds that the host takes for a layer that no graph holds, of every step, from the client to the
    scheduler; and how much longer what prompts add to a step takes than its kernels.
    """

    eager: float
    host: float
    front: float
    slowdown: float

    @classmethod
    def of(cls, backend: str) -> Constants:
        """Those of its preset. Raises BadInput."""
        found = engine(backend)
        return cls(found.eager_time_per_layer, found.host_time, found.frontend_time, found.prompt_slowdown)

    def on(self, settings: Settings) -> Settings:
        """Settings with them."""
        return settings.model_copy(
            update={
                "eager_time_per_layer": self.eager, "host_time": self.host, "frontend_time": self.front,
                "prompt_slowdown": self.slowdown,
            }
        )  # fmt: skip


NOTHING_FITTED: Final = Constants(0.0, 3e-4, 0.0, 1.0)  # guessed before any error was seen, for all engines
LEFT_OUT: Final[Mapping[str, Mapping[str, Constants]]] = {  # engine -> (model, system) it was fitted without
    "sglang": {
        "Qwen/Qwen3.5-397B-A17B b200_sxm": Constants(1.5e-3, 0.0, 60e-3, 1.4),
        "deepseek-ai/DeepSeek-R1 b200_sxm": Constants(2e-3, 2e-3, 100e-3, 1.4),
        "zhipuai/GLM-5 b200_sxm": Constants(1.5e-3, 1.5e-3, 100e-3, 1.3),
    },
    "trtllm": {
        "Qwen/Qwen3-235B-A22B-FP8 h100_sxm": Constants(0.2e-3, 0.15e-3, 30e-3, 1.3),
        "deepseek-ai/DeepSeek-R1 b200_sxm": Constants(0.2e-3, 0.15e-3, 30e-3, 1.3),
        "openai/gpt-oss-120b b200_sxm": Constants(0.2e-3, 0.0, 30e-3, 1.4),
    },
    "vllm": {
        "openai/gpt-oss-120b b200_sxm": Constants(1.25e-3, 0.15e-3, 10e-3, 1.6),
        "openai/gpt-oss-120b h100_sxm": Constants(1.5e-3, 0.3e-3, 15e-3, 1.5),
    },
}


@dataclass(frozen=True)
class Asked:
    """A closed loop: nominal tokens of prompts and answers, clients."""

    kind: Kind
    isl: int
    osl: int
    clients: int

    @classmethod
    def of(cls, row: Row) -> Asked:
        """Raises BadInput."""
        found = cls(Kind.of(row), *(whole(row, name, MOST) for name in ("isl", "osl", "concurrency")))
        if found.osl < 2:
            raise BadInput(f"osl {found.osl}: an answer of one token has no time per output token")
        return found

    @property
    def who(self) -> str:
        """Model and system, as LEFT_OUT names them."""
        return f"{self.kind.model} {self.kind.system}"

    def requests(self) -> Requests:
        """The same for all who ask for these lengths and clients."""
        draw = streams.stream(0, "validation", "serving", self.isl, self.osl, self.clients)
        n = PROMPTS * self.clients
        prompt, output = (
            draw.integers(max(int(SHORTEST * mean), 1), mean, n, endpoint=True) for mean in (self.isl, self.osl)
        )
        return Requests(np.zeros(n, dtype=np.int64), prompt, output, self.clients)


def played(asked: Asked, constants: Constants) -> tuple[float, float]:
    """Mean TTFT and TPOT, ms. Raises MoesimError where it cannot be served."""
    settings = constants.on(settings_of(asked.kind, asked.isl, asked.clients))
    found = serve_closed(asked.requests(), settings, _blocks(asked), clock_of(asked.kind))
    return float(found.ttft.mean() * 1e3), float(found.tpot.mean() * 1e3)


@lru_cache(maxsize=1)
def _blocks(asked: Asked) -> int:
    """Of the KV cache: constants do not change it. Raises DoesNotFit."""
    return kv_memory(clock_of(asked.kind).plan, settings_of(asked.kind, asked.isl, asked.clients)).blocks


def left_out(asked: Asked) -> Constants:
    """Fitted without the rows of this model and system; the preset's where it was fitted without them anyway."""
    backend = asked.kind.backend
    return LEFT_OUT.get(backend, {}).get(asked.who) or Constants.of(backend)
