"""Arrays out of files that may be hostile: no pickles, no object arrays, no sizes that were not checked first."""

from __future__ import annotations

import ast
import json
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from moesim import atomic, foreign
from moesim.errors import BadInput

AGAIN: Final = "write it again: a download or a copy may have been cut short"
MAX_BYTES: Final = 4 << 30
ZIP64: Final = (1 << 31) - (1 << 16)  # bytes of a member that needs the wide sizes, its header included
MAX_HEADER: Final = 1 << 16
SAFE_KINDS: Final = "biuf"
SAFETENSORS: Final = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "|u1", "F32": "<f4", "F64": "<f8", "F16": "<f2"}


def read_npz(path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, npt.NDArray[Any]]:
    """The named arrays of an npz. Raises BadInput for missing ones, pickles, zip bombs and damage."""
    if path.suffix in {".pt", ".pth"}:
        raise BadInput("a torch file is not read here", where=path, way_out=f"moesim trace unpack {path.name}")
    foreign.regular(path)
    with foreign.reading(path, "npz file", AGAIN), zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy"): name for name in archive.namelist()}
        missing = [name for name in required if name not in names]
        if missing:
            raise BadInput(f"lacks {', '.join(missing)}", where=path, way_out=f"holds {', '.join(sorted(names))}")
        wanted = {name: archive.getinfo(names[name]) for name in (*required, *(n for n in optional if n in names))}
        _check_sizes(archive, wanted.values(), path)
        return {name: _member(archive, info, f"{path} {name}") for name, info in wanted.items()}


def npz_names(path: Path) -> tuple[str, ...]:
    """Names of all arrays of an npz. Raises BadInput."""
    foreign.regular(path)
    with foreign.reading(path, "npz file", AGAIN), zipfile.ZipFile(path) as archive:
        return tuple(name.removesuffix(".npy") for name in archive.namelist())


def _check_sizes(archive: zipfile.ZipFile, wanted: Iterable[zipfile.ZipInfo], path: Path) -> None:
    """Before anything is unpacked: what all wanted members become as 64-bit numbers."""
    packed = expanded = 0
    for info in wanted:
        with archive.open(info) as stream:
            dtype = _npy_header(stream, f"{path} {info.filename}")[0]
        packed += info.compress_size
        expanded += info.file_size // max(dtype.itemsize, 1) * 8
    foreign.check_growth(packed, expanded, path)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> npt.NDArray[Any]:
    with archive.open(info) as stream:
        return read_npy(stream, info.file_size, where)


def read_npy(stream: BinaryIO | Any, size: int, where: str | Path) -> npt.NDArray[Any]:
    """One .npy of `size` bytes; its header's claim is compared with the size before anything is allocated."""
    dtype, fortran, shape, used = _npy_header(stream, where)
    count = 1
    for extent in shape:
        count *= extent
    if dtype.kind not in SAFE_KINDS:
        raise BadInput(f"holds {dtype}, not numbers", where=where, way_out="object arrays are never unpickled")
    if min(shape, default=1) < 1:
        raise BadInput(f"is an array of {shape}, which holds nothing", where=where)
    if used + count * dtype.itemsize != size or size > MAX_BYTES:
        raise BadInput(f"claims {shape} {dtype}, but has {size} bytes", where=where)
    data = stream.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise BadInput("is cut off", where=where)
    flat = np.frombuffer(data, dtype=dtype)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _npy_header(stream: Any, where: str | Path) -> tuple[np.dtype[Any], bool, tuple[int, ...], int]:
    magic = stream.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3):
        raise BadInput("is no .npy array", where=where)
    wide = magic[6] > 1
    raw = stream.read(4 if wide else 2)
    length = struct.unpack("<I" if wide else "<H", raw)[0]
    if length > MAX_HEADER:
        raise BadInput(f"has a header of {length} bytes", where=where)
    try:
        facts = ast.literal_eval(stream.read(length).decode("latin1"))
        shape = tuple(int(extent) for extent in facts["shape"])
        return np.dtype(facts["descr"]), bool(facts["fortran_order"]), shape, 8 + len(raw) + length
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise BadInput(f"has a broken header ({error})", where=where) from None


def read_npy_file(path: Path) -> npt.NDArray[Any]:
    """A bare .npy file. Raises BadInput; a flipped bit inside it cannot be seen."""
    size = foreign.regular(path)
    with foreign.reading(path, ".npy file"), path.open("rb") as stream:
        return read_npy(stream, size, path)


def write_npz(path: Path | BinaryIO, **arrays: npt.ArrayLike) -> None:
    """Compressed, with fixed timestamps, so that equal arrays give equal bytes. A path is written whole or not."""
    if isinstance(path, Path):
        with atomic.file(path) as part, part.open("r+b") as stream:
            write_npz(stream, **arrays)
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            whole = np.ascontiguousarray(values)
            with archive.open(info, "w", force_zip64=whole.nbytes >= ZIP64) as member:
                np.lib.format.write_array(member, whole, allow_pickle=False)


def read_safetensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All tensors of a safetensors file: 8 bytes of header length, JSON, data. Raises BadInput."""
    with foreign.reading(path, "safetensors file"):
        data = foreign.read_bytes(path)
        length = struct.unpack("<Q", data[:8])[0]
        if length > min(len(data), 1 << 26):
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(data[8 : 8 + length])
        body = data[8 + length :]
        tensors = {name: facts for name, facts in header.items() if name != "__metadata__"}
        return {name: _tensor(body, facts, f"{path} {name}") for name, facts in tensors.items()}


def _tensor(body: bytes, facts: dict[str, Any], where: str) -> npt.NDArray[Any]:
    start, stop = facts["data_offsets"]
    if facts["dtype"] not in SAFETENSORS:
        raise BadInput(f"holds {facts['dtype']}", where=where, way_out=f"one of {', '.join(SAFETENSORS)}")
    dtype, shape = np.dtype(SAFETENSORS[facts["dtype"]]), tuple(facts["shape"])
    if not 0 <= start <= stop <= len(body) or stop - start != int(np.prod(shape, dtype=object)) * dtype.itemsize:
        raise BadInput(f"claims {shape} in {stop - start} bytes", where=where)
    return np.frombuffer(body[start:stop], dtype=dtype).reshape(shape)


def write_safetensors(path: Path, tensors: dict[str, npt.NDArray[Any]]) -> None:
    """The inverse of `read_safetensors`, tensors in the given order."""
    codes = {np.dtype(code): name for name, code in SAFETENSORS.items()}
    header, body = {}, b""
    for name, values in tensors.items():
        data = np.ascontiguousarray(values).tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": codes[values.dtype], "shape": list(values.shape), "data_offsets": offsets}
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def read_json_lines(path: Path) -> list[Any]:
    """One JSON document a line, or a list of them, or one over many lines. Raises BadInput naming the line."""
    with foreign.reading(path, "UTF-8 text"):
        text = foreign.read_bytes(path).decode("utf-8-sig")
    try:
        whole = json.loads(text)
        return whole if isinstance(whole, list) else [whole]
    except (ValueError, RecursionError):
        pass  # lines: told one by one
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found += [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError) as error:
            raise BadInput(f"is not JSON: {error}", where=f"{path}:{number}") from None
    return found
