"""One NVLink domain (GB200 NVL72): a token's row is written once to each GPU that holds one of its experts.

One phase, one message per peer, no NIC; results come back as one partial sum per device. Source: TensorRT-LLM's NVLink
one-sided all-to-all for GB200 NVL72 (multi-node NVLink), and the two-sided one before it, which first tells its peers
what will come.
"""

from __future__ import annotations

import numpy as np

from moesim.errors import BadInput
from moesim.network.all_to_all.algorithm import AllToAll
from moesim.network.copies import Copies, Matrix
from moesim.network.flows import Group


class NVLinkDomain(AllToAll):
    """One copy per (token, device) over NVLink."""

    name = "nvlink_domain"
    kernels = ("nvlink_domain",)
    versions = ("two-sided", "one-sided")
    reads = ("devices",)
    deduplicates = "device"

    def hops(self, copies: Copies, group: Group) -> tuple[Matrix, ...]:
        """Straight. Raises BadInput where the group spans several domains."""
        domains = len(np.unique(group.node_of_lane))
        if domains > 1:
            raise BadInput(
                f"nvlink_domain over {domains} NVLink domains",
                where=f"topology {group.cluster.name}",
                way_out="dispatch: deepep_normal, or a smaller expert_parallel",
            )
        return (copies.devices,)
