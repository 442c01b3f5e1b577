"""The knobs of `moesim.routing.synth.knobs`, estimated from a trace: recorded or synthetic.

Products of counts of two disjoint sets of tokens estimate sums of share products without bias, so the fraction w of
experts that differ between two domains follows from cross / own = (1 - w)^2, and that between two times from cross /
own = 1 - c. Tolerances on synthetic traces of 40,000 tokens are stated in the tests. Knobs that act on the same tokens
blur each other: token ids that decide experts, for one, hide part of the domains.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from moesim import streams
from moesim.routing.shape import NO_EXPERT
from moesim.routing.stats.load import counts_by, step_labels
from moesim.routing.stats.locality import overlap, segments
from moesim.routing.trace import RoutingTrace

Floats = npt.NDArray[np.float64]
PAIRS = 20_000


def fit_knobs(trace: RoutingTrace, epochs: int = 1) -> dict[str, float]:
    """{knob: estimate}; nan where the trace cannot tell (one layer, one domain, no token ids)."""
    own = counts_by(trace, trace.domain.astype(np.int64), len(trace.header.domains))
    own = own[own.sum(axis=(1, 2)) > 0]
    local = locality(trace)
    swing, period = mix(trace)
    return {
        "zipf": float(np.mean([zipf(row) for domain in own for row in domain])),
        "lognormal": float(np.mean(lognormal(own))),
        "dirichlet": float(np.median(dirichlet(own))),
        "affinity": affinity(trace),
        "locality": local,
        "token_dependence": token_dependence(trace, local),
        "domain_strength": domain_strength(own),
        "mix_amplitude": swing,
        "mix_period": period,
        "drift": drift(trace),
        "churn": churn(trace, epochs),
    }


def zipf(counts: npt.NDArray[np.integer]) -> float:
    """[E] counts -> exponent of maximum likelihood, ranks as observed."""
    share = np.sort(counts / max(counts.sum(), 1))[::-1]
    logs = np.log(np.arange(1, len(share) + 1))

    def surplus(exponent: float) -> float:
        weight = np.exp(-exponent * logs)
        return float((weight * logs).sum() / weight.sum() - (share * logs).sum())

    return float(brentq(surplus, 0.0, 10.0)) if surplus(0.0) > 0 > surplus(10.0) else 0.0


def lognormal(counts: npt.NDArray[np.integer]) -> Floats:
    """[..., E] counts -> [...] standard deviation of log shares, less the 1/count variance of counting."""
    values = np.maximum(counts, 0.5)
    variance = np.log(values).var(axis=-1) - (1 / values).mean(axis=-1)
    result: Floats = np.sqrt(np.maximum(variance, 0.0))
    return result


def dirichlet(counts: npt.NDArray[np.integer]) -> Floats:
    """[..., E] counts -> [...] concentration by the second moment: sum p^2 = (a + 1) / (E a + 1)."""
    square = _own(counts)
    result: Floats = (1 - square) / np.maximum(counts.shape[-1] * square - 1, 1e-9)
    return result


def affinity(trace: RoutingTrace) -> float:
    """Excess of each expert's likeliest successor, choice by choice, over what its popularity explains; by domain."""
    if trace.header.moe_layers < 2:
        return float("nan")
    found = []
    for domain in np.unique(trace.domain):
        expert = trace.expert[trace.domain == domain]
        found += [
            _successor_excess(expert[:, n], expert[:, n + 1], trace.header.num_experts)
            for n in range(expert.shape[1] - 1)
        ]
    return float(np.mean(found))


def _successor_excess(here: npt.NDArray[np.uint16], there: npt.NDArray[np.uint16], experts: int) -> float:
    both = (here != NO_EXPERT) & (there != NO_EXPERT)
    cell = here[both].astype(np.int64) * experts + there[both]
    table = np.bincount(cell, minlength=experts * experts).reshape(experts, experts)
    rows, chance = table.sum(axis=1), table.sum(axis=0) / max(table.sum(), 1)
    excess = table - rows[:, None] * chance
    best = excess.argmax(axis=1)
    gained = excess[np.arange(experts), best]
    return float(gained.sum() / max((rows * (1 - chance[best])).sum(), 1e-9))


def locality(trace: RoutingTrace) -> float:
    """Overlap with the token before in the request, beyond that with tokens of other requests of the domain."""
    pairs = segments(trace, 2, 1)
    if not len(pairs):
        return float("nan")
    pairs = pairs[streams.stream(0, "fit", "locality").permutation(len(pairs))[:PAIRS]]
    near = float(overlap(trace.expert[pairs[:, 1]], trace.expert[pairs[:, 0]]).mean())
    return _beyond(near, _chance(trace, pairs[:, 1]))


def token_dependence(trace: RoutingTrace, local: float) -> float:
    """From the overlap of tokens with one id: two tokens agree if both are decided by their id and neither repeats."""
    if trace.token_id is None:
        return float("nan")
    order = np.lexsort((streams.stream(0, "fit", "ids").random(trace.tokens), trace.token_id))
    same = trace.token_id[order][1:] == trace.token_id[order][:-1]
    apart = trace.request[order][1:] != trace.request[order][:-1]
    first, second = order[:-1][same & apart][:PAIRS], order[1:][same & apart][:PAIRS]
    if not len(first):
        return float("nan")
    agree = float(overlap(trace.expert[first], trace.expert[second]).mean())
    return float(np.sqrt(max(_beyond(agree, _chance(trace, first)), 0.0)) / max(1 - local, 1e-9))


def _chance(trace: RoutingTrace, rows: npt.NDArray[np.int64]) -> float:
    """Overlap of these tokens with random ones of other requests of the same domain, nearby in the trace."""
    rng = streams.stream(0, "fit", "chance")
    span = max(trace.tokens // 20, 1)
    other = np.clip(rows + rng.integers(-span, span + 1, len(rows)), 0, trace.tokens - 1)
    fit = (trace.domain[other] == trace.domain[rows]) & (trace.request[other] != trace.request[rows])
    if not fit.any():
        return float("nan")
    return float(overlap(trace.expert[rows[fit]], trace.expert[other[fit]]).mean())


def _beyond(found: float, chance: float) -> float:
    return (found - chance) / (1 - chance) if chance < 1 else float("nan")


def domain_strength(own: npt.NDArray[np.integer]) -> float:
    """own [D, L, E] counts by domain -> fraction of experts whose share differs."""
    if len(own) < 2:
        return float("nan")
    kept = _kept_fraction(own)
    pairs = [kept[a, b] for a in range(len(own)) for b in range(a)]
    return float(1 - np.sqrt(np.clip(np.mean(pairs), 0, 1)))


def churn(trace: RoutingTrace, epochs: int) -> float:
    """Fraction of experts whose share changes between one of `epochs` equal parts of the trace and the next."""
    if epochs < 2:
        return float("nan")
    kept = _kept_fraction(_parts(trace, epochs))
    return float(1 - np.clip(np.mean(np.diagonal(kept, 1)), 0, 1))


def drift(trace: RoutingTrace) -> float:
    """Fraction of experts with a new share at the end: the first and last tenth are 0.9 of the way apart.

    With d = fraction, own = (1 - d) + d (0.95^2 + 0.05^2) and cross = (1 - d) + 2 d 0.95 x 0.05, in units of sum p^2.
    """
    ends = _parts(trace, 10)[[0, -1]]
    kept = float(np.clip(_kept_fraction(ends)[0, 1], 0, 1))
    own, cross = 1 - (0.95**2 + 0.05**2), 1 - 2 * 0.95 * 0.05
    return min((1 - kept) / (cross - kept * own), 1.0)


def _parts(trace: RoutingTrace, number: int) -> npt.NDArray[np.int64]:
    edges = np.linspace(0, trace.tokens, number + 1).astype(int)
    return np.stack([trace.counts(int(a), int(b)) for a, b in pairwise(edges)])


def _own(counts: npt.NDArray[np.integer]) -> Floats:
    """[..., E] counts -> [...] unbiased sum of squared shares."""
    total = counts.sum(axis=-1).astype(np.float64)
    values = counts.astype(np.float64)
    result: Floats = (values * (values - 1)).sum(axis=-1) / np.maximum(total * (total - 1), 1)
    return result


def _kept_fraction(counts: npt.NDArray[np.integer]) -> Floats:
    """[D, L, E] -> [D, D]: cross over own sums of share products, less the 1/E of independence; all layers."""
    share = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    uniform = 1 / counts.shape[-1]
    cross = np.einsum("ale,ble->abl", share, share).mean(axis=2) - uniform
    own = _own(counts).mean(axis=1) - uniform
    scale = np.sqrt(np.maximum(own[:, None] * own[None, :], 1e-18))
    result: Floats = cross / scale
    return result


def mix(trace: RoutingTrace) -> tuple[float, float]:
    """(amplitude, period in steps) of the strongest swing of the domains' mix; (nan, nan) for one domain."""
    domains = len(trace.header.domains)
    label, steps = step_labels(trace)
    if domains < 2 or steps < 4:
        return float("nan"), float("nan")
    table = np.bincount(label * domains + trace.domain, minlength=steps * domains).reshape(steps, domains)
    share = table / table.sum(axis=1, keepdims=True)
    centred = share - share.mean(axis=0)
    coarse = int(np.abs(np.fft.rfft(centred, axis=0)).mean(axis=1)[1:].argmax()) + 1
    turns = np.linspace(max(coarse - 1, 0.5), coarse + 1, 81)  # whole turns in the trace: the period need not divide it
    wave = np.exp(-2j * np.pi * turns[:, None] * np.arange(steps) / steps)
    power = np.abs(wave @ centred).mean(axis=1)
    best = int(power.argmax())
    return float(2 * power[best] * domains / steps), float(steps / turns[best])
