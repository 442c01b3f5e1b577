"""Pieces of selectors: scores, top-k, masks, and rows out of tables and masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moesim.routing.routers.assignment import Assignment, Status
from moesim.routing.routers.input import Floats, Ints, RouterInput

Mask = npt.NDArray[np.bool_]
Tickets = Callable[[Ints], npt.NDArray[np.uint64]]


def softmax(logits: npt.NDArray[Any], axis: int = -1) -> Floats:
    """Same shape; entries of minus infinity get zero."""
    raised = np.exp(logits - logits.max(axis=axis, keepdims=True))
    found: Floats = raised / raised.sum(axis=axis, keepdims=True)
    return found


def sigmoid(logits: npt.NDArray[Any]) -> Floats:
    """Same shape; does not overflow."""
    return (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)


def entropy(p: Floats) -> Floats:
    """[T, E] probabilities -> [T] in nats."""
    found: Floats = -(p * np.log(np.maximum(p, 1e-30))).sum(axis=1)
    return found


def top_k(given: RouterInput, scores: npt.NDArray[Any], k: int) -> Ints:
    """[T, E] -> int64[T, min(k, E)] ids, highest score first; -1 where a score is minus infinity. Ties by tickets."""
    return highest(scores, k, lambda rows: given.tickets(scores.shape[1], rows))


def highest(scores: npt.NDArray[Any], k: int, tickets: Tickets) -> Ints:
    """[n, E] -> int64[n, min(k, E)] columns, highest first; `tickets`(rows int64[m]) -> [m, E]: equals by lowest."""
    k = min(k, scores.shape[1])
    if k == 1:
        best = scores.argmax(axis=1)[:, None]
    elif k < scores.shape[1]:
        best = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]
    else:
        best = np.broadcast_to(np.arange(k), scores.shape)
    found = np.take_along_axis(scores, best, axis=1)
    order = np.argsort(-found, axis=1)
    best, found = np.take_along_axis(best, order, axis=1), np.take_along_axis(found, order, axis=1)
    tied = np.flatnonzero(_tied(scores, found))
    if len(tied):
        best[tied] = np.lexsort((tickets(tied), -scores[tied]), axis=1)[:, :k]
    return np.where(np.isneginf(found), -1, best)


def _tied(scores: npt.NDArray[Any], found: npt.NDArray[Any]) -> Mask:
    """bool[n]: two of the highest [n, k] are equal, or the last of them equals one that is left out."""
    last = found[:, -1:]
    left_out = ((scores >= last).sum(axis=1) > found.shape[1]) & ~np.isneginf(last[:, 0])
    inside = ((found[:, 1:] == found[:, :-1]) & ~np.isneginf(found[:, 1:])).any(axis=1)
    tied: Mask = inside | left_out
    return tied


def pick(values: npt.NDArray[Any], ids: Ints) -> Floats:
    """[T, E] values at int64[T, k] ids -> float32[T, k]; 0 where an id is -1."""
    found = np.take_along_axis(values, np.maximum(ids, 0), axis=1)
    return np.where(ids < 0, 0, found).astype(np.float32)


def chosen_weights(
    scores: npt.NDArray[Any], ids: Ints, score: Literal["softmax", "sigmoid"] = "softmax", *, norm: bool = True
) -> Floats:
    """[T, E] logits at int64[T, k] ids -> their softmax or sigmoid scores, as they are or adding up to one."""
    if score == "sigmoid":
        weight = np.where(ids < 0, 0, sigmoid(pick(scores, ids)))
    else:
        highest = scores.max(axis=1, keepdims=True)
        weight = np.where(ids < 0, 0, np.exp(pick(scores, ids) - highest))
        if not norm:
            weight /= np.exp(scores - highest).sum(axis=1, keepdims=True)
    return renormalised(weight) if norm else weight.astype(np.float32)


def cosines(logits: Floats) -> Floats:
    """[T, E] inner products with orthonormal expert vectors -> [T, E] cosines."""
    found: Floats = logits / np.maximum(np.sqrt(np.einsum("te,te->t", logits, logits)), 1e-30)[:, None]
    return found


def renormalised(weight: Floats) -> Floats:
    """[T, k] -> rows that add up to one; rows of zeros stay."""
    found: Floats = (weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-30)).astype(np.float32)
    return found


def weights_within(p: Floats, mask: Mask) -> Floats:
    """[T, E] probabilities -> the same, adding up to one over the mask and zero outside."""
    return renormalised(np.where(mask, p, 0))


def masked(logits: Floats, keep: Mask) -> Floats:
    """Minus infinity where not kept."""
    return np.where(keep, logits, np.float32(-np.inf))


def prefix(given: RouterInput, p: Floats, limit: float) -> Mask:
    """[T, E] -> bool[T, E]: the highest p up to and including the first at which their sum exceeds the limit."""
    ordered = np.sort(p, axis=1)[:, ::-1]
    over = np.cumsum(ordered, axis=1) > limit
    return _highest(given, p, ordered, np.where(over.any(axis=1), over.argmax(axis=1) + 1, p.shape[1]))


def at_least(given: RouterInput, scores: Floats, limit: float, fewest: int, most: int) -> Mask:
    """[T, E] -> bool[T, E]: scores of at least the limit, but the best `fewest` in any case and no more than `most`."""
    ordered = np.sort(scores, axis=1)[:, ::-1]
    most = min(most, scores.shape[1])
    return _highest(given, scores, ordered, np.clip((scores >= limit).sum(axis=1), min(fewest, most), most))


def _highest(given: RouterInput, scores: Floats, ordered: Floats, number: Ints) -> Mask:
    """bool[T, E]: the `number` [T] highest of a row, equal ones by tickets; `ordered` is descending."""
    bound = np.take_along_axis(ordered, number[:, None] - 1, axis=1)
    mask: Mask = scores >= bound
    tied = np.flatnonzero(mask.sum(axis=1) > number)
    if len(tied):
        order = np.lexsort((given.tickets(scores.shape[1], tied), -scores[tied]), axis=1)
        place = np.argsort(order, axis=1)
        mask[tied] = place < number[tied][:, None]
    return mask


def best_groups(given: RouterInput, scores: npt.NDArray[Any], groups: int, kept: int, best: int) -> Mask:
    """[T, E] -> bool[T, E]: the `kept` groups whose `best` highest scores add up to most. E divides into `groups`."""
    grouped = scores.reshape(len(scores), groups, -1)
    best = min(best, grouped.shape[2])
    total = np.partition(grouped, grouped.shape[2] - best, axis=2)[..., -best:].sum(axis=2)
    inside = np.zeros(total.shape, dtype=bool)
    np.put_along_axis(inside, top_k(given, total, kept), True, axis=1)
    return np.repeat(inside, grouped.shape[2], axis=1)


def group_sums(p: Floats, group: Ints, groups: int) -> Floats:
    """[T, E] and group int64[E] -> float32[T, groups] sums."""
    member = np.zeros((len(group), groups), dtype=np.float32)
    member[np.arange(len(group)), group] = 1
    found: Floats = p @ member
    return found


def rows_of_table(given: RouterInput, ids: Ints, weight: Floats, *, experts: int | None = None) -> Assignment:
    """int64[T, k] ids (-1: none) and their weights -> rows in token order; ids from `experts` on are zero-compute."""
    experts = given.experts if experts is None else experts
    token, choice = np.nonzero(ids >= 0)
    expert = ids[token, choice].astype(np.int64)
    status = np.where(expert < experts, Status.KEPT, Status.NULL).astype(np.uint8)
    return _rows(given, experts, token, expert, weight[token, choice], choice, status)


def rows_of_mask(given: RouterInput, mask: Mask, weight: Floats) -> Assignment:
    """bool[T, E] and weights [T, E] -> rows in token order, each token's heaviest choice first."""
    token, expert = np.nonzero(mask)
    found = weight[token, expert]
    order = np.lexsort((-found, token))
    token, expert, found = token[order], expert[order], found[order]
    first = np.searchsorted(token, np.arange(given.tokens))
    choice = np.arange(len(token)) - first[token]
    return _rows(given, given.experts, token, expert, found, choice, np.zeros(len(token), dtype=np.uint8))


def _rows(
    given: RouterInput, experts: int, token: Ints, expert: Ints, weight: Floats, choice: Ints, status: npt.ArrayLike
) -> Assignment:  # fmt: skip
    return Assignment(
        experts=experts,
        physical=given.experts,
        rank=given.rank,
        owner=np.arange(given.tokens),
        token=token,
        expert=expert,
        weight=np.asarray(weight, dtype=np.float32),
        choice=np.minimum(choice, 255).astype(np.uint8),
        round=np.zeros(len(token), dtype=np.uint8),
        status=np.asarray(status, dtype=np.uint8),
    )


def stacked(rounds: list[Assignment]) -> Assignment:
    """Assignments of the same tokens, one after the other, as rounds 0, 1, ..."""
    first = rounds[0]
    numbers = [np.full(len(one.token), n, dtype=np.uint8) for n, one in enumerate(rounds)]
    return _joined(first, rounds, numbers)


def joined(first: Assignment, more: Assignment) -> Assignment:
    """The rows of both, of the same tokens, in token order."""
    both = _joined(first, [first, more], [first.round, more.round])
    return take(both, np.argsort(both.token, kind="stable"))


def _joined(first: Assignment, parts: list[Assignment], rounds: list[npt.NDArray[np.uint8]]) -> Assignment:
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("token", "expert", "weight", "choice", "status")
    }
    return replace(first, round=np.concatenate(rounds), **columns)


def take(assignment: Assignment, rows: npt.NDArray[Any]) -> Assignment:
    """Some of the rows: a mask or indices."""
    names = ("token", "expert", "weight", "choice", "round", "status")
    return assignment.with_rows(**{name: getattr(assignment, name)[rows] for name in names})
