"""Scenarios: files, overrides, hashes, and everything a careless user writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from moesim import shipped
from moesim.errors import BadInput, DoesNotFit, MoesimError
from moesim.studies import load, run
from moesim.studies.build import build, draft
from moesim.studies.load import FOLDER
from moesim.studies.serving import is_serving
from moesim.studies.training import is_training

SHIPPED = sorted(name for name in shipped.names(FOLDER, ".yaml") if not is_serving(name) and not is_training(name))
BASE = (shipped.shipped(FOLDER) / "demo-qwen3.yaml").read_text(encoding="utf-8")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_scenario_loads(name: str) -> None:
    assert load(name).scenario.name == name


def test_the_hash_knows_content_and_not_order_or_name(tmp_path: Path) -> None:
    lines = BASE.splitlines()
    swapped = "\n".join([lines[0], *reversed(lines[3:]), "name: other", "description: x"])
    digest = load("demo-qwen3").scenario.digest
    assert load(write(tmp_path, swapped)).scenario.digest == digest
    assert load("demo-qwen3", ["batch.context=1024"]).scenario.digest != digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("batch.contxt=1", "--set batch.contxt: unknown key 'contxt'.*did you mean 'context'"),
        ("tensor_parallel_size=2", "unknown key 'tensor_parallel_size'. Try: parallel.tensor_parallel_size;"),
        ("cluster.window=2", "unknown key 'window'. Try: known: "),
        ("batch=3", "--set batch: has to be a section of keys, not 3"),
        ("faults=3", "--set faults: has to be a list, not 3"),
        ("overlap.degree=maybe", "has to be a valid integer or 'auto', not 'maybe'"),
        ("network.background=1", "has to be less than 1, not 1"),
        ("batch.tokens_per_gpu=1e0", "not '1e0'"),
        ("batch.tokens_per_gpu=-1", "greater than or equal to 1"),
        ("cluster.oversubscription=nan", "not 'nan'"),
        ("overlap.schedule=two_bach", "--set overlap.schedule: unknown schedule.*two_batch"),
        ("comm.dispatch=deepep", "--set comm.dispatch: unknown all-to-all"),
        ("costs=h100", "unknown cost profile 'h100'.*h100_sxm"),
        ("model=Qwen3-31B", "--set model: unknown model"),
        ("cluster.topology=dgx-h101", "--set cluster.topology: unknown topology.*dgx-h100"),
        (
            "parallel.expert_parallel_size=3",
            "--set parallel.expert_parallel_size: expert_parallel_size 3 does not divide 8",
        ),
        ("parallel.data_parallel_size=16", "the cluster has 8 GPUs.*cluster.nodes: 2"),
        ("experts.redundant=3", "do not divide over 8 ranks.*redundant: 0"),
        ("experts.redundant=1000000000", "hold some twice. Try: redundant: [0-9]+ or less"),
        ("experts.redundant=8", "need a placement that uses them"),
        ("experts.placement=gredy", "--set experts.placement: unknown placement strategy.*did you mean 'greedy'"),
        ("experts.placement=nowhere.json", "nowhere.json: cannot be read"),
        ("routing.transplant=false", "transplant: true"),
        ("routing.balanced=true", "exactly one of"),
        ("faults=[{rank: 1}]", r"faults\[0\].at: missing, and has no default \(.*\). Try: at: "),
        ("batch={tokens_per_gpu: 1, context: 1}", r"batch.phase: missing.* Try: phase: decode or prefill or train"),
        ("faults=[{at: 1 ms, nic: 0}]", r"unknown key 'nic'. Try: known: at, "),
        ("nonsense", "not key=value"),
    ],
)
def test_a_careless_override_is_one_line_with_the_way_out(change: str, message: str) -> None:
    with pytest.raises(MoesimError, match=message) as caught:
        run(load("demo-qwen3", [change]))
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_only_the_kernel_that_carries_the_rows_lends_its_constants_and_holds_its_sms() -> None:
    changes = ["comm={dispatch: deepep_normal, version: V2}"]
    wide = ["cluster.nodes=2", "parallel={data_parallel_size: 16, expert_parallel_size: 16}"]
    inside, between = (build(load("demo-tiny", more), 0) for more in (changes, [*changes, *wide]))
    assert inside.plan.dispatch.slowdown == 132 / (132 - 64) and between.plan.dispatch.slowdown == 132 / (132 - 12)
    assert not any(note.startswith("deepep_normal@V2:") for note in inside.warnings)
    assert any(note.startswith("deepep_normal@V2: constants were fitted on H800") for note in between.warnings)
    alone = build(load("demo-tiny", ["parallel.expert_parallel_size=1"]), 0)
    assert not any("deepep" in note for note in alone.warnings)


def test_what_was_published_stands_beside_the_system_that_it_is_of() -> None:
    name = "dsv3-decode-ep72"
    assert load(name, ["network.level=port_load", "costs=h100_sxm"]).scenario.published is not None
    other = load(name, {"batch": {"context": 1000}})
    assert other.scenario.published is None
    again = load(other, ["network.level=port_load"])
    assert again.scenario.published is None and again.unlike == ("batch.context",)
    assert load(name, ["cluster.nodes=9"]).scenario.published is not None  # as it stands in the file
    own = load(name, ["cluster.nodes=10", "published={tokens_per_s_per_node: 12345, source: mine}"])
    assert own.scenario.published is not None and own.unlike == ()
    told = "the published figure is left out: it is of this scenario without --set batch.context"
    assert told in draft(other, 0).routing_notes
    assert not any("published" in note for note in draft(load("demo-tiny", ["batch.context=9"]), 0).routing_notes)


def test_collectives_that_nobody_asks_for_lend_no_constants() -> None:
    gb200 = ["cluster.topology=gb200-nvl72", "cluster.nodes=1", "parallel.expert_parallel_size=8"]
    apart = [*gb200, "parallel.data_parallel_size=8"]
    summed = [*gb200, "parallel={data_parallel_size: 4, tensor_parallel_size: 2, expert_parallel_size: 8}"]
    for changes, said in ((apart, False), (summed, True)):
        notes = build(load("demo-qwen3", changes), 0).warnings
        assert any(note.startswith("nccl_nvls: constants were fitted on B200") for note in notes) == said
    h20 = build(load("demo-tiny", ["cluster.topology=h20"]), 0)
    assert not any(note.startswith("nccl") for note in h20.warnings)
    assert h20.plan.fabric.lent("nccl")[0].startswith("nccl: constants were fitted on H200")


def test_a_model_that_does_not_fit_is_exit_code_3_with_the_table() -> None:
    with pytest.raises(DoesNotFit, match="HBM needs .* KV cache") as caught:
        run(load("demo-qwen3", ["batch.context=200000"]))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE.replace("context: 2048", "context: 2048, context: 1"), "s.yaml:6.*stands twice"),
        (BASE.replace("phase: decode", "phase: decod"), "s.yaml:6 batch.phase"),
        (BASE.replace("moesim: 1", "moesim: 2"), "format version 2"),
        (BASE + "\n---\na: 1\n", "second document"),
        ("", "top level is empty"),
    ],
)
def test_a_broken_file_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load(write(tmp_path, text))


def test_a_missing_file_is_said() -> None:
    with pytest.raises(BadInput, match="nowhere.yaml: cannot be read"):
        load("nowhere.yaml")


INLINE = """
model:
  name: own
  hidden_size: 1024
  num_layers: 4
  vocab_size: 32000
  attention: {num_heads: 8, num_kv_heads: 2, head_dim: 128}
  num_experts: 64
  top_k: 2
  expert_intermediate: 512
"""


def with_inline_model(tmp_path: Path, inline: str) -> Path:
    lines = [line for line in BASE.splitlines() if not line.startswith("model:")]
    return write(tmp_path, "\n".join(lines) + inline)


def test_a_model_of_ones_own_is_described_in_the_scenario(tmp_path: Path) -> None:
    result = run(load(with_inline_model(tmp_path, INLINE)))
    assert result.provenance["model"] == "own" and result.metrics["step_time_s"].value > 0


def test_a_wrong_key_of_an_inline_model_is_named_with_its_line(tmp_path: Path) -> None:
    wrong = with_inline_model(tmp_path, INLINE.replace("top_k: 2", "topk: 2"))
    with pytest.raises(BadInput, match=r"s.yaml:\d+ model.topk: unknown key 'topk'. Try: did you mean 'top_k'"):
        load(wrong)
    missing = with_inline_model(tmp_path, INLINE.replace("  top_k: 2\n", ""))
    with pytest.raises(BadInput, match=r"s.yaml:\d+ model.inline: top_k is missing"):
        load(missing)


def test_costs_of_another_device_are_said_to_be_borrowed() -> None:
    warnings = run("demo-tiny", overrides=["cluster.topology=dgx-a100", "costs=h100_sxm"]).warnings
    assert any("are carried to the rates of A100" in text for text in warnings)


@pytest.mark.parametrize(
    ("routing", "message"),
    [
        ("{router: top_q}", "routing.router: unknown router 'top_q'.*did you mean 'top_p'"),
        ("{router: {name: top_p, q: 1.0}}", "unknown key 'q'"),
        ("{router: topk_softmax, trace: tiny-moe}", "needs logits, and it has none"),
        ("{router: topk_softmax, balanced: true}", "others give expert ids only"),
        ("{generator: {scale: 2.0}}", "a router's: name one"),
        ("{warm_up: 3, balanced: true}", "a router's: name one"),
        ("{}", "exactly one of trace, sampled, balanced, or a router"),
    ],
)
def test_routers_that_cannot_be_are_refused(routing: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        run(load("demo-tiny", [f"routing={routing}"]))


def test_the_result_says_what_the_router_did() -> None:
    result = run(load("demo-tiny", ["routing={router: {name: gshard_top2, cf: 0.5}}"]))
    router = result.provenance["router"]
    assert router["batch_dependent"] and 0.2 < router["drop_rate"] < 0.8 and router["mean_k"] < 1.4
    assert result.provenance["routing"] == "generated, assumed"
    mixed = run(load("demo-tiny", ["routing={router: sinkhorn_base}"]))
    assert any("counted, not priced: shuffle all to alls" in text for text in mixed.warnings)


@pytest.mark.parametrize("key", ["batch.micro_batches=2", "training.recompute=[moe]"])
def test_keys_of_training_are_refused_elsewhere(key: str) -> None:
    with pytest.raises(BadInput, match="of training only"):
        load("demo-tiny", [key])


def test_a_start_up_that_was_measured_needs_no_word() -> None:
    told = build(load("demo-tiny", ["comm.dispatch=deepep_normal"]), 0).warnings
    assert not any("start-up was not" in warning for warning in told)
    assert not any("start-up" in warning for warning in build(load("demo-tiny"), 0).warnings)


def test_a_section_given_at_once_names_the_key_inside_it() -> None:
    with pytest.raises(BadInput, match=r"--set routing: routing.generator.popularity.zipf: .* not -1"):
        load("demo-tiny", ["routing={router: top_p, generator: {popularity: {zipf: -1}}}"])
