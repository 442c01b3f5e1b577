"""Records: measurements of kernels, a row per case and rank, in Parquet with checksums of pages and of all.

Times are seconds, sizes bytes, rates SI. A column that does not apply holds "", 0 or an empty list. The file is whole
or not there (`moesim.atomic`); a damaged one is refused.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moesim import atomic, shipped
from moesim.calibration.ops import find_op
from moesim.errors import BadInput

FORMAT: Final = b"1"
KEY, DIGEST = b"moesim.records", b"moesim.sha256"
QUANTILES: Final = (0.1, 0.25, 0.5, 0.75, 0.9)
OK: Final = "ok"
RESTORE: Final = "measure or import it again"

TEXT, INT, REAL = pa.string(), pa.int64(), pa.float64()
COUNTS, REALS = pa.list_(pa.int32()), pa.list_(pa.float64())


class Column(NamedTuple):
    """Arrow type, unit ("" where it has none) and meaning of one column."""

    kind: pa.DataType
    unit: str
    meaning: str


FIELDS: Final[dict[str, Column]] = {
    "run": Column(TEXT, "", "identity of the run: rows of one run were measured in one environment"),
    "case": Column(INT, "", "number of the case within its run; its ranks' rows share it"),
    "device": Column(TEXT, "", "name that the driver or platform reports"),
    "device_class": Column(TEXT, "", "cuda or cpu; profiles never mix them"),
    "driver": Column(TEXT, "", "version"),
    "cuda": Column(TEXT, "", "version"),
    "torch": Column(TEXT, "", "version"),
    "nccl": Column(TEXT, "", "version"),
    "device_sms": Column(INT, "SMs", "that the device has, 0 if unknown: two of one name may differ"),
    "clock_before": Column(REAL, "MHz", "SM clock before the samples, 0 if unknown"),
    "clock_after": Column(REAL, "MHz", "SM clock after the samples, 0 if unknown"),
    "op": Column(TEXT, "", "operator; see ops.OPS"),
    "backend": Column(TEXT, "", "who ran it: torch, vllm, sglang, trtllm, nccl, deepep ..."),
    "version": Column(TEXT, "", "version of the backend"),
    "kernel": Column(TEXT, "", "kernel source within the backend; different ones are different kernels"),
    "dtype": Column(TEXT, "", "weights and arithmetic as the backend calls them: bf16, fp8, fp8_block, nvfp4, ..."),
    "cache_dtype": Column(TEXT, "", "KV cache"),
    "m": Column(INT, "rows", "GEMM"),
    "n": Column(INT, "columns", "GEMM"),
    "k": Column(INT, "inner", "GEMM"),
    "tokens": Column(INT, "tokens", "of the whole expert-parallel group; dispatch, combine: of one rank"),
    "hidden": Column(INT, "values", "width of a token"),
    "inter": Column(INT, "values", "width inside an expert, before tensor parallelism"),
    "topk": Column(INT, "experts", "choices of a token"),
    "experts": Column(INT, "experts", "of the model"),
    "matrices": Column(INT, "matrices", "of an expert: 1 bare GEMM, 2 without gate, 3 gated"),
    "tp": Column(INT, "ranks", "tensor-parallel: inter / tp is what this rank holds"),
    "ep": Column(INT, "ranks", "expert-parallel: experts / ep is what this rank holds"),
    "batch": Column(INT, "sequences", "attention"),
    "query": Column(INT, "tokens", "new tokens of a sequence"),
    "context": Column(INT, "tokens", "cached tokens of a sequence"),
    "heads": Column(INT, "heads", "query heads of this rank"),
    "kv_heads": Column(INT, "heads", "key-value heads of this rank"),
    "head_dim": Column(INT, "values", "width of a head"),
    "window": Column(INT, "tokens", "sliding window, 0 if none"),
    "bytes": Column(INT, "B", "moved or communicated; see the operator"),
    "sms": Column(INT, "SMs", "held by a communication kernel, 0 if unknown"),
    "distribution": Column(TEXT, "", "how the rows were routed: balanced, power_law_1.2, trace:NAME ..."),
    "draws": Column(INT, "", "histograms in group_sizes that the time is the mean over; 0 without them"),
    "group_sizes": Column(COUNTS, "rows", "[draws, local experts] flattened: rows of each expert of this rank"),
    "group_basis": Column(TEXT, "", "recorded or regenerated"),
    "split_matrix": Column(COUNTS, "rows", "[world, world] flattened: rows from source to destination"),
    "mode": Column(TEXT, "", "eager or graph; empty if unknown"),
    "calls": Column(INT, "", "that a sample is the mean over: those of one graph; 1 of eager calls"),
    "world": Column(INT, "ranks", "in the process group; 1 for a single device"),
    "nodes": Column(INT, "nodes", "that the process group spans"),
    "rank": Column(INT, "", "whose time this is"),
    "samples": Column(REALS, "s", "every timed sample, in order"),
    "quantiles": Column(REALS, "s", f"of the samples at {QUANTILES}"),
    "seconds": Column(REAL, "s", "the time to fit: median of the samples, or what the source gives"),
    "label": Column(TEXT, "", "ok, or the reason why no fit may use it: beats physics, throttled, ..."),
    "provenance": Column(TEXT, "", "where the row comes from: plan and version, or package and table"),
}  # fmt: skip
SCHEMA: Final = pa.schema([pa.field(name, column.kind, nullable=False) for name, column in FIELDS.items()])
_EMPTY: Final[dict[pa.DataType, Any]] = {TEXT: "", INT: 0, REAL: 0.0, COUNTS: [], REALS: []}
_DEFAULTS: Final = {"calls": 1, "world": 1, "nodes": 1, "tp": 1, "ep": 1, "label": OK}
LATER: Final = frozenset({"nodes", "device_sms", "calls"})  # columns that files of earlier versions do not have


@dataclass(frozen=True)
class Records:
    """Rows in the columns of FIELDS."""

    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """One column that is no list, as numpy; text as objects."""
        return np.asarray(self.table[name].to_numpy())

    def lists(self, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """A list column as values [...] and starts int64[rows + 1]."""
        column = self.table[name].combine_chunks()
        starts = np.asarray(column.offsets.to_numpy(), dtype=np.int64)
        return column.values.to_numpy()[starts[0] : starts[-1]], starts - starts[0]

    def where(self, keep: npt.NDArray[np.bool_]) -> Records:
        """The rows to keep, bool[rows]."""
        return Records(self.table.filter(pa.array(keep)).combine_chunks())

    def of(self, **values: str) -> Records:
        """The rows whose text columns hold these values."""
        masks = [pc.equal(self.table[name], value) for name, value in values.items()]
        for mask in masks[1:]:
            masks[0] = pc.and_(masks[0], mask)
        return Records(self.table.filter(masks[0]).combine_chunks()) if masks else self

    def relabelled(self, label: Sequence[str]) -> Records:
        """The same rows under new labels."""
        index = SCHEMA.get_field_index("label")
        return Records(self.table.set_column(index, SCHEMA.field(index), pa.array(label, TEXT)))

    @property
    def usable(self) -> Records:
        """The rows that a fit may use."""
        return self.of(label=OK)


def records_of(rows: Iterable[Mapping[str, Any]]) -> Records:
    """Rows as mappings of column -> value; what a row leaves out is empty, quantiles and seconds follow its samples.

    Raises BadInput for an unknown column, operator or device class, or a time that is missing or not positive.
    """
    listed = [_completed(row) for row in rows]
    columns = {name: [row[name] for row in listed] for name in FIELDS}
    return records_from(columns)


def records_from(columns: Mapping[str, Sequence[Any] | npt.NDArray[Any] | pa.Array]) -> Records:
    """Whole columns -> Records; columns that are left out are empty. Raises BadInput as `records_of` does."""
    rows = len(next(iter(columns.values()))) if columns else 0
    unknown = sorted(set(columns) - set(FIELDS))
    if unknown:
        raise BadInput(f"records have no column {unknown[0]!r}", way_out=f"one of {', '.join(FIELDS)}")
    arrays = [_array(name, column, columns.get(name), rows) for name, column in FIELDS.items()]
    records = Records(pa.Table.from_arrays(arrays, schema=SCHEMA))
    check(records)
    return records


def join(parts: Iterable[Records]) -> Records:
    """All rows, in order."""
    tables = [part.table for part in parts]
    return Records(pa.concat_tables(tables).combine_chunks() if tables else SCHEMA.empty_table())


def check(records: Records, where: str | Path = "") -> None:
    """Raises BadInput where a row names no run or device, an unknown operator, or a time that cannot be."""
    for op in pc.unique(records.table["op"]).to_pylist():
        find_op(op, where=str(where))
    for name in ("run", "device"):
        if pc.any(pc.equal(records.table[name], "")).as_py():
            raise BadInput(f"a record has no {name}", where=where, way_out="measure or import with its identity")
    classes = set(pc.unique(records.table["device_class"]).to_pylist())
    if not classes <= {"cuda", "cpu"}:
        raise BadInput(f"device_class is {sorted(classes)}", where=where, way_out="cuda or cpu")
    seconds = records["seconds"]
    bad = ~(np.isfinite(seconds) & (seconds > 0))
    if bad.any():
        row = int(np.argmax(bad))
        text = f"row {row} ({records['op'][row]}, {records['kernel'][row]}) takes {seconds[row]} s"
        raise BadInput(f"{int(bad.sum())} records have a missing or non-positive time: {text}", where=where)


def write_records(records: Records, path: str | Path) -> None:
    """Write the file, whole or not at all."""
    table = records.table.combine_chunks()
    packed = io.BytesIO()
    described = table.replace_schema_metadata({KEY: FORMAT, DIGEST: _digest(table).encode()})
    pq.write_table(described, packed, compression="zstd", write_page_checksum=True)
    atomic.write(Path(path), packed.getvalue())


def known_records() -> dict[str, Path]:
    """name -> file of the shipped measurements."""
    return shipped.names("calibration/measurements", ".parquet")


def read_records(path: str | Path) -> Records:
    """Read a file of `write_records`. Raises BadInput where it is damaged, or holds what `check` refuses."""
    path = Path(path)
    if path.is_dir():
        raise BadInput("is a folder", where=path, way_out=f"{path / 'records.parquet'}, once its run is complete")
    if not path.is_file():
        raise BadInput("no such file", where=path, way_out="`moesim calibrate measure` or `import` writes one")
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"damaged: {str(error).splitlines()[0][:120]}", where=path, way_out=RESTORE) from None
    facts = table.schema.metadata or {}
    wanted = [name for name in SCHEMA.names if name in table.column_names or name not in LATER]
    if facts.get(KEY) != FORMAT or table.column_names != wanted:
        raise BadInput("these are no records of this moesim", where=path, way_out=RESTORE)
    table = table.combine_chunks()
    if facts.get(DIGEST) != _digest(table).encode():
        raise BadInput("damaged: sha256 differs", where=path, way_out=RESTORE)
    held = {name: table[name].combine_chunks() if name in wanted else None for name in FIELDS}
    columns = [_array(name, column, held[name], len(table)) for name, column in FIELDS.items()]
    records = Records(pa.table(columns, schema=SCHEMA))
    check(records, path)
    return records


def _completed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Every column of one row."""
    full: dict[str, Any] = {name: _DEFAULTS.get(name, _EMPTY[column.kind]) for name, column in FIELDS.items()} | dict(
        row
    )
    unknown = sorted(set(full) - set(FIELDS))
    if unknown:
        raise BadInput(f"records have no column {unknown[0]!r}", way_out=f"one of {', '.join(FIELDS)}")
    if len(full["samples"]):
        samples = np.asarray(full["samples"], dtype=np.float64)
        full["quantiles"] = np.quantile(samples, QUANTILES)
        full["seconds"] = row.get("seconds", float(np.median(samples)))
    return full


def _array(name: str, column: Column, values: Any, rows: int) -> pa.Array:
    if values is None:
        default = _DEFAULTS.get(name, _EMPTY[column.kind])
        return pa.repeat(pa.scalar(default, column.kind), rows)
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values.cast(column.kind)
    return pa.array(values, type=column.kind)


def _digest(table: pa.Table) -> str:
    """sha256 over the content of all columns, however their pages are cut."""
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table[name].combine_chunks()
        digest.update(name.encode())
        for part in _parts(column):
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _parts(column: pa.Array) -> list[npt.NDArray[Any]]:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        words = column.dictionary_encode()
        text = "\0".join(words.dictionary.to_pylist()).encode()
        return [np.frombuffer(text, dtype=np.uint8), words.indices.to_numpy()]
    if pa.types.is_list(column.type):
        starts = column.offsets.to_numpy()
        return [starts - starts[0], column.flatten().to_numpy(zero_copy_only=False)]
    return [column.to_numpy(zero_copy_only=False)]
