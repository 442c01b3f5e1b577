"""The native trace file: Parquet with page checksums and a sha256 per block, one row group per block of tokens.

By default one flipped bit passes silently through Parquet in 98 % of cases; with page checksums written and verified
none does, and the digests catch what the pages do not cover. A window reads its own blocks only; counts of a window
come from the counts before each block, which the footer holds, plus its two partial blocks.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from moesim import atomic
from moesim.errors import BadInput
from moesim.routing.shape import check_sizes
from moesim.routing.trace import ROW_COLUMNS, RoutingTrace, TraceHeader, count_experts

FORMAT: Final = 1
KEY: Final = b"moesim.routing"
MAX_BLOCK: Final = 1 << 16
MAX_COUNTS: Final = 1 << 28  # cells of the block counts that a file may claim
MAX_READ_BYTES: Final = 4 << 30
DAMAGED: Final = "is damaged or no routing trace"
RESTORE: Final = "copy or record it again; `moesim trace import` reads other formats"
_ERRORS: Final = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, zlib.error, RecursionError)


def write_trace(trace: RoutingTrace, path: str | Path, *, block_tokens: int = 8192) -> None:
    """Write the native file, whole or not at all."""
    starts = range(0, trace.tokens, min(block_tokens, MAX_BLOCK))
    blocks = [trace.window(s, s + starts.step) for s in starts]
    schema = _schema(trace).with_metadata({KEY: _metadata(trace, blocks)})
    packed = io.BytesIO()
    with pq.ParquetWriter(packed, schema, compression="zstd", write_page_checksum=True) as writer:
        for block in blocks:
            writer.write_table(_table(block, schema), row_group_size=MAX_BLOCK)
    atomic.write(Path(path), packed.getvalue())


def read_trace(path: str | Path) -> RoutingTrace:
    """The whole trace. Raises BadInput for a damaged file, one that breaks a law of traces, or one above 4 GiB."""
    return open_trace(path).read()


def open_trace(path: str | Path) -> TraceFile:
    """The header and the block counts of a trace file; no tokens are read. Raises BadInput."""
    path = Path(path)
    if not path.is_file():
        raise BadInput("no such file", where=path, way_out="`moesim list` shows the shipped traces")
    try:
        return _open(path)
    except _ERRORS as error:
        raise BadInput(f"{DAMAGED} ({_short(error)})", where=path, way_out=RESTORE) from None


@dataclass(frozen=True)
class TraceFile:
    """An open trace: `header`, and `starts` int64[blocks + 1], the first token of each block and the token count."""

    path: Path
    header: TraceHeader
    starts: npt.NDArray[np.int64]
    digests: tuple[str, ...]
    counts_before: npt.NDArray[np.int64]
    file: pq.ParquetFile

    @property
    def tokens(self) -> int:
        """Rows of the trace."""
        return int(self.starts[-1])

    @cached_property
    def _columns(self) -> list[str]:
        return sorted({name.partition(".")[0] for name in self.file.schema_arrow.names})

    def read(self) -> RoutingTrace:
        """All of it. Raises BadInput."""
        return self.window(0, self.tokens)

    def window(self, start: int, stop: int) -> RoutingTrace:
        """The tokens start..stop-1; reads and verifies only the blocks that hold them. Raises BadInput."""
        start, stop = max(start, 0), min(stop, self.tokens)
        if start >= stop:
            raise BadInput(f"the window {start}..{stop} is empty", where=self.path)
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        last = int(np.searchsorted(self.starts, stop, side="left"))
        rows = int(self.starts[last] - self.starts[first])
        header = self.header
        if rows * header.moe_layers * header.top_k * 2 > MAX_READ_BYTES:
            raise BadInput(
                f"{rows} tokens do not fit in {MAX_READ_BYTES} bytes", where=self.path, way_out="read windows"
            )
        offset = int(self.starts[first])
        arrays = self._blocks(first, last, rows)
        cut = np.s_[start - offset : stop - offset]
        return RoutingTrace(header, **{name: array[cut] for name, array in arrays.items()}, where=str(self.path))

    def _blocks(self, first: int, last: int, rows: int) -> dict[str, npt.NDArray[Any]]:
        """The columns of blocks first .. last - 1, `rows` long; one block at a time is held beside them."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        for block in range(first, last):
            place = np.s_[
                int(self.starts[block] - self.starts[first]) : int(self.starts[block + 1] - self.starts[first])
            ]
            for name, values in self._block(block).items():
                if name not in arrays:
                    arrays[name] = np.empty((rows, *values.shape[1:]), dtype=values.dtype)
                arrays[name][place] = values
        return arrays

    def counts(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.int64]:
        """int64[layers, experts]: choices of each expert by the tokens start..stop-1. Raises BadInput."""
        stop = self.tokens if stop is None else min(stop, self.tokens)
        return self._before(stop) - self._before(max(start, 0))

    def _before(self, token: int) -> npt.NDArray[np.int64]:
        block = int(np.searchsorted(self.starts, token, side="right")) - 1
        counts: npt.NDArray[np.int64] = self.counts_before[block]
        start = int(self.starts[block])
        return counts + self.window(start, token).counts() if token > start else counts

    def _block(self, block: int) -> dict[str, npt.NDArray[Any]]:
        try:
            arrays = _arrays(self.file.read_row_group(block, use_threads=False), self.header)
        except _ERRORS as error:
            raise BadInput(f"block {block} {DAMAGED} ({_short(error)})", where=self.path, way_out=RESTORE) from None
        if _digest(arrays) != self.digests[block]:
            raise BadInput(f"block {block} {DAMAGED} (sha256 differs)", where=self.path, way_out=RESTORE)
        return arrays


def _open(path: Path) -> TraceFile:
    file = pq.ParquetFile(
        path,
        page_checksum_verification=True,
        memory_map=False,
        thrift_string_size_limit=1 << 28,
        thrift_container_size_limit=1 << 22,
    )
    facts = json.loads(_unpack((file.schema_arrow.metadata or {})[KEY], 1 << 26))
    claimed = facts.pop("sha256")
    if hashlib.sha256(_canonical(facts)).hexdigest() != claimed:
        raise ValueError("sha256 of the header differs")
    if facts["format"] != FORMAT:
        raise BadInput(f"trace format {facts['format']}", where=path, way_out=f"this moesim reads format {FORMAT}")
    header = TraceHeader(**{**facts["header"], "domains": tuple(facts["header"]["domains"])})
    check_sizes(header.moe_layers, header.num_experts, header.top_k, str(path))
    rows = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
    if sum(rows) != facts["tokens"] or not rows or max(rows) > MAX_BLOCK or len(facts["digests"]) != len(rows):
        raise ValueError("the blocks are not those of the header")
    _check_claims(file, header)
    starts = np.concatenate([[0], np.cumsum(rows)])
    counts = _unpack_counts(facts["counts"], (len(rows), header.moe_layers, header.num_experts))
    return TraceFile(path, header, starts, tuple(facts["digests"]), counts, file)


def _check_claims(file: pq.ParquetFile, header: TraceHeader) -> None:
    """Refuse a file whose pages claim more bytes than its rows can fill, before anything is decompressed."""
    wide = max(header.top_k, header.num_experts if "logits.0" in file.schema_arrow.names else 0)
    for group in range(file.metadata.num_row_groups):
        meta = file.metadata.row_group(group)
        limit = meta.num_rows * wide * 8 + (1 << 17)
        sizes = [meta.column(c).total_uncompressed_size for c in range(meta.num_columns)]
        if max(sizes) > limit or min(sizes) < 0:
            raise ValueError(f"a column claims {max(sizes)} bytes for {meta.num_rows} rows")


def _schema(trace: RoutingTrace) -> pa.Schema:
    header = trace.header
    wide: dict[str, tuple[Any, int]] = {"expert": (pa.uint16(), header.top_k)}
    wide |= {"weight": (pa.float16(), header.top_k)} if trace.weight is not None else {}
    wide |= {"rounds": (pa.uint8(), header.top_k)} if trace.rounds is not None else {}
    wide |= {"logits": (pa.float16(), header.num_experts)} if trace.logits is not None else {}
    columns = [(name, pa.from_numpy_dtype(dtype)) for name, dtype in ROW_COLUMNS.items()]
    columns += [("token_id", pa.int32())] if trace.token_id is not None else []
    for name, (item, size) in wide.items():
        kind = pa.list_(pa.field("item", item, nullable=False), size)
        columns += [(f"{name}.{layer}", kind) for layer in range(header.moe_layers)]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns])


def _table(trace: RoutingTrace, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        name, _, layer = field.name.partition(".")
        values = getattr(trace, name)
        if layer:
            flat = pa.array(np.ascontiguousarray(values[:, int(layer)]).reshape(-1), type=field.type.value_type)
            columns.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type))
        else:
            columns.append(pa.array(values, type=field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _arrays(table: pa.Table, header: TraceHeader) -> dict[str, npt.NDArray[Any]]:
    layered: dict[str, list[npt.NDArray[Any]]] = {}
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        base, _, layer = name.partition(".")
        if column.null_count:
            raise ValueError(f"column {name} has nulls")
        if layer:
            values = column.flatten().to_numpy(zero_copy_only=False)
            layered.setdefault(base, []).append(values.reshape(table.num_rows, -1))
        else:
            arrays[base] = column.to_numpy(zero_copy_only=False)
    return arrays | {name: np.stack(layers, axis=1) for name, layers in layered.items()}


def _digest(arrays: dict[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{values.dtype.str}{values.shape}".encode())
        digest.update(values.view(np.uint8).data)
    return digest.hexdigest()


def _metadata(trace: RoutingTrace, blocks: list[RoutingTrace]) -> bytes:
    counts = np.stack([count_experts(block.expert, trace.header.num_experts) for block in blocks])
    facts: dict[str, Any] = {
        "format": FORMAT,
        "header": asdict(trace.header),
        "digest": trace.header.digest,
        "tokens": trace.tokens,
        "digests": [_digest(_named_arrays(block)) for block in blocks],
        "counts": base64.b64encode(zlib.compress(counts.astype("<u4").tobytes())).decode(),
    }
    facts["sha256"] = hashlib.sha256(_canonical(facts)).hexdigest()
    return base64.b64encode(zlib.compress(_canonical(facts)))


def _named_arrays(trace: RoutingTrace) -> dict[str, npt.NDArray[Any]]:
    names = ("expert", *ROW_COLUMNS, "weight", "token_id", "logits", "rounds")
    return {name: getattr(trace, name) for name in names if getattr(trace, name) is not None}


def _canonical(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _unpack(packed: bytes, limit: int) -> bytes:
    """base64 of zlib -> bytes; a stream that grows beyond `limit` is refused before it does."""
    inflater = zlib.decompressobj()
    data = inflater.decompress(base64.b64decode(packed, validate=True), limit)
    if inflater.unconsumed_tail or not inflater.eof:
        raise ValueError("the header is too large or cut off")
    return data


def _unpack_counts(packed: str, shape: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    cells = shape[0] * shape[1] * shape[2]
    if cells > MAX_COUNTS:
        raise ValueError(f"claims {cells} block counts")
    counts = np.frombuffer(_unpack(packed.encode(), 4 * cells), dtype="<u4").reshape(shape)
    return np.concatenate([np.zeros((1, *shape[1:]), np.int64), np.cumsum(counts, axis=0, dtype=np.int64)])


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
