"""A node first, then an expert in it.

Source: SMILE: Scaling Mixture-of-Experts with Efficient Bi-level Routing (abstract; product weight recalled).
"""

from __future__ import annotations

import numpy as np

from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.capacity import Factor, limited, places
from moesim.routing.routers.input import Floats, RouterInput
from moesim.routing.routers.router import Facts, Router
from moesim.routing.routers.select import masked, pick, rows_of_table, softmax


class BilevelSmile(Router):
    """n = argmax softmax(a), a of width N; e = argmax softmax(l inside node n); weight p_n p_e.

    The node gate's logits a are the log of the summed exp(l) of a node plus N(0, spread). Places: cf_node T / N of a
    rank at a node, then cf T / E at an expert.
    """

    cf_node: Factor | None = None
    cf: Factor | None = None
    spread: float = 0.5

    @property
    def facts(self) -> Facts:
        """Batch-dependent where places are limited."""
        limits = self.cf is not None or self.cf_node is not None
        return Facts(batch_dependent=limits, stand_in="the node gate is made from the experts' logits and noise")

    def route(self, given: RouterInput) -> Assignment:
        """One row a token."""
        at_node = softmax(self._node_logits(given))
        node = at_node.argmax(axis=1)[:, None]
        inside = softmax(masked(given.logits, given.expert_node == node))
        ids = inside.argmax(axis=1)[:, None]
        found = rows_of_table(given, ids, pick(at_node, node) * pick(inside, ids))
        if self.cf_node is not None:
            by_node = rows_of_table(given, node, found.weight[:, None], experts=at_node.shape[1])
            status = limited(by_node, places(given, self.cf_node, experts=at_node.shape[1])).status
            found = found.with_status(np.where(status == Status.DROPPED, Status.DROPPED, found.status))
        return found if self.cf is None else limited(found, places(given, self.cf))

    def _node_logits(self, given: RouterInput) -> Floats:
        node, nodes = given.expert_node, int(given.rank_node.max()) + 1
        sums = [np.logaddexp.reduce(given.logits[:, node == n], axis=1) for n in range(nodes)]
        logits: Floats = np.stack(sums, axis=1) + np.float32(self.spread) * given.normal("node", nodes)
        return logits
