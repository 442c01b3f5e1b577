"""Placement files: a round trip gives the same placement back, and what is wrong is named."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.errors import BadInput, MoesimError
from moesim.layout import Placement
from moesim.placement.formats import (
    REGISTRY,
    Frame,
    find_format,
    format_for,
    read_placement,
    write_placement,
    written,
)
from moesim.placement.formats.source import open_source

OMNI = Path(__file__).parents[1] / "data" / "placement" / "omniinfer_64_dies.npz"
EVEN = sorted(set(REGISTRY) - {"omniinfer"})
PLAIN = Placement.contiguous(layers=2, experts=4, ranks=2)


@st.composite
def placements(draw: st.DrawFn, *, even: bool = True) -> Placement:
    """No expert twice on a rank; the slots of a rank in any order, or ascending where ranks are uneven."""
    experts, ranks, layers = draw(st.integers(1, 9)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    least = -(-experts // ranks)
    owned = [draw(st.integers(least, experts))] * ranks if even else draw(_lists(least, experts, ranks))
    first = np.cumsum([0, *owned])
    rows = []
    for _ in range(layers):
        order = np.array(draw(st.permutations(range(experts))))
        parts = [order[np.arange(a, b) % experts] for a, b in pairwise(first)]
        rows.append(np.concatenate([part if even else np.sort(part) for part in parts]))
    owner = np.repeat(np.arange(ranks, dtype=np.int32), owned)
    return Placement(np.stack(rows).astype(np.int32), np.tile(owner, (layers, 1)), experts, ranks)


def _lists(least: int, most: int, size: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(least, most), min_size=size, max_size=size)


def same(one: Placement, other: Placement) -> bool:
    return (
        (one.num_experts, one.num_ranks) == (other.num_experts, other.num_ranks)
        and np.array_equal(one.slot_expert, other.slot_expert)
        and np.array_equal(one.slot_rank, other.slot_rank)
    )


def reread(placement: Placement, name: str, suffix: str, frame: Frame, folder: Path) -> Placement:
    path = folder / f"placement{suffix}"
    write_placement(placement, path, name, frame)
    return read_placement(path, frame)


@pytest.mark.parametrize(
    ("name", "suffix"), [(name, suffix) for name in EVEN for suffix in REGISTRY[name].suffixes if suffix != ".yml"]
)
@given(placement=placements())
def test_what_was_written_is_read_back(
    name: str, suffix: str, placement: Placement, tmp_path_factory: pytest.TempPathFactory
) -> None:
    frame = Frame(placement.num_ranks, placement.num_experts)
    assert same(reread(placement, name, suffix, frame, tmp_path_factory.mktemp("p")), placement)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@given(placement=placements(even=False))
def test_omniinfer_keeps_uneven_devices_and_says_their_number(
    suffix: str, placement: Placement, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert same(reread(placement, "omniinfer", suffix, Frame(), tmp_path_factory.mktemp("p")), placement)


@given(placement=placements(), dense=st.integers(1, 3))
def test_dense_layers_are_left_out_again(
    placement: Placement, dense: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    total = placement.num_layers + dense
    frame = Frame(placement.num_ranks, placement.num_experts, tuple(range(dense, total)), total)
    rows = json.loads(written(placement, "sglang", frame).content)["physical_to_logical_map"]
    assert len(rows) == total
    assert all(set(row) == set(range(placement.num_experts)) for row in rows)  # a dense row names every expert too
    for name, suffix in (("sglang", ".json"), ("trtllm", ".yaml")):
        assert same(reread(placement, name, suffix, frame, tmp_path_factory.mktemp("p")), placement)


def test_a_placement_of_omniinfer_that_people_used(tmp_path: Path) -> None:
    placement = read_placement(OMNI)
    assert (placement.num_ranks, placement.num_layers, placement.num_experts) == (64, 58, 256)
    assert placement.num_slots == 320 and placement.replicas.max() == 12
    with np.load(OMNI) as stored:
        made = written(placement, "omniinfer", suffix=".npz")
        with np.load(io.BytesIO(made.content)) as again:
            assert np.array_equal(stored["placement"], again["placement"])
    assert same(reread(placement, "sglang", ".json", Frame(64, 256), tmp_path), placement)


def test_files_look_as_engines_write_them(tmp_path: Path) -> None:
    """By hand: two GPUs, three experts, the hot one twice."""
    placement = Placement(np.array([[0, 1, 0, 2]], np.int32), np.array([[0, 0, 1, 1]], np.int32), 3, 2)
    assert json.loads(written(placement, "sglang").content) == {"physical_to_logical_map": [[0, 1, 0, 2]]}
    assert json.loads(written(placement, "vllm").content) == {
        "physical_to_logical_map": [[0, 1, 0, 2]],
        "logical_to_physical_map": [[[0, 2], [1, -1], [3, -1]]],
        "logical_replica_count": [[2, 1, 1]],
    }
    assert written(placement, "trtllm", Frame(moe_layers=(3,), total_layers=4)).content.decode() == (
        "num_slots: 4\ninitial_global_assignments:\n  3: [0, 1, 0, 2]\nlayer_updates_per_iter: 0\n"
    )
    pattern = np.load(io.BytesIO(written(placement, "omniinfer").content))
    assert pattern.tolist() == [[[1, 1, 0]], [[1, 0, 1]]]


def test_a_bare_list_of_rows_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text("[[0, 1, 2, 3, 0, 1], [3, 2, 1, 0, 3, 2]]")
    assert read_placement(path, Frame(ranks=3)).replicas.tolist() == [[2, 2, 1, 1], [1, 1, 2, 2]]


UNEVEN = Placement(np.array([[0, 1, 2]], np.int32), np.array([[0, 0, 1]], np.int32), 3, 2)
TWICE = Placement(np.array([[0, 0, 1, 2]], np.int32), np.array([[0, 0, 1, 1]], np.int32), 3, 2)


@pytest.mark.parametrize("name", EVEN)
def test_uneven_devices_are_refused_by_engines_that_have_none(name: str) -> None:
    with pytest.raises(
        BadInput, match=r"equally many slots in every layer; here GPU 0 has 2 of 3 in layer 0.*omniinfer"
    ):
        written(UNEVEN, name)


@pytest.mark.parametrize("name", ["omniinfer", "vllm-ascend"])
def test_two_replicas_on_one_device_are_refused_by_engines_that_look_up_by_expert(name: str) -> None:
    with pytest.raises(BadInput, match="here GPU 0 has expert 0 of layer 0 twice"):
        written(TWICE, name)


MAP = "physical_to_logical_map"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", {MAP: [[0, 1, 2, 9]]}, f"a.json {MAP}: layer 0, slot 3: expert 9 is not below 4"),
        ("a.json", {MAP: [[0, 1, 2, 3], [0, 1, 2, 2]]}, "layer 1: expert 3 has no slot"),
        ("a.json", {MAP: [[0, 1, 2, 3], [0, 1, 2]]}, r"map\[1\]: has 3 slots, row 0 has 4"),
        ("a.json", {MAP: [[0, 1, 2, "3"]]}, r"map\[0\]: '3' at 3 is no expert's number"),
        ("a.json", {MAP: [[0, 1, 2, True]]}, "True at 3"),
        ("a.json", {MAP: [[0, 1, 2, 10**30]]}, "at 3 is no expert's number"),
        ("a.json", {MAP: [0, 1, 2, 3]}, r"map\[0\]: is no list of numbers"),
        ("a.json", {MAP: []}, "is no list of rows"),
        ("a.json", {MAP: [[0, 1, 2, 3, 0]]}, "5 slots do not divide over 2 GPUs. Try: 1, 5 GPUs"),
        ("a.json", {"logical_count": [[1, 2]]}, "is no placement that is known"),
        ("a.json", {"phy2log": [[0, 1, 2, 3]], "logcnt": [[1, 1, 2, 1]]}, "expert 2 has 2 replicas, phy2log says 1"),
        ("a.json", {"phy2log": [[0, 1, 2, 3]], "log2phy": [[[0], [1], [3], [2]]]}, "slots of expert 2 are not those"),
        ("a.json", {"moe_layer_count": 2, "layer_list": [{}]}, r"holds 1 layers, moe_layer_count says 2. Try: .*: 1"),
        ("a.json", {"moe_layer_count": 1, "layer_list": {}}, "is no list of layers"),
        (
            "a.json",
            {"phy2log": [[0, 1, 2, 3]], "log2phy": [[0, 1]]},
            r"log2phy\[0\]: is no list of rows|no list of numbers",
        ),
        ("a.json", {"phy2log": [[0, 1, 2, 3]], "log2phy": []}, r"is not \[layers, experts, replicas\]"),
        ("a.json", {"phy2log": [[0, 1, 2, 3]], "logcnt": [[1, 1, 1, 1]] * 2}, r"is \[2, 4\], phy2log says \[1, 4\]"),
        ("a.json", {"moe_layer_count": 1, "layer_list": [{}]}, r"layer_list\[0\]: has no device_list"),
        ("a.json", "{", "a.json:1:2: is not JSON"),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.json", '{"a": 1, "a": 2}', "a key stands twice"),
        ("a.json", '{"a": NaN}', "NaN is no number"),
        ("a.yaml", "num_slots: 4\ninitial_global_assignments: {0: [0, 1, 2]}\n", "has 3 experts, num_slots is 4"),
        ("a.yaml", "num_slots: 4\ninitial_global_assignments: {x: [0]}\n", "no mapping from layer numbers"),
        ("a.yaml", "initial_global_assignments: {0: [0]}\n", "lacks num_slots"),
        ("a.yaml", "num_slot: 4\ninitial_global_assignments: {0: [0]}\n", "did you mean 'num_slots'"),
        ("a.pt", "", "moesim trace unpack"),
        ("a", "", "file without a suffix"),
        ("a.npz", "not a zip", "damaged or no npz"),
    ],
)
def test_a_broken_file_is_one_line_that_names_the_place(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(BadInput, match=message) as caught:
        read_placement(path, Frame(ranks=2, experts=4))
    assert "\n" not in str(caught.value) and ". Try: " in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[0, 1, None]], dtype=object), "holds object, not numbers"),
        (np.zeros((2, 3)), r"shape \[2, 3\]"),
        (np.full((1, 1, 2), 2), "device 0, layer 0, expert 0 is 2, not 0 or 1"),
        (np.array([[[1, 0]], [[1, 0]]]), "expert 1 has no slot"),
        (np.full((1, 1, 2), np.nan), "not 0 or 1"),
    ],
)  # fmt: skip
def test_a_broken_array_is_refused(tmp_path: Path, array: np.ndarray[Any, Any], message: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez_compressed(tmp_path / "a.npz", placement=array)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(BadInput, match=f"{message}.*. Try: "):
            read_placement(tmp_path / name)


def test_a_zip_bomb_is_refused_unread(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", placement=np.zeros((1 << 13, 1 << 12), dtype=np.uint8))
    with pytest.raises(BadInput, match="zip bomb"):
        open_source(tmp_path / "a.npz")


def test_models_and_clusters_that_a_file_is_not_for_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_placement(PLAIN, path, "sglang")
    with pytest.raises(BadInput, match="has 2 rows, SGLang wants one for each of 5 layers"):
        read_placement(path, Frame(2, 4, (3, 4), 5))
    with pytest.raises(BadInput, match="does not say how many GPUs"):
        read_placement(path)
    with pytest.raises(BadInput, match="is for 64 GPUs, not 8"):
        read_placement(OMNI, Frame(ranks=8))
    with pytest.raises(BadInput, match="is for 256 experts, not 128"):
        read_placement(OMNI, Frame(experts=128))


def test_names_of_formats_and_files() -> None:
    assert format_for(Path("a.npy"), None).name == "omniinfer"
    assert format_for(Path("a.yaml"), None).name == "trtllm"
    with pytest.raises(BadInput, match="not told by its name.*--format"):
        format_for(Path("a.json"), None)
    with pytest.raises(BadInput, match="sglang is not written there. Try: a file .json"):
        format_for(Path("a.npz"), "sglang")
    with pytest.raises(MoesimError, match="did you mean 'sglang'"):
        find_format("sglan")


def test_a_pattern_whose_layers_differ_in_slots_comes_back_as_it_was(tmp_path: Path) -> None:
    """Two of four public patterns of omni-infer have hot layers alone replicated."""
    pattern = np.array([[[1, 1, 0], [1, 1, 1]], [[0, 0, 1], [1, 0, 1]]], dtype=np.int32)
    np.save(tmp_path / "a.npy", pattern)
    placement = read_placement(tmp_path / "a.npy")
    assert placement.owned.tolist() == [[2, 1], [3, 2]]
    write_placement(placement, tmp_path / "b.npy")
    assert np.array_equal(np.load(tmp_path / "b.npy"), pattern)
    with pytest.raises(BadInput, match="in every layer"):
        written(placement, "sglang", Frame(2, 3, (0, 1), 2))
