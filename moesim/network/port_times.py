"""When each lane of a coflow is done, by port loads and with a release per lane: the closed form behind `evaluate`.

Whatever the sharing, the flows of a set S that pass link l cannot all have ended before

    max over t of  t + (bytes of S on l released at or after t) / capacity_l

With S = all flows and l every link that is the end of the last port. With S = the flows that land at one lane it is
that lane's inbound port (and never above the fluid time, even where a port is shared with others). Of flows that land
later than their last byte is sent, the bound holds for those of at least some latency, plus that latency. Sizes add up
as integers, so the result does not depend on the order of equal releases.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.compiled import inlined, njit
from moesim.units import LAST_TICK

PICOSECONDS = 1e12
LONGEST = float(LAST_TICK)
Int64s = npt.NDArray[np.int64]


class Spans(NamedTuple):
    """Per link that carries bytes of the coflow: link int32[k]; first and last byte, int64[k] ps; bytes int64[k]."""

    link: npt.NDArray[np.int32]
    start: Int64s
    end: Int64s
    bytes: Int64s


def ticks_per_byte(capacity: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64[L] B/s -> ps per byte; infinite capacity takes no time, a dead link (0) infinitely long."""
    with np.errstate(divide="ignore"):
        slowness: npt.NDArray[np.float64] = PICOSECONDS / np.asarray(capacity, dtype=np.float64)
    return slowness


@inlined
def after(start: Any, ticks: Any) -> Any:
    """start, and float `ticks` later: never beyond LAST_TICK, where integers would wrap around."""
    return min(start + np.int64(min(np.rint(ticks), LONGEST)), LAST_TICK)


@njit
def owners(owner_ptr: Any, flows: Any) -> Any:
    """int64[R + 1] -> int32[F]: the lane that releases each flow."""
    owner = np.empty(flows, np.int32)
    for lane in range(owner_ptr.shape[0] - 1):
        owner[owner_ptr[lane] : owner_ptr[lane + 1]] = lane
    return owner


@njit
def last_first(release: Any) -> Any:
    """int64[R] -> the lanes, last release first; equal ones by number."""
    return np.argsort(-release, kind="mergesort")


@njit
def flows_by(key: Any, order: Any, owner_ptr: Any, size: Any, lanes: Any) -> Any:
    """Flows that have bytes, by key int32[F] (a lane), within a key by `order` of their owners -> (ptr, flows)."""
    ptr = np.zeros(lanes + 1, np.int64)
    for flow in range(key.shape[0]):
        if size[flow] > 0:
            ptr[key[flow] + 1] += 1
    for lane in range(lanes):
        ptr[lane + 1] += ptr[lane]
    place, flows = ptr[:-1].copy(), np.empty(ptr[lanes], np.int32)
    for owner in order:
        for flow in range(owner_ptr[owner], owner_ptr[owner + 1]):
            if size[flow] > 0:
                flows[place[key[flow]]] = flow
                place[key[flow]] += 1
    return ptr, flows


@njit
def set_end(flows: Any, start: Any, size: Any, path: Any, slowness: Any, load: Any) -> Any:
    """The bound above for the set `flows`, which stand last release first; start int64[F] ps.

    load int64[L] is scratch, all zeros before and after.
    """
    end = np.int64(0)
    together = flows.shape[0] > 0 and start[flows[0]] == start[flows[-1]]  # a link's whole load is its bound then
    for flow in flows:
        for hop in range(path.shape[1]):
            link = path[flow, hop]
            if link < 0:
                break
            load[link] += size[flow]
            if not together:
                end = max(end, after(start[flow], load[link] * slowness[link]))
    for flow in flows:
        for hop in range(path.shape[1]):
            link = path[flow, hop]
            if link < 0:
                break
            if together and load[link] > 0:
                end = max(end, after(start[flow], load[link] * slowness[link]))
            load[link] = 0
    return end


@njit
def landed(
    flows: Any, start: Any, size: Any, path: Any, slowness: Any, load: Any, latency: Any, steps: Any
) -> Any:  # fmt: skip
    """`set_end` where flow f lands latency int64[F] ps after its last byte was sent; without `steps` none has any.

    For each latency among `steps` the flows that have at least as much are bound by their links, and then by it.
    """
    if steps.shape[0] == 0:
        return set_end(flows, start, size, path, slowness, load)
    end = np.int64(0)
    for step in steps:
        late = flows[latency[flows] >= step]
        if late.shape[0] > 0:
            end = max(end, after(set_end(late, start, size, path, slowness, load), float(step)))
    for flow in flows:
        slowest = 0.0
        for hop in range(path.shape[1]):
            if path[flow, hop] >= 0:
                slowest = max(slowest, slowness[path[flow, hop]])
        end = max(end, after(start[flow], size[flow] * slowest + latency[flow]))
    return end


@njit
def port_spans(
    order: Any, owner_ptr: Any, start: Any, size: Any, path: Any, slowness: Any, load: Any, end: Any, first: Any
) -> Any:  # fmt: skip
    """Like `set_end` for each link apart, of all flows, lanes last first as in `order`
    -> (links in order of first use, first starts, ends, bytes).

    load, end, first int64[L] are scratch, zeros in `load` before and after.
    """
    links, count = np.empty(load.shape[0], np.int32), 0
    for owner in order:
        for flow in range(owner_ptr[owner], owner_ptr[owner + 1]):
            if size[flow] == 0:
                continue
            for hop in range(path.shape[1]):
                link = path[flow, hop]
                if link < 0:
                    break
                if load[link] == 0:
                    links[count] = link
                    count += 1
                    end[link] = 0
                load[link] += size[flow]
                first[link] = start[flow]
                end[link] = max(end[link], after(start[flow], load[link] * slowness[link]))
    links = links[:count].copy()
    spans = (links, first[links], end[links], load[links])
    load[links] = 0
    return spans


@njit
def coflow_times(
    release: Any,
    alpha: Any,
    owner_ptr: Any,
    source: Any,
    destination: Any,
    size: Any,
    path: Any,
    latency: Any,
    steps: Any,
    slowness: Any,
    load: Any,
    scratch_end: Any,
    scratch_first: Any,
    done: Any,
    arrival: Any,
) -> Any:
    """release int64[R], alpha ps, columns of a Coflow -> (end of the last port, spans); fills done, arrival int64[R].

    done: own sends and receives over; arrival: every lane released and own receives over. The stream of a lane is held
    until `done`, which does not wait for lanes that have nothing to exchange with it.
    """
    lanes = release.shape[0]
    order = last_first(release)
    start = np.minimum(release[owners(owner_ptr, size.shape[0])] + alpha, LAST_TICK)
    last = min(release[order[0]] + alpha, LAST_TICK)
    sent_ptr, sent = flows_by(source, order, owner_ptr, size, lanes)
    got_ptr, got = flows_by(destination, order, owner_ptr, size, lanes)
    for lane in range(lanes):
        sends = set_end(sent[sent_ptr[lane] : sent_ptr[lane + 1]], start, size, path, slowness, load)
        inbound = got[got_ptr[lane] : got_ptr[lane + 1]]
        receives = landed(inbound, start, size, path, slowness, load, latency, steps)
        done[lane] = max(min(release[lane] + alpha, LAST_TICK), sends, receives)
        arrival[lane] = max(last, receives)
    spans = port_spans(order, owner_ptr, start, size, path, slowness, load, scratch_end, scratch_first)
    end = last
    for port_end in spans[2]:
        end = max(end, port_end)
    for landing in arrival:
        end = max(end, landing)
    return end, spans


def matrix_seconds(
    matrix: Int64s, node_of: npt.NDArray[np.int32], inside: float, between: float
) -> npt.NDArray[np.float64]:
    """int64[C, R, R] bytes of C collectives, node_of int32[R], B/s of a port to its own node and to others, each way.

    -> float64[C] s: the busiest port of each. Bytes to oneself travel nowhere.
    """
    seconds = np.empty(len(matrix))
    _busiest_ports(matrix, node_of, 1.0 / inside, 1.0 / between, seconds)
    return seconds


@njit
def _busiest_ports(matrix: Any, node_of: Any, inside: float, between: float, seconds: Any) -> None:
    """In one pass over the bytes; columns of `got`: what each rank receives from its own node, and from others."""
    got, ranks = np.empty((2, matrix.shape[1]), np.int64), matrix.shape[1]
    for collective in range(matrix.shape[0]):
        got[:] = 0
        worst = 0.0
        for source in range(ranks):
            sent, near = np.int64(0), np.int64(0)
            for target in range(ranks):
                size = matrix[collective, source, target]
                own = node_of[source] == node_of[target]
                size *= source != target
                sent += size
                near += size * own
                got[0, target] += size * own
                got[1, target] += size * (not own)
            worst = max(worst, near * inside, (sent - near) * between)
        for target in range(ranks):
            worst = max(worst, got[0, target] * inside, got[1, target] * between)
        seconds[collective] = worst


@njit
def played_spans(start: Any, finish: Any, size: Any, path: Any, load: Any, end: Any, first: Any) -> Any:
    """start, finish int64[F] of flows that were played -> the columns of Spans. Scratch as in `port_spans`."""
    links, count = np.empty(load.shape[0], np.int32), 0
    for flow in range(size.shape[0]):
        if size[flow] == 0:
            continue
        for hop in range(path.shape[1]):
            link = path[flow, hop]
            if link < 0:
                break
            if load[link] == 0:
                links[count] = link
                count += 1
                end[link], first[link] = finish[flow], start[flow]
            load[link] += size[flow]
            first[link] = min(first[link], start[flow])
            end[link] = max(end[link], finish[flow])
    links = links[:count].copy()
    spans = (links, first[links], end[links], load[links])
    load[links] = 0
    return spans
