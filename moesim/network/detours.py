"""Ways round dead links, of a cluster's own links: one that was named, or what a search finds among those left."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import Protocol

from moesim.hardware import INSIDE, Cluster

Links = list[int]


class Around(Protocol):
    """How what crosses a dead link goes on."""

    def around(self, path: Sequence[int], link: int, dead: frozenset[int], ticket: int) -> Links | None:
        """path: links of a flow, `link` among them -> its new ones, None where there is no way. ticket: of the flow."""


class Named:
    """The links of `over` stand in for the dead one; a loop that this makes is left out."""

    def __init__(self, cluster: Cluster, over: Sequence[int]) -> None:
        self._cluster, self.over = cluster, tuple(over)

    def around(self, path: Sequence[int], link: int, dead: frozenset[int], ticket: int) -> Links:
        """See Around."""
        return self._without_loops([new for old in path for new in (self.over if old == link else (old,))])

    def _without_loops(self, path: Links) -> Links:
        ends = self._cluster.link_ends
        kept: Links = []
        for link in path:
            came = [ends[before][0] for before in kept]
            if ends[link][1] in came:
                del kept[came.index(ends[link][1]) :]
            else:
                kept.append(link)
        return kept


class Search:
    """A shortest way over the links that are left; the ticket picks among equals, as ECMP's hash does.

    From a leaf's up- or downlink the flow goes on over other switches, to the same leaf. Where none leads there, and
    from any other link, it looks for a way from its first GPU to its last, over the ports of others if need be.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._found: dict[tuple[str, frozenset[int], bool], dict[str, list[int]]] = {}

    def around(self, path: Sequence[int], link: int, dead: frozenset[int], ticket: int) -> Links | None:
        """See Around."""
        climbs = [place for place, one in enumerate(path) if self.cluster.link_kind[one].startswith("leaf")]
        if self.cluster.link_kind[link].startswith("leaf"):
            first, last = climbs[0], climbs[-1]
            way = self._way(path[first], path[last], dead, ticket, outside=True)
            if way is not None:
                return [*path[:first], *way, *path[last + 1 :]]
        return self._way(path[0], path[-1], dead, ticket, outside=False)

    def _way(self, first: int, last: int, dead: frozenset[int], ticket: int, *, outside: bool) -> Links | None:
        """From where link `first` starts to where `last` ends."""
        start, at = self.cluster.link_ends[first][0], self.cluster.link_ends[last][1]
        before, way = self._search(start, dead, outside), []
        while at != start:
            choices = before.get(at, [])
            if not choices:
                return None
            ticket, pick = divmod(ticket, len(choices))
            way.append(choices[pick])
            at = self.cluster.link_ends[choices[pick]][0]
        return way[::-1]

    def _search(self, start: str, dead: frozenset[int], outside: bool) -> dict[str, list[int]]:
        """End -> the last links of all shortest ways to it."""
        key = (start, dead, outside)
        if key not in self._found:
            self._found[key] = _breadth_first(
                self.cluster, self._from, start, set(dead) | (self._inside if outside else set())
            )
        return self._found[key]

    @cached_property
    def _from(self) -> dict[str, list[int]]:
        return _by_end(self.cluster, 0)

    @cached_property
    def _inside(self) -> set[int]:
        kinds = self.cluster.link_kind
        return {link for link, kind in enumerate(kinds) if kind.rsplit("_", 1)[0] in INSIDE}


def cut_off(cluster: Cluster, dead: Collection[int], gpus: int) -> int | None:
    """A GPU of the first `gpus` that gpu0 reached, or that reached it, and does no more without these links."""
    for way in (0, 1):
        links = _by_end(cluster, way)
        before, after = (_breadth_first(cluster, links, "gpu0", gone, way) for gone in (set(), set(dead)))
        lost = [gpu for gpu in range(1, gpus) if f"gpu{gpu}" in before and f"gpu{gpu}" not in after]
        if lost:
            return 0 if len(lost) == sum(f"gpu{gpu}" in before for gpu in range(1, gpus)) else lost[0]
    return None


def _by_end(cluster: Cluster, way: int) -> dict[str, list[int]]:
    """End -> the links that start there (way 0), or end there (1)."""
    found: dict[str, list[int]] = {}
    for link, ends in enumerate(cluster.link_ends):
        found.setdefault(ends[way], []).append(link)
    return found


def _breadth_first(
    cluster: Cluster, links: dict[str, list[int]], start: str, gone: Collection[int], way: int = 0
) -> dict[str, list[int]]:  # fmt: skip
    """End -> links of all shortest ways that come to it from `start`, without those that are gone."""
    steps, found, ahead = {start: 0}, dict[str, list[int]](), deque([start])
    while ahead:
        at = ahead.popleft()
        for link in _left(links.get(at, []), gone):
            end = cluster.link_ends[link][1 - way]
            if end not in steps:
                steps[end] = steps[at] + 1
                ahead.append(end)
            if steps[end] == steps[at] + 1:
                found.setdefault(end, []).append(link)
    return found


def _left(links: Sequence[int], gone: Collection[int]) -> Iterator[int]:
    return (link for link in links if link not in gone)
