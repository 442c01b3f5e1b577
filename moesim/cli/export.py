"""`moesim export`."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("run")
@click.option(
    "--as", "form", required=True, metavar="FORMAT", help="vllm, aiperf, parquet (served); flows, chakra (a step)."
)
@click.option("-o", "--out", required=True, metavar="FILE", help="Where to write; - for stdout. chakra: a new folder.")
def export(run: str, form: str, out: str) -> None:
    """Write stored RUN as other tools write theirs. A folder, a result.json, or the first digits of a hash.

    vllm: the JSON of `vllm bench serve`. aiperf: AIPerf's profile_export.jsonl. parquet: a row a request. flows: CSV
    for packet simulators, a flow a line. chakra: a folder of Chakra execution traces, chakra.RANK.et, for ASTRA-sim.
    """
    from moesim import atomic
    from moesim.errors import BadInput
    from moesim.report import stored
    from moesim.report.exports import exported

    content = exported(stored.open_run(run), form)
    if not isinstance(content, bytes):
        if out == "-" or Path(out).exists():
            raise BadInput("is no new folder", where=f"-o {out}", way_out="another name")
        with atomic.folder(Path(out)) as part:
            for name, one in content.items():
                (part / name).write_bytes(one)
        print(out)
        return
    if out == "-":
        sys.stdout.buffer.write(content)
        return
    atomic.write(Path(out), content)
    print(out)
