"""`moesim validate training` from the command line, on one published row whose memory is counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

HEADER = "case,model,layers,gpus,tp,cp,pp,dp,ep,micro_batches,mbs,seq,precision,real_ms,real_alloc_gib"
ROW = "llama,llama3-70b,12,8,8,1,1,1,1,4,1,4096,bf16,280.9,28.29"


def test_memory_by_hand(moesim, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """TP 8, no replicas: 18 bytes a parameter; activations and logits over 8."""
    table = tmp_path / "rows.csv"
    table.write_text(f"{HEADER}\n{ROW}\n")
    done = moesim("validate", "training", "--data", str(table), "--json")
    rows = json.loads(done.out)["provenance"]["rows"]
    h, f, kv, vocabulary, tokens = 8192, 28672, 1024, 128256, 4096
    parameters = (12 * (h * (h + 2 * kv) + h * h + 3 * h * f) + 2 * vocabulary * h) // 8
    saved = 2 * 12 * tokens * (4 * h + 2 * h + 2 * kv + 3 * f) // 8
    ends = 2 * vocabulary * h // 8  # autograd has the gradient of one table at a time
    ends += 6 * tokens * vocabulary // 8
    found = next(row for row in rows if row["what"] == "memory")["predicted"] * 2**30
    assert found == pytest.approx(18 * parameters + saved + ends, rel=1e-9)


def test_a_table_without_the_columns_is_refused(moesim, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    table = tmp_path / "rows.csv"
    table.write_text("a,b\n1,2\n")
    done = moesim("validate", "training", "--data", str(table))
    assert "no column 'model'" in done.err


BRIDGE = "container,system,model,gpus,precision,gbs,mbs,seq,tp,pp,cp,vp,ep,tokens_per_s_per_gpu"
OF = "DGX-GB200,Qwen3_30B_a3B,8,MXFP8,512,4,4096,1,1,1,n/a,8"


def test_the_newest_container_of_a_configuration_counts(moesim, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Three containers, 26.06 the newest: later recipes hide all-to-alls; GB300 is priced as GB200."""
    table = tmp_path / "rows.csv"
    rows = [f"26.04.01,{OF},26112", f"26.06,{OF},40706", f"25.11,{OF.replace('GB200', 'GB300')},28934"]
    table.write_text("\n".join((BRIDGE, *rows)) + "\n")
    document = json.loads(moesim("validate", "training", "--data", str(table), "--json").out)
    early, late, other = document["provenance"]["rows"]
    assert late["predicted"] > 1.2 * early["predicted"] and "a2a hidden" in late["case"]
    assert "hidden" not in early["case"] + other["case"]
    wrong = [row["predicted"] / row["measured"] - 1 for row in (late, other)]
    assert document["metrics"]["throughput_median_abs_error"]["value"] == pytest.approx(sum(map(abs, wrong)) / 2)
    assert document["metrics"]["answered_fraction"]["value"] == 1
    assert "gb200: arithmetic at 0.804 of the clock" in document["provenance"]["clock"]


@pytest.mark.parametrize(("row", "said"), [
    (f"{HEADER}\n{ROW.replace('4096', '1e300')}", "seq '1e300'"),
    (f"{BRIDGE}\n26.²,{OF.replace(',512,', ',5,')},1", "gbs 5 is no multiple"),
    (f"{BRIDGE},fsdp\n26.06,{OF},1,2", "fsdp '2'"),
])  # fmt: skip
def test_cells_that_are_not_understood_are_named(moesim, tmp_path: Path, row: str, said: str) -> None:  # type: ignore[no-untyped-def]
    table = tmp_path / "rows.csv"
    table.write_text(f"{row}\n")
    done = moesim("validate", "training", "--data", str(table))
    assert done.code == 2 and said in done.err, done.err


def test_what_was_chosen_in_view_of_which_rows_is_said(moesim, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    table = tmp_path / "rows.csv"
    table.write_text(f"{HEADER}\n{ROW}\n")
    document = json.loads(moesim("validate", "training", "--data", str(table), "--json").out)
    said = document["provenance"]["held_out"].partition("megatron_bridge_dev in view")[2]
    for words in ("dispatcher", "hidden all-to-alls", "FP8 attention", "DeepEP needs no copies"):
        assert words in said
