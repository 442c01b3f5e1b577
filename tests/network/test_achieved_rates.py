"""What kernels achieve on links inside and between nodes, against products written out here."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.costs import CommunicationCost
from moesim.hardware import load_cluster
from moesim.network import Fabric

CLUSTER = load_cluster("dgx-h100", nodes=2)
NVLINK, NIC = 450e9, 50e9


def rates(tier: str, left: float = 1.0) -> list[float]:
    """Of the links of a tier, without a kernel's own ports."""
    cost = CommunicationCost(0.0, {"nvlink": 0.7, "nic": 0.9})
    fabric = Fabric(CLUSTER, {"nccl": cost}, left=left)
    mine = [number for number, kind in enumerate(CLUSTER.link_kind) if kind.startswith(tier)]
    return sorted({float(rate) for rate in np.round(fabric.capacity[mine], -3)})


@pytest.mark.parametrize("left", [1.0, 0.25])
def test_each_tier_has_its_efficiency_and_only_links_between_nodes_lose_to_others(left: float) -> None:
    assert rates("nvlink", left=left) == [pytest.approx(0.7 * NVLINK)]
    assert rates("nic", left=left) == [pytest.approx(0.9 * left * NIC)]
