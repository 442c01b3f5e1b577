"""What there is to say about who is served first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moesim.serving import Requests
from moesim.studies.serving.build import ServeBuilt


def order_notes(parts: Sequence[ServeBuilt], requests: Requests) -> Iterator[str]:
    """Said where an order by deadlines has none to go by, or everybody has the same time."""
    if not any(part.settings.scheduling_policy == "deadline" for part in parts):
        return
    common = parts[0].scenario.slo.ttft
    owns = requests.classes.limits if requests.classes else (None,)
    if len({common if own is None else own.get("ttft") for own in owns}) == 1:
        yield (
            "scheduler.scheduling_policy: deadline orders by limits of TTFT, which are the same for all requests here: "
            "first come, first served (requests.classes[].slo.ttft, slo.ttft)"
        )
