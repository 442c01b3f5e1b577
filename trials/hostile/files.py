"""Files of every importer, broken: cut, garbage in place of content, arrays of other kinds and shapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from moesim import shipped
from moesim.hardware import load_cluster
from moesim.hardware.formats import REGISTRY as TOPOLOGIES
from moesim.hardware.formats import export_topology
from moesim.layout import Placement
from moesim.placement.formats import REGISTRY as PLACEMENTS
from moesim.placement.formats import Frame, read_placement, written
from moesim.routing import open_trace
from moesim.routing.importers import REGISTRY as TRACES
from moesim.routing.loads import loads_of
from moesim.routing.trace import RoutingTrace
from trials.hostile.room import Case

GARBAGE: Final[Mapping[str, bytes]] = {
    "empty": b"", "nul": b"\0" * 100, "html": b"<!doctype html><html>" * 40, "newlines": b"\n" * 10_000,
    "letters": b"a" * 40_000, "brackets": b"[" * 100_000, "binary": bytes(range(256)) * 40, "bom": b"\xff\xfe\0",
    "zip": b"PK\3\4" + b"\0" * 200, "pickle": b"\x80\x04\x95" + b"cos\nsystem\n" * 9, "gzip": b"\x1f\x8b" + b"\0" * 99,
    "xml bomb": b'<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>', "deep": b'{"a":' * 30_000,
    "npy": b"\x93NUMPY\x01\0\xff\xff" + b"{" * 300, "parquet": b"PAR1" + b"\0" * 99 + b"PAR1", "number": b"9" * 6000,
}  # fmt: skip
CUTS: Final = (1, 2, 5, 10, 20, 40, 60, 80, 90, 99)  # per cent of a file that stay
ARRAYS: Final[Mapping[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]]] = {
    "nan": lambda a: np.full(a.shape, np.nan),
    "infinite": lambda a: np.full(a.shape, np.inf),
    "halves": lambda a: a + 0.5,
    "empty": lambda a: a[:0],
    "flat": lambda a: a.reshape(-1),
    "deeper": lambda a: a[None],
    "scalar": lambda a: np.array(1),
    "huge": lambda a: a.astype(np.uint64) + np.uint64(1 << 63),
    "text": lambda a: a.astype(str),
    "objects": lambda a: a.astype(object),
    "complex": lambda a: a.astype(complex),
}
WIDER: Final = ("negative", "shorter")


def small_trace() -> RoutingTrace:
    """512 tokens of the shipped recording."""
    return open_trace(next(iter(shipped.names("workloads/routing", ".parquet").values()))).window(0, 512)


def garbage() -> Iterator[Case]:
    """Bytes of other kinds under every name that a reader takes."""
    for kind, content in GARBAGE.items():
        for command, name in _readers():
            yield Case(f"{kind} as {' '.join(command)}", partial(_written, content, command, name))


def _readers() -> Iterator[tuple[list[str], str]]:
    for format_ in TRACES:
        yield ["trace", "import", format_, "x", "-o", "out.parquet"], "x"
    yield ["trace", "import", "x", "-o", "out.parquet"], "x"
    for name in ("x.npz", "x.parquet"):
        yield ["trace", "stats", name], name
    for format_, each in TOPOLOGIES.items():
        if each.read is not None:
            yield ["topo", "import", "x", "--format", format_], "x"
    yield ["topo", "import", "x"], "x"
    yield ["topo", "show", "x.yaml"], "x.yaml"
    yield ["run", "x.yaml"], "x.yaml"
    for key, name in (("model", "x.json"), ("model", "x.yaml"), ("cluster.topology", "x.yaml"), ("costs", "x.yaml"),
                      ("routing.trace", "x.parquet")):  # fmt: skip
        yield ["run", "demo-tiny", "--set", f"{key}={name}"], name
    for suffix in (".json", ".npz", ".npy", ".yaml"):
        yield ["run", "demo-tiny", "--set", f"experts.placement=x{suffix}"], f"x{suffix}"
    yield ["calibrate", "fit", "x.parquet", "-o", "p.yaml"], "x.parquet"
    yield ["explain", "run"], "run/result.json"
    yield ["report", "run"], "run/result.json"
    yield ["validate", "deepep", "--data", "x.csv"], "x.csv"


def _written(content: bytes, command: list[str], name: str) -> list[str]:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(content)
    return command


def cut() -> Iterator[Case]:
    """A recording of each format with its end missing; text may still be whole at a line's end."""
    trace = small_trace()
    for name, format_ in TRACES.items():
        if name == "router-logits":
            continue
        for share in CUTS:
            yield Case(f"{share} % of {name}", partial(_cut, format_, name, trace, share), must=False)


def _cut(format_: Any, name: str, trace: RoutingTrace, share: int) -> list[str]:
    path = Path("x.npz")
    format_.write(trace if format_.tokens else loads_of(trace), path)
    for one in [path] if path.is_file() else sorted(path.iterdir())[-1:]:
        whole = one.read_bytes()
        one.write_bytes(whole[: len(whole) * share // 100])
    return ["trace", "import", name, "x.npz", "--model", "tiny-moe", "-o", "out.parquet"]


def arrays() -> Iterator[Case]:
    """npz recordings with one array of another kind."""
    trace = small_trace()
    for name, format_ in TRACES.items():
        if not name.startswith(("sglang-per", "sglang-stat", "vllm-eplb")):
            continue
        for kind in (*ARRAYS, *WIDER, "missing"):
            for number in range(7):
                yield Case(f"{name} array {number} {kind}",
                           partial(_changed, format_, name, kind, number, trace),
                           must=kind in ("nan", "objects", "text", "scalar", "empty") and number == 0)  # fmt: skip


def _changed(format_: Any, name: str, kind: str, number: int, trace: RoutingTrace) -> list[str]:
    format_.write(trace if format_.tokens else loads_of(trace), Path("x.npz"))
    with np.load("x.npz") as held:
        found = dict(held)
    key = sorted(found, key=lambda k: (-found[k].ndim, k))[number % len(found)]
    if kind == "missing":
        del found[key]
    elif kind == "negative":
        found[key] = -1 - found[key].astype(np.int64)
    elif kind == "shorter":
        found[key] = found[key][:-1]
    else:
        found[key] = ARRAYS[kind](found[key])
    np.savez_compressed("x.npz", **found)
    return ["trace", "import", name, "x.npz", "-o", "out.parquet"]


def words() -> Iterator[Case]:
    """Topologies and placements in text, each with one word in place of another."""
    text = export_topology(load_cluster("dgx-h100", nodes=2), "astra-sim").text
    for number in range(60):
        for word in ("nan", "-1", "1e999", "[]", "'x", "9" * 400):
            yield Case(f"astra-sim word {number} {word:.9}", partial(_word, text, number, word), must=False)
    expert = np.tile(np.arange(32, dtype=np.int32), (8, 1))
    placement = Placement(expert, np.tile(np.arange(32, dtype=np.int32) // 4, (8, 1)), 32, 8)
    wrong: tuple[Any, ...] = (None, -1, 1.5, "x", [], {}, 10**30, True)
    for name, each in PLACEMENTS.items():
        made = written(placement, name)
        suffix = each.suffixes[0]
        for share in CUTS:
            yield Case(
                f"{share} % of {name}",
                partial(_place, made.content[: len(made.content) * share // 100], suffix),
                must=False,
            )
        if suffix == ".json":
            for value in wrong:
                yield Case(f"{name} {value!r:.9}", partial(_place, _leaf(made.content, value), suffix), must=False)


def _word(text: str, number: int, word: str) -> list[str]:
    pieces = text.split(" ")
    pieces[number % len(pieces)] = word
    Path("x.yaml").write_text(" ".join(pieces))
    return ["topo", "import", "x.yaml"]


def _place(content: bytes, suffix: str) -> Callable[[], object]:
    Path(f"x{suffix}").write_bytes(content)
    return lambda: read_placement(f"x{suffix}", Frame(8, 32, tuple(range(8)), 8))


def _leaf(content: bytes, value: Any) -> bytes:
    """The first leaf that lies deepest replaced."""
    data = json.loads(content)
    inside: Any = data
    while isinstance(inside, (dict, list)) and inside:
        key: Any = next(iter(inside)) if isinstance(inside, dict) else 0
        if not isinstance(inside[key], (dict, list)) or not inside[key]:
            inside[key] = value
            break
        inside = inside[key]
    return json.dumps(data).encode()
