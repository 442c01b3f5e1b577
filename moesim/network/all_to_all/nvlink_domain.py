"""One NVLink domain (GB200 NVL72): a token's row is written once to each GPU that holds one of its experts.

No NIC takes part. Source: TensorRT-LLM's NVLink one-sided all-to-all for GB200 NVL72 (multi-node NVLink).
"""

from __future__ import annotations

import numpy as np

from moesim.errors import BadInput
from moesim.network.all_to_all.algorithm import Stages, turned_round
from moesim.network.copies import Copies
from moesim.network.flows import Flows, Group


class NVLinkDomain:
    """One copy per (token, device) over NVLink."""

    name = "nvlink_domain"
    kernel = "nccl"
    deduplicates = "device"
    phases = 1

    def dispatch(self, copies: Copies, row_bytes: int, group: Group) -> Stages:
        """One flow per pair. Raises BadInput where the group spans several domains."""
        domains = len(np.unique(group.node_of_lane))
        if domains > 1:
            raise BadInput(
                f"nvlink_domain over {domains} NVLink domains",
                where=f"topology {group.cluster.name}",
                way_out="dispatch: deepep_normal, or a smaller expert_parallel",
            )
        return (Flows.between(group, copies.devices * row_bytes),)

    def combine(self, copies: Copies, row_bytes: int, group: Group) -> Stages:
        """The same copies back, one partial sum per device."""
        return turned_round(self.dispatch(copies, row_bytes, group), group)
