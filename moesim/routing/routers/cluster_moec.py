"""Experts in clusters that behave alike; whole clusters are dropped in training.

Source: MoEC: Mixture of Expert Clusters (abstract).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.errors import BadInput
from moesim.routing.routers.assignment import Assignment
from moesim.routing.routers.input import RouterInput
from moesim.routing.routers.router import Count, Facts, Fraction, Inner, Router, inherit
from moesim.routing.routers.select import masked
from moesim.routing.routers.topk_softmax import TopkSoftmax


class ClusterMoec(Router):
    """l = sqrt(1 - rho) l + sqrt(rho) c[cluster of e]: logits correlate by rho inside a cluster; in training clusters
    are removed with chance q for a whole step, one always stays; then the inner router.
    """

    inner: Inner = Field(TopkSoftmax(), description="the router that decides in the end")
    clusters: Count = Field(4, description="clusters of neighbouring experts")
    rho: Fraction = Field(0.5, description="correlation of logits inside a cluster")
    q: Fraction = Field(0.0, description="chance that a cluster is dropped in a step; training only")

    @property
    def facts(self) -> Facts:
        """The correlation is what the clustering loss leaves."""
        drops = "cluster dropout" if self.q else ""
        return inherit(self.inner, stand_in="rho replaces the variance-based clustering loss", training=drops)

    def route(self, given: RouterInput) -> Assignment:
        """The inner router's rows, inside the clusters that stay. Raises BadInput where experts do not divide."""
        if given.experts % self.clusters:
            raise BadInput(f"{given.experts} experts do not divide into {self.clusters} clusters", where="cluster_moec")
        size = given.experts // self.clusters
        common = np.repeat(given.normal("cluster", self.clusters), size, axis=1)
        logits = np.float32(np.sqrt(1 - self.rho)) * given.logits + np.float32(np.sqrt(self.rho)) * common
        draw = given.generator("clusters", given.layer, given.step).random(self.clusters)
        stays = (draw >= (self.q if given.training else 0.0)) | (draw == draw.max())
        return self.inner.route(given.with_logits(masked(logits, np.repeat(stays, size)[None])))
