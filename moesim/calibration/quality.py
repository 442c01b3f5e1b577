"""Quality of imported rows on the slow side: rows that no kernel at work explains are labelled, and no fit uses them.

The rules, fixed before any fit, on rows that obey physics:

- `slower than more work`: the same kernel does the same shape with more of one axis (rows, context, batch ...) in less
  than 1 / 1.3 of the time;
- `slower than other engines`: it takes more than twice the median of what other engines' kernels of its dtype take for
  the same cell on the same device;
- `host time`: it stays flat over more than 16 times the rows, above twice what physics asks for and twice what kernels
  of its operator start with on this device: the host launched it, or waited. A module of some dozen kernels that in
  decode starts at more than twice what another engine's starts with was timed without a CUDA graph: none of its rows
  is a kernel's.
- `unfused`: modules of latent attention that start at more than 1.5 times what another engine's start with: inferred
  to have been timed with norms and rotary embedding as a framework's operators one by one, as compiled engines do not
  serve. vLLM 0.24.0's decode takes 37 to 56 us more than TensorRT-LLM 1.3.0rc20's on H100, H200, GB200 and RTX PRO
  6000, whatever the batch, and its prefill up to 30 ns more a token; on B200, the same chip as GB200, it takes 2 to 6
  us and 1 ns more, and so does 0.27.0 on GB300. 1.8 to 2.8 times the start there, 1.0 to 1.1 here.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moesim.calibration.records import OK, Records

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MORE_WORK, OTHERS, HOST = "slower than more work", "slower than other engines", "host time"
UNFUSED: Final = "unfused"
SLOW: Final = frozenset({MORE_WORK, OTHERS, HOST, UNFUSED})
FALLS: Final = 1.3  # times slower than more work
APART: Final = 2.0  # times the other engines' median, the roofline, the device's start
FLAT: Final = 16  # times the rows over which a kernel at work does not stay flat
LEVEL: Final = 1.2  # times slower that still counts as flat
APART_GROUPS: Final = 100.0  # of the logarithm, between groups whose minima run in one pass
START: Final = 0.05  # quantile of a kernel's rows that is its start


class Cell(NamedTuple):
    """Columns that tell the cells of an operator's table apart; axes: those along which work only grows (-: falls);
    rows: the axis along which host time is flat. compared: with other engines' kernels; not where their algorithms
    differ, as those of chunked recurrences do (Triton's takes 2.5 times as long as FlashInfer's in every large cell),
    nor for modules that are known to have been timed out of graphs: what an engine launches beside its core is its own.
    """

    columns: tuple[str, ...]
    axes: tuple[str, ...]
    rows: str
    compared: bool = True


ATTENTION: Final = ("heads", "kv_heads", "head_dim", "batch", "query", "context")
ENCODER: Final = ("heads", "head_dim", "batch", "query")
MODULES: Final = frozenset({"dsa_decode", "dsa_reuse_decode", "csa_decode", "hca_decode", "msa_decode", "msa_prefill"})
PICKING: Final = ("dsa", "dsa_reuse", "csa", "hca", "msa")
LATENT: Final = frozenset({"latent_prefill", "latent_decode"})
ONE_BY_ONE: Final = 1.5  # times the start of another engine's module
SPARSE: Final = ("hidden", "heads", "batch", "context")
RECURRENT: Final = ("kv_heads", "heads", "batch", "query")
EXPERTS: Final = ("hidden", "inter", "topk", "experts", "matrices", "tp", "ep", "tokens", "distribution")
CELLS: Final[dict[str, Cell]] = {
    "gemm": Cell(("m", "n", "k"), ("m", "n", "k"), "m"),
    "grouped_gemm": Cell(EXPERTS, ("tokens", "-tp", "-ep"), "tokens"),
    "attention_prefill": Cell(ATTENTION, ("batch", "query", "context"), "query"),
    "attention_decode": Cell(ATTENTION, ("batch", "context"), "batch"),
    "attention_encoder": Cell(ENCODER, ("heads", "batch", "query"), "batch", compared=False),
    "mla_prefill": Cell(("heads", "batch", "query", "context"), ("heads", "batch", "query", "context"), "query"),
    **{f"{kind}_decode": Cell(SPARSE, ("batch", "context"), "batch") for kind in PICKING},
    **{f"{kind}_prefill": Cell((*SPARSE, "query"), ("batch", "query", "context"), "query") for kind in PICKING},
    **{f"hyper_{part}": Cell(("hidden", "tokens"), ("hidden", "tokens"), "tokens") for part in ("pre", "post")},
    "conv_prefill": Cell(("hidden", "batch", "query"), ("hidden", "batch", "query"), "query"),
    "conv_decode": Cell(("hidden", "batch"), ("hidden", "batch"), "batch"),
    "gdn_prefill": Cell(RECURRENT, ("heads", "batch", "query"), "query", compared=False),
    "gdn_decode": Cell(RECURRENT, ("heads", "batch"), "batch"),
    "kda_prefill": Cell(RECURRENT, ("heads", "batch", "query"), "query", compared=False),
    "kda_decode": Cell(RECURRENT, ("heads", "batch"), "batch"),
    "mla_decode": Cell(("heads", "batch", "context"), ("heads", "batch", "context"), "batch"),
    "absorbed": Cell(("heads", "tokens"), ("heads", "tokens"), "tokens"),
    "latent_prefill": Cell(("heads", "batch", "query"), ("heads", "batch", "query"), "query", compared=False),
    "latent_decode": Cell(("heads", "batch", "context"), ("heads", "batch", "context"), "batch", compared=False),
}


def slow_labels(parts: Sequence[Records], bounds: Sequence[Floats]) -> list[npt.NDArray[np.object_]]:
    """Records of one kernel each, of one device, and the seconds that physics asks of their rows -> new labels.

    Rows that were labelled slow are judged anew, so that judging twice changes nothing.
    """
    tables = [Table(part, bound) for part, bound in zip(parts, bounds, strict=True)]
    least = {op: min(one.start for one in tables if one.op == op) for op in {t.op for t in tables}}
    starts = {op: float(np.median([one.start for one in tables if one.op == op])) for op in {t.op for t in tables}}
    found = []
    for table in tables:
        others = table.others([one for one in tables if one.peer == table.peer and one.backend != table.backend])
        labels = np.where(table.sound, OK, table.records["label"])
        if table.op in MODULES and table.start > APART * least[table.op]:
            labels[table.sound] = HOST
        if table.op in LATENT and _unfused(table, tables):
            labels[table.sound] = UNFUSED
        for name, slow in (
            (HOST, table.host_time(starts[table.op]) & ~(table.seconds <= APART * others)),
            (MORE_WORK, table.slower_than_more_work()),
            (OTHERS, table.seconds > APART * others),
        ):
            labels[slow & (labels == OK)] = name
        found.append(labels)
    return found


def _unfused(module: Table, tables: Sequence[Table]) -> bool:
    """Whether the engine's modules over that cache start that late, whatever the dtype of their weights."""
    alike = [one for one in tables if (one.op, one.peer[2]) == (module.op, module.peer[2])]
    own = min(one.start for one in alike if one.backend == module.backend)
    return own > ONE_BY_ONE * min(one.start for one in alike)


class Table:
    """Records of one kernel, as cells. bound float64[rows]: seconds that physics asks for."""

    def __init__(self, records: Records, bound: Floats) -> None:
        self.records, self.bound = records, bound
        self.op, self.backend = str(records["op"][0]), str(records["backend"][0])
        self.peer = (self.op, str(records["dtype"][0]), str(records["cache_dtype"][0]))
        self.sound: Bools = np.isin(records["label"].astype(str), [OK, *SLOW])
        self.seconds: Floats = records["seconds"]
        self._cell = CELLS[self.op]
        self._window = records["window"]
        self._columns = {name: _numbers(records[name]) for name in self._cell.columns}

    @property
    def start(self) -> float:
        """Seconds of its fastest cells."""
        sound = self.seconds[self.sound]
        return float(np.quantile(sound, START)) if len(sound) else np.inf

    def slower_than_more_work(self) -> Bools:
        """bool[rows]."""
        slow = np.zeros(len(self.seconds), dtype=np.bool_)
        for axis in self._cell.axes:
            less = self._least_beyond(axis, 1.0)
            slow |= self.seconds > FALLS * less
        return slow

    def host_time(self, start: float) -> Bools:
        """bool[rows]: flat over FLAT times the rows, beyond what physics and a start of kernels explain."""
        flat = self._least_beyond(self._cell.rows, float(FLAT)) <= LEVEL * self.seconds
        return flat & (self.seconds > APART * np.maximum(self.bound, start))

    def others(self, tables: Sequence[Table]) -> Floats:
        """float64[rows]: median seconds of sound rows of the same cell in other tables; NaN where there is none."""
        if not tables or not self._cell.compared:
            return np.full(len(self.seconds), np.nan)
        number = _groups(list(np.concatenate([self._keys(), *(one._keys() for one in tables)]).T))
        own, theirs = number[: len(self.seconds)], number[len(self.seconds) :]
        seconds = np.concatenate([np.where(one.sound, one.seconds, np.nan) for one in tables])
        return _medians(theirs, seconds, int(number.max()) + 1)[own]

    def _keys(self) -> Ints:
        return np.stack([*self._columns.values(), self._window], axis=1)

    def _least_beyond(self, axis: str, times: float) -> Floats:
        """float64[rows]: least seconds of sound rows of the same cell but with more than `times` as much of `axis`."""
        name, sign = axis.removeprefix("-"), -1 if axis.startswith("-") else 1
        group = _groups([self._window, *(values for column, values in self._columns.items() if column != name)])
        along = self._columns[name]
        order = np.lexsort((sign * along, group))
        group, along, seconds = group[order], along[order], np.where(self.sound, self.seconds, np.inf)[order]
        least = _least_from(group, seconds)
        scale = np.log2(np.maximum(along, 0.5)) * sign
        width = float(np.ptp(scale)) + 10.0
        place = group * width + (scale - scale.min())
        beyond = np.searchsorted(place, place + np.log2(times) + 1e-9, side="right")
        inside = (beyond < len(place)) & (group[np.minimum(beyond, len(place) - 1)] == group)
        found = np.empty(len(place))
        found[order] = np.where(inside, least[np.minimum(beyond, len(place) - 1)], np.inf)
        return found


def _numbers(column: npt.NDArray[np.generic]) -> Ints:
    """int64[rows]: text by its checksum, so that tables agree."""
    if column.dtype.kind in "iu":
        return np.asarray(column, dtype=np.int64)
    names, number = np.unique(column.astype(str), return_inverse=True)
    return np.array([zlib.crc32(str(name).encode()) for name in names], dtype=np.int64)[number.ravel()]


def _groups(columns: Sequence[Ints]) -> Ints:
    """int64[rows]: equal rows of the columns share a number."""
    order = np.lexsort(columns)
    first = np.zeros(len(order), dtype=np.bool_)
    for column in columns:
        first[1:] |= column[order][1:] != column[order][:-1]
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.cumsum(first)
    return number


def _least_from(group: Ints, seconds: Floats) -> Floats:
    """float64[rows], rows sorted by group: the least seconds from each row to the end of its group."""
    levels = np.where(
        np.isfinite(seconds), np.log(seconds, where=np.isfinite(seconds), out=np.zeros(len(seconds))), 50.0
    )
    falling = np.minimum.accumulate((levels + APART_GROUPS * group)[::-1])[::-1]
    found = falling - APART_GROUPS * group
    return np.where(found < 49.0, np.exp(found), np.inf)


def _medians(number: Ints, values: Floats, count: int) -> Floats:
    """float64[count]: the median of the values of each number, NaN left out; NaN where there is none."""
    kept = ~np.isnan(values)
    number, values = number[kept], values[kept]
    values = values[np.lexsort((values, number))]
    many = np.bincount(number, minlength=count)
    first = np.cumsum(many) - many
    found = np.full(count, np.nan)
    some = many > 0
    low, high = first + (many - 1) // 2, first + many // 2
    found[some] = (values[low[some]] + values[high[some]]) / 2
    return found
