"""The native file: what goes in comes out, windows read their own blocks, and damage is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.routing import RoutingTrace, make_trace, open_trace, read_trace, write_trace


@pytest.fixture
def file(trace: RoutingTrace, tmp_path: Path) -> Path:
    path = tmp_path / "t.parquet"
    write_trace(trace, path, block_tokens=128)
    return path


def same(a: RoutingTrace, b: RoutingTrace) -> bool:
    columns = ("expert", "request", "position", "phase", "domain", "step", "source_rank", "weight")
    return a.header == b.header and all(np.array_equal(getattr(a, c), getattr(b, c)) for c in columns)


def test_a_written_trace_reads_back_bit_for_bit(trace: RoutingTrace, file: Path) -> None:
    assert same(read_trace(file), trace)


def test_writing_twice_gives_the_same_bytes_and_leaves_nothing_behind(trace: RoutingTrace, file: Path) -> None:
    first = file.read_bytes()
    write_trace(trace, file, block_tokens=128)
    assert file.read_bytes() == first and [p.name for p in file.parent.iterdir()] == ["t.parquet"]


def test_a_window_reads_its_own_blocks_only(trace: RoutingTrace, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_trace(file)
    read: list[int] = []
    original = type(opened)._block
    monkeypatch.setattr(type(opened), "_block", lambda self, b: read.append(b) or original(self, b))  # type: ignore[func-returns-value]
    window = opened.window(130, 260)
    assert read == [1, 2] and np.array_equal(window.expert, trace.expert[130:260])


def test_counts_of_any_window_equal_a_plain_count(trace: RoutingTrace, file: Path) -> None:
    opened = open_trace(file)
    for start, stop in ((0, 600), (0, 128), (5, 6), (127, 385), (256, 512), (599, 600)):
        plain = np.stack([np.bincount(trace.expert[start:stop, n].ravel(), minlength=16) for n in range(3)])
        assert np.array_equal(opened.counts(start, stop), plain)
        assert np.array_equal(trace.counts(start, stop), plain)


def test_one_flipped_bit_is_refused_or_harmless(trace: RoutingTrace, file: Path) -> None:
    data, rng, refused = bytearray(file.read_bytes()), np.random.default_rng(0), 0
    for _ in range(150):
        where, bit = int(rng.integers(len(data))), 1 << int(rng.integers(8))
        data[where] ^= bit
        file.write_bytes(data)
        try:
            assert same(read_trace(file), trace)
        except BadInput:
            refused += 1
        data[where] ^= bit
    assert refused > 120


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.7, 0.99])
def test_a_truncated_file_is_refused(file: Path, kept: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(BadInput, match="damaged"):
        read_trace(file)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.parquet", tmp_path):
        with pytest.raises(BadInput, match="no such file"):
            open_trace(path)


def broken(trace: RoutingTrace, token: int, layer: int, choice: int, value: int) -> RoutingTrace:
    expert = trace.expert.copy()
    expert[token, layer, choice] = value
    return replace(trace, expert=expert)


def test_an_expert_out_of_range_names_step_layer_and_token(trace: RoutingTrace) -> None:
    with pytest.raises(BadInput, match="step 2, layer 1, token 120: expert 16 is not below 16"):
        broken(trace, 120, 1, 2, 16)


def test_an_expert_chosen_twice_names_step_layer_and_token(trace: RoutingTrace) -> None:
    with pytest.raises(BadInput, match=r"step 0, layer 2, token 7: expert .* is chosen twice"):
        broken(trace, 7, 2, 3, int(trace.expert[7, 2, 0]))


def test_a_weight_that_is_no_number_names_step_layer_and_token(trace: RoutingTrace) -> None:
    assert trace.weight is not None
    weight = trace.weight.copy()
    weight[55, 1, 0] = np.nan
    with pytest.raises(BadInput, match="step 1, layer 1, token 55: a weight is not a finite number"):
        replace(trace, weight=weight)


def test_wrong_k_zero_tokens_and_a_bad_domain_are_refused(trace: RoutingTrace) -> None:
    with pytest.raises(BadInput, match="the header says"):
        replace(trace, expert=trace.expert[:, :, :3])
    with pytest.raises(BadInput, match="no tokens"):
        trace.window(5, 5)
    with pytest.raises(BadInput, match=r"token 0: domain 2 is not in 0\.\.1"):
        replace(trace, domain=np.full_like(trace.domain, 2))


def test_negative_ids_and_floats_are_refused_where_traces_are_made(trace: RoutingTrace) -> None:
    with pytest.raises(BadInput, match="layer 0, token 0: expert -2"):
        make_trace(trace.header, np.full((1, 3, 4), -2))
    with pytest.raises(BadInput, match="not integers"):
        make_trace(trace.header, np.zeros((1, 3, 4)))


def test_the_same_position_of_a_request_twice_is_refused(trace: RoutingTrace) -> None:
    position = trace.position.copy()
    position[1] = 0
    with pytest.raises(BadInput, match="request 0 has position 0 twice"):
        _ = replace(trace, position=position).by_request
