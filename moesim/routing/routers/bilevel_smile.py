"""A node first, then an expert in it.

Source: SMILE: Scaling Mixture-of-Experts with Efficient Bi-level Routing (abstract; product weight recalled).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.capacity import Factor, limited, places
from moesim.routing.routers.chores import Chores, buffered, gate
from moesim.routing.routers.input import Floats, RouterInput
from moesim.routing.routers.router import Facts, Router
from moesim.routing.routers.select import masked, pick, rows_of_table, softmax, top_k


class BilevelSmile(Router):
    """n = argmax softmax(a), a of width N; e = argmax softmax(l inside node n); weight p_n p_e.

    The node gate's logits a are the log of the summed exp(l) of a node plus N(0, spread). Places: cf_node T / N of a
    rank at a node, then cf T / E at an expert.
    """

    cf_node: Factor | None = Field(None, description="places at a node over an even share; null: no limit")
    cf: Factor | None = Field(None, description="places at an expert over an even share; null: no limit")
    spread: float = Field(0.5, ge=0, le=100, description="standard deviation of the node gate's own part")

    @property
    def facts(self) -> Facts:
        """Batch-dependent where places are limited."""
        limits = self.cf is not None or self.cf_node is not None
        return Facts(batch_dependent=limits, stand_in="the node gate is made from the experts' logits and noise")

    def route(self, given: RouterInput) -> Assignment:
        """One row a token."""
        at_node = softmax(self._node_logits(given))
        node = top_k(given, at_node, 1)
        inside = softmax(masked(given.logits, given.expert_node == node))
        ids = top_k(given, inside, 1)
        found = rows_of_table(given, ids, pick(at_node, node) * pick(inside, ids))
        if self.cf_node is not None:
            by_node = rows_of_table(given, node, found.weight[:, None], experts=at_node.shape[1])
            status = limited(by_node, places(given, self.cf_node, experts=at_node.shape[1])).status
            found = found.with_status(np.where(status == Status.DROPPED, Status.DROPPED, found.status))
        return found if self.cf is None else limited(found, places(given, self.cf))

    def chores(self, given: RouterInput, found: Assignment) -> Chores:
        """A gate over the nodes and one over the experts of the node: N + E / N outputs in place of E."""
        nodes = int(given.rank_node.max()) + 1
        both = gate(given, nodes) + gate(given, -(-given.experts // nodes))
        return both if self.cf is None and self.cf_node is None else both + buffered(given, found)

    def _node_logits(self, given: RouterInput) -> Floats:
        node, nodes = given.expert_node, int(given.rank_node.max()) + 1
        sums = [np.logaddexp.reduce(given.logits[:, node == n], axis=1) for n in range(nodes)]
        logits: Floats = np.stack(sums, axis=1) + np.float32(self.spread) * given.normal("node", nodes)
        return logits
