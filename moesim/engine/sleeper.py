"""The one place that touches simpy's clock: guarded waits, and sleepers that are woken once an instant.

simpy accepts a NaN or infinite delay and then lets its clock run backwards; here every delay is a whole number.
"""

from __future__ import annotations

import simpy

from moesim.errors import BrokenInvariant

NORMAL, LATE = 1, 2  # simpy's priorities: LATE comes after everything else of the same instant
FOREVER = (1 << 63) - 1


def wait(env: simpy.Environment, ticks: int) -> simpy.Timeout:
    """An event `ticks` ps from now. Raises BrokenInvariant unless `ticks` is a whole number from 0."""
    if not isinstance(ticks, int) or isinstance(ticks, bool) or ticks < 0:
        raise BrokenInvariant(f"a wait of {ticks!r} ticks")
    return env.timeout(ticks)


def next_event(env: simpy.Environment) -> int:
    """The time of the next event of anybody; FOREVER where there is none."""
    ahead = env.peek()
    return FOREVER if ahead == float("inf") else int(ahead)


class Sleeper:
    """For one process: `yield sleeper.sleep()` until someone calls `wake` or the alarm rings."""

    def __init__(self, env: simpy.Environment, priority: int) -> None:
        self._env, self._priority = env, priority
        self._event: simpy.Event | None = None
        self._again = False
        self._alarm = FOREVER

    def sleep(self) -> simpy.Event:
        """The event that ends the sleep; a call of `wake` since the last sleep counts."""
        self._event = self._env.event()
        if self._again:
            self.wake()
        return self._event

    def wake(self) -> None:
        """End the sleep in this instant, after others of the same instant where the priority is LATE."""
        if self._event is None or self._event.triggered:
            self._again = self._event is None or self._event.processed
            return
        self._again = False
        self._event._ok, self._event._value = True, None
        self._env.schedule(self._event, priority=self._priority)

    def set_alarm(self, at: int) -> None:
        """Wake at tick `at` or before: an earlier alarm that is still set is left to ring."""
        if at < self._alarm:
            self._alarm = at
            wait(self._env, at - int(self._env.now)).callbacks.append(self._ring)

    def _ring(self, _: simpy.Event) -> None:
        if self._env.now >= self._alarm:
            self._alarm = FOREVER
        self.wake()
