"""Throttle: steps in which prompts wait so that answers go on, which else wait for the slowest rank's prompt.

vLLM (`prefill_schedule_interval`): of a data-parallel deployment, prompts go on in every so manieth step since the
ranks were last idle, the same one on all ranks. A rank on which nothing decodes does not wait, nor one whose last step
with prompts left some in the queue. SGLang (`prefill_decode_interval`): after a step with prompts on any rank so many
follow without. Sources: vLLM's SchedulerConfig and V1 scheduler, SGLang's --prefill-decode-interval and its tests.
"""

from __future__ import annotations

from moesim.serving.scheduler import Scheduler
from moesim.serving.settings import Settings


class Throttle:
    """Of a replica with so many schedulers; steps are counted from its first on."""

    def __init__(self, settings: Settings, schedulers: int) -> None:
        self._every = settings.prefill_schedule_interval if schedulers > 1 else 1
        self._after = settings.prefill_decode_interval
        self._wave = self._open = 0  # the first step after the ranks were idle; the first one that may have prompts

    def wakes(self, step: int) -> None:
        """The replica had nothing to do before this step."""
        self._wave = step

    def prompted(self, step: int) -> None:
        """There are prompts in this step."""
        self._open = step + 1 + self._after

    def defers(self, one: Scheduler, step: int) -> bool:
        """Do the scheduler's prompts wait in this step?"""
        if step < self._open:
            return True
        return (step - self._wave) % self._every > 0 and len(one.queue.decoding) > 0 and not one.backlog
