"""What an engine recorded comes in, goes out and is the same; what is hostile or broken stays out."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moesim.errors import BadInput
from moesim.routing import RoutingTrace
from moesim.routing.arrays import read_npy, read_npz, read_safetensors, write_npz
from moesim.routing.importers import REGISTRY, Options
from moesim.routing.importers.look import look
from moesim.routing.loads import LoadRecord, loads_of

TOKENS = sorted(name for name, form in REGISTRY.items() if form.tokens and name not in {"exflow", "router-logits"})
COUNTS = sorted(name for name, form in REGISTRY.items() if not form.tokens)


def with_dense_layer(trace: RoutingTrace) -> RoutingTrace:
    evidence = {"layer_ids": [1, 2, 3], "total_layers": 4}
    return replace(trace, header=replace(trace.header, evidence=evidence))


def imported(name: str, path: Path, options: Options | None = None) -> RoutingTrace | LoadRecord:
    return REGISTRY[name].read(path, options or Options())


def content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(path.iterdir())
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_that_are_exported_and_imported_are_the_same(name: str, trace: RoutingTrace, tmp_path: Path) -> None:
    REGISTRY[name].write(with_dense_layer(trace), tmp_path / "out")
    back = imported(name, tmp_path / "out")
    assert isinstance(back, RoutingTrace) and back.header.num_experts == 16
    order = np.lexsort((trace.position, trace.request))
    given = np.sort(trace.expert[order] if name != "flame-moe" else trace.expert, axis=2)
    found = back.expert[np.lexsort((back.position, back.request))] if name != "flame-moe" else back.expert
    assert np.array_equal(np.sort(found, axis=2), given)
    assert back.header.evidence["layer_ids"] == [1, 2, 3]


@pytest.mark.parametrize("name", [*TOKENS, *COUNTS])
def test_an_import_followed_by_an_export_is_the_identity(name: str, trace: RoutingTrace, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "out", tmp_path / "b" / "out"
    first.parent.mkdir()
    second.parent.mkdir()
    record = with_dense_layer(trace) if REGISTRY[name].tokens else loads_of(trace)
    REGISTRY[name].write(record, first)
    REGISTRY[name].write(imported(name, first), second)
    assert content(first) == content(second)


def test_exflow_keeps_the_heaviest_expert(trace: RoutingTrace, tmp_path: Path) -> None:
    REGISTRY["exflow"].write(trace, tmp_path / "trace.npy")
    back = imported("exflow", tmp_path / "trace.npy")
    assert isinstance(back, RoutingTrace) and np.array_equal(back.expert[:, :, 0], trace.expert[:, :, 0])


def test_counts_survive_and_dense_layers_are_skipped(trace: RoutingTrace, tmp_path: Path) -> None:
    loads = loads_of(trace)
    wide = replace(loads, layer_ids=(3, 4, 5), total_layers=6)
    for name in ("sglang-stat", "sglang-per-pass", "vllm-eplb"):
        REGISTRY[name].write(wide, tmp_path / name)
        back = imported(name, tmp_path / name)
        assert (
            isinstance(back, LoadRecord) and back.layer_ids == (3, 4, 5) and np.array_equal(back.counts, loads.counts)
        )


def test_tensorrt_llm_counts_keep_their_source_rank(trace: RoutingTrace, tmp_path: Path) -> None:
    loads = loads_of(trace)
    REGISTRY["trtllm"].write(loads, tmp_path / "stat")
    back = imported("trtllm", tmp_path / "stat")
    assert isinstance(back, LoadRecord) and back.by_source is not None and loads.by_source is not None
    assert np.array_equal(back.by_source, loads.by_source) and back.by_source.shape[1] == 4


def test_ranks_of_a_pass_add_up_and_replicas_become_one_expert(tmp_path: Path) -> None:
    counts = np.array([[[1, 2, 3]], [[10, 20, 30]], [[5, 5, 5]]])
    path = tmp_path / "pass.npz"
    write_npz(
        path,
        forward_pass_id=[7, 7, 9],
        rank=[0, 1, 0],
        global_physical_count=counts,
        last_physical_to_logical_map=[[1, 0, 1]],
    )
    back = imported("sglang-per-pass", path)
    assert isinstance(back, LoadRecord) and back.counts.tolist() == [[[22, 44]], [[5, 10]]]


def test_physical_ids_of_tokens_become_logical_and_requests_continue(tmp_path: Path) -> None:
    ids = np.full((5, 2, 8), -1)
    ids[:, 1, :2] = [[0, 1], [2, 1], [3, 0], [1, 3], [0, 2]]
    rows = {"input_ids": [5, 6, 7, 8, 9], "positions": [0, 1, 0, 2, 1], "forward_pass_id": [0, 0, 0, 1, 1]}
    path = tmp_path / "token.npz"
    write_npz(
        path,
        topk_ids=ids,
        last_physical_to_logical_map=[[0, 1, 2, 3], [2, 1, 0, 0]],
        rank=[0] * 5,
        forward_mode=[1, 1, 1, 2, 2],
        sequence=[0, 0, 1, 0, 1],
        **rows,
    )
    back = imported("sglang-per-token", path)
    assert isinstance(back, RoutingTrace)
    assert back.request.tolist() == [0, 0, 1, 0, 1] and back.phase.tolist() == [0, 0, 0, 1, 1]
    assert back.expert[:, 0].tolist() == [[2, 1], [0, 1], [0, 2], [1, 0], [2, 0]]


def test_softmax_logits_choose_the_largest_and_weigh_them(tmp_path: Path) -> None:
    logits = np.log(np.array([[[0.1, 0.2, 0.3, 0.4]]], dtype=np.float32))
    write_npz(tmp_path / "l.npz", router_logits=logits)
    back = imported("router-logits", tmp_path / "l.npz", Options(top_k=2))
    assert isinstance(back, RoutingTrace) and back.weight is not None and back.expert[0, 0].tolist() == [3, 2]
    assert np.allclose(back.weight[0, 0], [4 / 7, 3 / 7], atol=1e-3)


def test_deepseek_logits_keep_the_group_limit(tmp_path: Path, shape: Callable[..., object]) -> None:
    logits = np.random.default_rng(0).normal(size=(2, 50, 32)).astype(np.float32)
    write_npz(tmp_path / "l.npz", router_logits=logits, bias=np.zeros((2, 32)))
    model = shape("grouped", (0, 1), 32, 4, 8, 2)
    back = imported("router-logits", tmp_path / "l.npz", Options(model=model, rule="sigmoid-groups"))  # type: ignore[arg-type]
    assert isinstance(back, RoutingTrace)
    groups = np.sort(back.expert // 4, axis=2)
    assert (1 + (np.diff(groups, axis=2) != 0).sum(axis=2)).max() <= 2


def test_logits_survive_an_export(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float16)
    write_npz(tmp_path / "a.npz", router_logits=logits)
    back = imported("router-logits", tmp_path / "a.npz", Options(top_k=2))
    REGISTRY["router-logits"].write(back, tmp_path / "b.npz")
    assert np.array_equal(read_npz(tmp_path / "b.npz", ("router_logits",))["router_logits"], logits)


def test_another_models_file_is_refused(trace: RoutingTrace, tmp_path: Path, deepseek: object) -> None:
    REGISTRY["vllm-returned"].write(trace, tmp_path / "out")
    with pytest.raises(BadInput, match="deepseek-ai/DeepSeek-V3 has 58 with top-8"):
        imported("vllm-returned", tmp_path / "out", Options(model=deepseek))  # type: ignore[arg-type]


def npy(array: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(array), allow_pickle=True)
    return stream.getvalue()


def test_object_arrays_are_never_unpickled() -> None:
    data = npy(np.array([{"a": 1}, None], dtype=object))
    with pytest.raises(BadInput, match="never unpickled"):
        read_npy(io.BytesIO(data), len(data), "x")


def test_a_header_that_claims_terabytes_is_refused() -> None:
    data = npy(np.zeros(3)).replace(b"(3,), }", b"(1000000000000,), }")
    with pytest.raises(BadInput, match="claims"):
        read_npy(io.BytesIO(data), len(data), "x")


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", logical_count=np.zeros((1, 1 << 13, 1 << 11), dtype=np.uint8))
    with pytest.raises(BadInput, match="zip bomb"):
        imported("sglang-stat", tmp_path / "bomb.npz")


def test_truncated_and_flipped_npz_are_refused(trace: RoutingTrace, tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    REGISTRY["sglang-stat"].write(loads_of(trace), path)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput):
        imported("sglang-stat", path)
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInput):
        imported("sglang-stat", path)


def test_torch_files_point_to_the_unpacking_step(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="moesim trace unpack"):
        imported("sglang-stat", tmp_path / "x.pt")


def test_requests_are_no_routing_and_are_told_where_they_belong(tmp_path: Path) -> None:
    path = tmp_path / "mooncake.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [0, 1]}\n')
    with pytest.raises(BadInput, match=r"holds requests, and no routing.*replay.file: .*mooncake.jsonl"):
        look(path)


def test_a_bad_line_is_named(trace: RoutingTrace, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    REGISTRY["vllm-returned"].write(trace, path)
    path.write_text(path.read_text() + json.dumps({"choices": [{"routed_experts": "!!"}]}) + "\n")
    with pytest.raises(BadInput, match=r"r\.jsonl:25: no routed experts"):
        imported("vllm-returned", path)


def test_a_repeated_expert_in_a_response_names_layer_and_token(tmp_path: Path) -> None:
    ids = np.array([[[1, 2]], [[3, 3]]], dtype=np.uint8)
    answer = {"choices": [{"routed_experts": base64.b64encode(npy(ids)).decode()}]}
    (tmp_path / "r.jsonl").write_text(json.dumps(answer))
    with pytest.raises(BadInput, match="layer 0, token 1: expert 3 is chosen twice"):
        imported("vllm-returned", tmp_path / "r.jsonl")


def test_safetensors_that_lie_about_their_size_are_refused(trace: RoutingTrace, tmp_path: Path) -> None:
    REGISTRY["trtllm"].write(loads_of(trace), tmp_path / "stat")
    path = tmp_path / "stat" / "rank0.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"shape":[16]', b'"shape":[99]', 1))
    with pytest.raises(BadInput, match="claims"):
        read_safetensors(path)


def test_torch_recordings_unpack_without_running_code(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from moesim.routing.unpack import unpack

    torch.save({"rank": 0, "logical_count": torch.arange(12).reshape(2, 2, 3)}, tmp_path / "a.pt")
    assert unpack([tmp_path / "a.pt"], tmp_path / "a.npz") == "sglang-stat"
    back = imported("sglang-stat", tmp_path / "a.npz")
    assert isinstance(back, LoadRecord) and back.counts.sum() == 66
    torch.save([torch.arange(8).reshape(4, 2), torch.arange(8).reshape(4, 2)], tmp_path / "r.pt")
    assert unpack([tmp_path / "r.pt"], tmp_path / "r.npz") == "megatron-replay"
    replayed = imported("megatron-replay", tmp_path / "r.npz")
    assert isinstance(replayed, RoutingTrace) and replayed.expert[1, 1].tolist() == [2, 3]
    torch.save({"logical_count": Path("/")}, tmp_path / "evil.pt")
    with pytest.raises(BadInput, match="torch refuses it"):
        unpack([tmp_path / "evil.pt"], tmp_path / "evil.npz")
