"""A profile carried to a device that nobody measured: the same kernels at that device's rates.

What a kernel takes beside the tensor units (launch, issue, shared memory) is kept as it was measured and goes with
multiprocessors x clock, of which the fp32 rate is the measure; its bytes go with the memory's rate; and tensor units
that were cut, as H20's are, hold it to what kernels reach of a peak at best. Between devices of one generation that
were both measured this is right within a few percent (tests/costs/test_carried.py), over generations not: other kernels
run there.
"""

from __future__ import annotations

from typing import Final

from moesim.costs.profile_file import OperatorSection, ProfileSection
from moesim.costs.shapes import ARITHMETIC
from moesim.errors import BadInput
from moesim.hardware import Device

BEST: Final = 0.9  # of peak, reached by the best kernels where neither memory nor power is in the way: assumed
# root mean squares of ln(carried / own fit), test_carried.py:
NEAR: Final = 0.06  # of one generation, as the topology's `like` says: H100 <-> H200, B200 <-> GB200
FAR: Final = 0.42  # over generations: H200 <-> B200, A100 <-> H100, B200 -> RTX PRO 6000


def carry(section: ProfileSection, measured: Device, device: Device) -> ProfileSection:
    """The profile of `measured` at the rates of `device`; kernels whose arithmetic it does not have are gone from every
    set. Its name and device stay those that were measured. Raises BadInput for a device that gives no rate to go by.
    """
    pace = _pace(measured, device)
    memory = device.memory_bandwidth / measured.memory_bandwidth
    operators = {
        name: _at(one, pace, memory, device.peak_flops[arithmetic])
        for name, one in section.operators.items()
        if (arithmetic := ARITHMETIC.get(one.dtype, one.dtype)) in device.peak_flops
    }
    kernels = {
        engine: {role: name for role, name in roles.items() if name in operators}
        for engine, roles in section.kernels.items()
    }
    moved = {
        name: one.model_copy(update={"bytes_per_second": memory * one.bytes_per_second})
        for name in ("elementwise", "activation")
        if (one := getattr(section, name)) is not None
    }
    rates = {"operators": operators, "kernels": kernels, **moved}
    rates |= {"cache": device.cache_bytes} if device.cache_bytes else {}
    return section.model_copy(update={**rates, "memory_bandwidth": device.memory_bandwidth})


def _pace(measured: Device, device: Device) -> float:
    """Multiprocessors x clock of `device` over those of `measured`; where no fp32 rate is given, as bf16 has it."""
    for dtype in ("fp32", "bf16"):
        if dtype in device.peak_flops:
            return device.peak_flops[dtype] / measured.peak_flops[dtype]
    raise BadInput(
        f"device {device.name} gives no fp32 rate, by which costs of {measured.name} are carried to it",
        way_out="device.flops.fp32 in the topology; or costs: roofline",
    )


def _at(operator: OperatorSection, pace: float, memory: float, peak: float) -> OperatorSection:
    """Tensor units are cut where they are fewer than multiprocessors and clock would have them."""
    cut = peak < 0.99 * pace * operator.peak
    bound = BEST * peak if cut else peak
    reached = min(pace * operator.flops_per_second, bound) if cut else pace * operator.flops_per_second
    rates = {"flops_per_second": reached, "bytes_per_second": memory * operator.bytes_per_second, "peak": bound}
    return operator.model_copy(update=rates)
