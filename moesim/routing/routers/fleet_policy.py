"""A whole request goes to one of several models.

Source: RouterBench (repository read), Universal Model Routing, CARROT and others (abstracts).

An "expert" stands for a model of the fleet. A request's embedding is the row of logits of its first token, and the
sigmoid of entry m is how well model m would answer it; estimators see it through noise or through reference requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.input import Floats, Ints, RouterInput, State
from moesim.routing.routers.noise import normals
from moesim.routing.routers.router import LOGITS, Facts, Router
from moesim.routing.routers.select import rows_of_table, sigmoid

Variant = Literal["score", "oracle", "static", "cascade", "knn", "cluster", "class", "linucb", "thompson"]
REFERENCES: Final = 256  # requests with known outcomes, never those of a step
FIRST_REFERENCE: Final = 1 << 41
FEATURES: Final = 8  # of a request's embedding, beside a constant, that the bandits see
NEIGHBOURS: Final = 16
CENTRES: Final = 8


class Requests(NamedTuple):
    """Of one step: logits float32[R, M], quality float32[R, M], domain int64[R], request int64[R]."""

    logits: Floats
    quality: Floats
    domain: Ints
    request: Ints


class FleetPolicy(Router):
    """argmax over models m of quality(r, m) - `trade` cost(m); the `variant` says how quality is estimated.

    Costs rise evenly from 0 (model 0) to 1. `score` sees quality plus N(0, `noise`), `oracle` itself; `static` always
    takes `model`; `cascade` tries models from the cheapest until one promises `threshold` and pays for all it tried
    (PROBE rows); `knn`, `cluster` and `class` average reference requests; `linucb` and `thompson` learn step by step.
    """

    variant: Variant = Field("score", description="how the quality of an answer is estimated")
    trade: float = Field(0.2, ge=0, description="weight of cost against quality")
    noise: float = Field(0.05, ge=0, description="standard deviation of the estimate")
    model: int = Field(0, ge=0, description="static: which model")
    threshold: float = Field(0.7, ge=0, le=1, description="cascade: quality that is enough")
    router_ms: float = Field(0.0, ge=0, description="of a decision; counted, not priced")
    explore: float = Field(0.5, ge=0, description="linucb and thompson: weight of uncertainty")

    @property
    def facts(self) -> Facts:
        """Known when the request arrives."""
        needs = LOGITS | ({"domain"} if self.variant == "class" else set())
        learns = self.variant in ("linucb", "thompson")
        stand_in = "answers' qualities are sigmoids of logits"
        return Facts(needs, prefetch="by request", stand_in=stand_in, learns=learns)

    def route(self, given: RouterInput) -> Assignment:
        """One row a token, and those of the cascade's tries."""
        requests, which = np.unique(given.request, return_inverse=True)
        seen = _seen(given, requests, self.variant == "class")
        if self.variant == "cascade":
            found = self._cascade(given, self.noisy(given, seen), which)
        else:
            value = POLICIES[self.variant](self, given, seen) - self.trade * costs(given.experts)
            model = value.argmax(axis=1)[which][:, None]
            found = rows_of_table(given, model, np.ones(model.shape, dtype=np.float32))
        return found.with_extra(router_seconds=self.router_ms * 1e-3 * len(requests))

    def learn(self, given: RouterInput, found: Assignment) -> State | None:
        """float64[M, d, d + 1]: for each model the features' Gram matrix and their sum weighted by quality."""
        if self.variant not in ("linucb", "thompson"):
            return given.state
        requests, first = np.unique(given.request, return_index=True)
        seen = _seen(given, requests, False)
        chosen, features = found.expert[np.searchsorted(found.token, first)], _features(seen.logits)
        state = _ridge(given).copy()
        for row, model in enumerate(chosen):
            x = features[row]
            state[model] += np.column_stack([np.outer(x, x), x * seen.quality[row, model]])
        return state

    def noisy(self, given: RouterInput, seen: Requests) -> Floats:
        """Quality as an estimator sees it."""
        noise = normals(given.key("estimate", 0), given.experts, seen.request, 0)
        return seen.quality + np.float32(self.noise) * noise

    def _cascade(self, given: RouterInput, estimate: Floats, which: Ints) -> Assignment:
        enough = estimate >= self.threshold
        last = np.where(enough.any(axis=1), enough.argmax(axis=1), given.experts - 1)[which][:, None]
        models = np.broadcast_to(np.arange(given.experts), (given.tokens, given.experts))
        found = rows_of_table(given, np.where(models <= last, models, -1), np.ones(models.shape, dtype=np.float32))
        return found.with_status(np.where(found.expert == last[found.token, 0], Status.KEPT, Status.PROBE))


def costs(models: int) -> Floats:
    """float32[M]: 0 for the cheapest to 1 for the dearest."""
    return np.linspace(0, 1, models, dtype=np.float32)


def _seen(given: RouterInput, request: Ints, classes: bool) -> Requests:
    zero = np.zeros_like(request)
    logits: Floats = given.column("logits", layer=0, request=request, position=zero)
    domain = given.column("domain", request=request, position=zero) if classes else zero
    return Requests(logits, sigmoid(logits), domain, request)


def _references(given: RouterInput, classes: bool = False) -> Requests:
    return _seen(given, FIRST_REFERENCE + np.arange(REFERENCES), classes)


def _static(policy: FleetPolicy, given: RouterInput, seen: Requests) -> Floats:
    value = np.full(seen.quality.shape, -1e9, dtype=np.float32)
    value[:, min(policy.model, given.experts - 1)] = 0
    return value


def _knn(policy: FleetPolicy, given: RouterInput, seen: Requests) -> Floats:
    known = _references(given)
    near = np.argpartition(_distances(seen.logits, known.logits), NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    found: Floats = known.quality[near].mean(axis=1)
    return found


def _cluster(policy: FleetPolicy, given: RouterInput, seen: Requests) -> Floats:
    """Eight rounds of k-means over the references, then the nearest centre's mean quality."""
    known = _references(given)
    centres = known.logits[:CENTRES].copy()
    for _ in range(8):
        mine = _distances(known.logits, centres).argmin(axis=1)
        centres = _means(known.logits, mine, CENTRES)
    mine = _distances(known.logits, centres).argmin(axis=1)
    found: Floats = _means(known.quality, mine, CENTRES)[_distances(seen.logits, centres).argmin(axis=1)]
    return found


def _class(policy: FleetPolicy, given: RouterInput, seen: Requests) -> Floats:
    known = _references(given, classes=True)
    found: Floats = _means(known.quality, known.domain, int(seen.domain.max(initial=0)) + 1)[seen.domain]
    return found


def _means(values: Floats, label: Ints, labels: int) -> Floats:
    """[n, M] and label [n] -> float32[labels, M] means; the mean of all where a label has no rows."""
    rows = [values[label == one] if (label == one).any() else values for one in range(labels)]
    return np.stack([row.mean(axis=0) for row in rows])


def _distances(a: Floats, b: Floats) -> Floats:
    """[n, M], [m, M] -> squared distances up to a constant of each row."""
    found: Floats = (b * b).sum(axis=1) - 2 * (a @ b.T)
    return found


def _features(logits: Floats) -> npt.NDArray[np.float64]:
    """[R, M] -> float64[R, d]: a constant and the first entries of the embedding."""
    return np.concatenate([np.ones((len(logits), 1)), logits[:, :FEATURES].astype(np.float64)], axis=1)


def _ridge(given: RouterInput) -> State:
    if given.state is not None:
        return given.state
    width = 1 + min(FEATURES, given.experts)
    return np.tile(np.column_stack([np.eye(width), np.zeros(width)]), (given.experts, 1, 1))


def _estimates(given: RouterInput, seen: Requests) -> tuple[State, State, State]:
    """(inverse Gram [M, d, d], theta [M, d], features [R, d])."""
    state = _ridge(given)
    inverse: State = np.linalg.inv(state[:, :, :-1]).astype(np.float64)
    theta: State = np.einsum("mij,mj->mi", inverse, state[:, :, -1])
    return inverse, theta, _features(seen.logits)


def _linucb(policy: FleetPolicy, given: RouterInput, seen: Requests) -> Floats:
    """Li et al., arXiv 1003.0146, algorithm 1."""
    inverse, theta, x = _estimates(given, seen)
    width = np.sqrt(np.einsum("ri,mij,rj->rm", x, inverse, x))
    found: Floats = (x @ theta.T + policy.explore * width).astype(np.float32)
    return found


def _thompson(policy: FleetPolicy, given: RouterInput, seen: Requests) -> Floats:
    """One draw of every model's theta a step."""
    inverse, theta, x = _estimates(given, seen)
    noise = given.generator("thompson", given.step).normal(size=theta.shape)
    drawn = theta + policy.explore * np.einsum("mij,mj->mi", np.linalg.cholesky(inverse), noise)
    found: Floats = (x @ drawn.T).astype(np.float32)
    return found


Policy = Callable[[FleetPolicy, RouterInput, Requests], Floats]
POLICIES: Final[Mapping[str, Policy]] = {
    "score": lambda policy, given, seen: policy.noisy(given, seen),
    "oracle": lambda policy, given, seen: seen.quality,
    "static": _static,
    "knn": _knn,
    "cluster": _cluster,
    "class": _class,
    "linucb": _linucb,
    "thompson": _thompson,
}
