"""CommunicationCost: what the kernels of an all-to-all or a collective add to bytes over bandwidth, and reach of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from moesim.costs.estimate import Basis
from moesim.errors import unknown_name

STANDS_IN = {  # kernel -> the one whose constants it takes where a profile has none
    "deepep_intranode": "deepep_normal",
    "deepep_low_latency_intranode": "deepep_low_latency",
    "nvlink_domain": "nccl",
    "nccl_ring": "nccl",
    "nccl_nvls": "nccl_ring",
}


@dataclass(frozen=True)
class Steps:
    """Start-up of one collective `op` over `ranks` by the bytes that its busiest rank sends: what its measured time has
    beyond bytes over the rate at which large messages go. NCCL changes protocol (LL, LL128, Simple) with the size, so
    this is no constant. bytes float64[n] ascending, alpha float64[n] s; lines between the points, the last one goes on.
    """

    op: str
    ranks: int
    bytes: tuple[float, ...]
    alpha: tuple[float, ...]

    def at(self, sent: float) -> float:
        """Seconds, never negative."""
        last = self.bytes[-1]
        if sent <= last or len(self.bytes) == 1:
            return float(np.interp(sent, self.bytes, self.alpha))
        slope = (self.alpha[-1] - self.alpha[-2]) / (last - self.bytes[-2])
        return max(self.alpha[-1] + slope * (sent - last), 0.0)


@dataclass(frozen=True)
class CommunicationCost:
    """What the kernels of one all-to-all or collective add and achieve.

    alpha: seconds before the first byte; per_message: seconds for each message that a rank sends one after the other (a
    peer of a grouped exchange, a round of a ring or tree); efficiency: fraction of the nominal rate reached per tier
    ("nvlink", "nic"); sms: SMs its kernels hold while they run beside compute; steps: measured start-ups, which replace
    alpha and per_message where they hold the collective. per_crossing: seconds for each of the messages in a chain that
    has to leave its node. sm_rate: B/s that one SM copies or forwards, which limits what all `sms` together move over a
    link inside the node however wide it is (0: no such limit is known). device: on which it was measured ("" unknown).
    spread: standard deviation of the logarithm of its held-out errors.
    """

    alpha: float
    efficiency: Mapping[str, float] = field(default_factory=dict)
    sms: int = 0
    basis: Basis = "assumed"
    source: str = ""
    per_message: float = 0.0
    steps: tuple[Steps, ...] = ()
    per_crossing: float = 0.0
    sm_rate: float = 0.0
    device: str = ""
    spread: float = 0.0

    def startup(
        self, op: str, ranks: int, messages: int, sent: float, *, further: int = 0, crossings: int = 0
    ) -> float:  # fmt: skip
        """Seconds between release and first byte, of a collective over `ranks` whose busiest rank sends `sent` bytes in
        `messages` messages. Of several tables that of the next larger group counts, or else of the largest
        with what messages beyond its group add. Over several nodes `ranks` are those of one; `further` messages pass
        between GPUs of other nodes, `crossings` between nodes. A rank alone has nobody to call, and starts nothing.
        """
        if ranks == 1 and not crossings:
            return 0.0
        outside = self.per_message * further + self.per_crossing * crossings
        tables = sorted((steps for steps in self.steps if steps.op == op), key=lambda steps: steps.ranks)
        if not tables or ranks == 1:
            return self.alpha + self.per_message * messages + outside
        steps = next((steps for steps in tables if steps.ranks >= ranks), tables[-1])
        return steps.at(sent) + self.per_message * max(messages - messages * steps.ranks // ranks, 0) + outside


def communication_of(
    communication: Mapping[str, CommunicationCost], kernel: str, device: str = ""
) -> CommunicationCost:  # fmt: skip
    """The constants of a kernel, of the name "kernel" or "kernel@version": those of `device` itself ("kernel@device")
    or of the version; where a profile does not know it, of the version that it does, or of the kernel that stands in.
    Raises BadInput with the kernels that it knows.
    """
    name = kernel.partition("@")[0]
    second = STANDS_IN.get(name, "")
    for candidate in (f"{kernel}@{device}", kernel, name, second, STANDS_IN.get(second, "")):
        if candidate in communication:
            return communication[candidate]
    raise unknown_name("communication kernel of the profile", kernel, communication)
