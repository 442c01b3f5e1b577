"""`moesim calibrate import`, `fit` and `check`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moesim.cli.options import OptionalFiles, json_option, print_json, refuse_idle, text_stream
from moesim.errors import BadInput

if TYPE_CHECKING:
    from moesim.calibration.records import Records
    from moesim.calibration.shapes_file import Shape

FILE = click.Path(path_type=Path)
SYSTEMS = click.option(
    "--systems", type=FILE, help="Devices and constants of one's own, over the shipped calibration/systems.yaml."
)
TOPOLOGY = click.option("--topology", help="Topology whose device it is, where the device is not a known one.")
DISTANCES = ("conditional", "bidirectional", "entropic", "gibbs")
WAYS = ("shape", "size", "skew", "world", "width", "range")


@click.command("import")
@click.argument("source", type=click.Choice(["aiconfigurator"]))
@click.option(
    "--system", required=True, help="A system of calibration/systems.yaml, e.g. h200_sxm; with --topology any."
)
@click.option("--op", "ops", multiple=True, help="Only this operator; may be repeated.  [default: all]")
@click.option("--kernel", "kernels", multiple=True, help="Only this kernel source; may be repeated.  [default: all]")
@click.option("-o", "--out", type=FILE, required=True, metavar="FILE", help="Records to write.")
@TOPOLOGY
@SYSTEMS
def import_(
    source: str, system: str, ops: tuple[str, ...], kernels: tuple[str, ...], out: Path, topology: str | None,
    systems: Path | None,
) -> None:  # fmt: skip
    """Read measured tables of SOURCE as records, and label those that beat physics or are slow without reason."""
    import numpy as np

    from moesim.calibration.aiconfigurator import import_tables
    from moesim.calibration.physics import BEATS, label
    from moesim.calibration.quality import SLOW
    from moesim.calibration.records import write_records
    from moesim.calibration.systems import find_system

    found = find_system(system, systems, topology)
    records = label(import_tables(found.facts.table or system, ops), found)
    if kernels:
        records = records.where(np.isin(records["kernel"].astype(str), kernels))
    write_records(records, out)
    beats = len(records.of(label=BEATS))
    slow = ", ".join(f"{len(records.of(label=name))} {name}" for name in sorted(SLOW))
    print(
        f"{out}: {len(records)} records, {beats} of them faster than {found.device.name} can be, {slow}: labelled, not "
        "fitted"
    )


@click.command()
@click.argument("records", type=FILE)
@click.option("--exclude-shapes", type=FILE, metavar="CSV", help="Shapes to leave out: hidden,inter,topk,num_experts.")
@click.option("--keep", metavar="PROFILE", help="Fit only roles that RECORDS play; all else stands as in PROFILE.")
@click.option(
    "--prior", default="auto", show_default=True, metavar="PROFILE|auto|none",
    help="Shipped profile that kernels with few rows start from, and that plays what RECORDS do not; auto: the nearest "
    "device's, for records of `measure`.",
)  # fmt: skip
@click.option("-o", "--out", type=FILE, required=True, metavar="PROFILE", help="PROFILE.yaml and PROFILE.parquet.")
@TOPOLOGY
@SYSTEMS
def fit(
    records: Path, exclude_shapes: Path | None, keep: str | None, prior: str, out: Path, topology: str | None,
    systems: Path | None,
) -> None:  # fmt: skip
    """Fit a profile to RECORDS. What stood in PROFILE is replaced when the new one is whole."""
    from moesim.calibration.check import profile_path
    from moesim.calibration.fit import files_of, fit_profile
    from moesim.calibration.prior import prior_profile
    from moesim.calibration.records import read_records
    from moesim.calibration.systems import system_of
    from moesim.report import calibration_tables, tables

    files = files_of(out)
    if records.resolve() in [file.resolve() for file in files]:
        raise BadInput("the profile would replace its own records", where=out, way_out="another name for -o")
    measured = read_records(records)
    excluded = _shapes(exclude_shapes, measured)
    base = profile_path(keep) if keep else None
    system = system_of(measured, systems, topology)
    fitted = fit_profile(measured, system, excluded, base, prior_profile(prior, system, measured))
    fitted.write(out)
    tables.show(calibration_tables.operators_table(fitted.section), text_stream(False))
    for remark in fitted.remarks:
        click.echo(remark, err=True)
    print(*files)


@click.command()
@click.argument("records", type=FILE)
@click.option("--op", "ops", multiple=True, help="Only this operator; may be repeated.  [default: all]")
@click.option(
    "--penalty", type=click.Choice(("none", "aic", "bic")), default="aic", show_default=True,
    help="Of each effective piece: none, 2 or ln(rows).",
)  # fmt: skip
@json_option
@TOPOLOGY
@SYSTEMS
def select(
    records: Path, ops: tuple[str, ...], penalty: str, as_json: bool, topology: str | None, systems: Path | None
) -> None:  # fmt: skip
    """How many pieces should a fit of RECORDS (a file, or a shipped name) have? Grids from coarse to fine, by penalised
    likelihood, beside their errors on rows that were held out.
    """
    from moesim.calibration.records import known_records, read_records
    from moesim.calibration.selection import document
    from moesim.calibration.selection import select as selected
    from moesim.calibration.systems import system_of
    from moesim.report import calibration_tables, tables

    measured = read_records(known_records().get(str(records), records))
    found = selected(measured, system_of(measured, systems, topology), ops)
    tables.show(calibration_tables.selection_table(found, penalty), text_stream(as_json))
    if as_json:
        print_json(document(found, penalty))


@click.command(cls=OptionalFiles)
@click.argument("profile")
@click.option(
    "--against", type=FILE, metavar="RECORDS", help="Measured records: a file, or a shipped name (cpu-example)."
)
@click.option("--physics", is_flag=True, help="Print PROFILE's own answers that are slower than those for more work.")
@click.option("--holdout", type=click.Choice(WAYS), help="Refit without what is judged, instead of judging PROFILE.")
@click.option(
    "--shapes", type=FILE, metavar="CSV", help="Judge only these expert shapes: hidden,inter,topk,num_experts."
)
@click.option("--report", metavar="[=FILE]", help="Write a page with residuals.  [default: PROFILE.check.html]")
@click.option("--distance", type=click.Choice(DISTANCES), help="A distance between simulated and measured latencies.")
@click.option(
    "--scale", type=click.FloatRange(min=0, min_open=True, max=1e6), default=0.1, show_default=True,
    help="Of --distance, a share of the measured mean: what an octave of shape costs (conditional), the temperature "
    "(bidirectional), epsilon (entropic, gibbs).",
)  # fmt: skip
@json_option
@TOPOLOGY
@SYSTEMS
def check(
    profile: str, against: Path | None, physics: bool, holdout: str | None, shapes: Path | None, report: str | None,
    distance: str | None, scale: float, as_json: bool, topology: str | None, systems: Path | None,
) -> None:  # fmt: skip
    """Errors of PROFILE (a shipped name or a file) against measured records, or of refits by --holdout."""
    if physics == (against is not None):
        raise BadInput("check wants one of --against RECORDS and --physics", way_out="moesim calibrate check --help")
    if against is None:
        beside = {"--holdout": holdout, "--shapes": shapes, "--report": report, "--distance": distance}
        if idle := [name for name, value in beside.items() if value is not None]:
            raise BadInput("judges measured records, and --physics has none", where=idle[0], way_out="--against")
        _physics(profile, as_json)
        return
    from moesim import atomic
    from moesim.calibration.check import check_profile, profile_path
    from moesim.calibration.records import known_records, read_records
    from moesim.calibration.systems import system_of
    from moesim.report import calibration_tables, tables

    refuse_idle("scale", "--distance", acts=distance is not None)
    if distance and not scale > 0:  # NaN passes every range
        raise BadInput(f"--scale {scale} is no share", way_out="--scale 0.1")
    path, records = profile_path(profile), read_records(known_records().get(str(against), against))
    chosen = _shapes(shapes, records)
    found = check_profile(path, records, system_of(records, systems, topology), holdout, chosen)
    found = replace(found, distance=(distance, scale) if distance else None)
    for table in calibration_tables.check_tables(found):
        tables.show(table, text_stream(as_json))
    if found.remark:
        click.echo(found.remark, err=True)
    if report is not None:
        from moesim.report.calibration_page import calibration_page

        page = Path(report or f"{Path(profile).stem}.check.html")
        atomic.write(page, calibration_page(found))
        print(page, file=text_stream(as_json))
    if as_json:
        print_json(found.to_json())


def _physics(profile: str, as_json: bool) -> None:
    from moesim.calibration.check import profile_path
    from moesim.calibration.monotone import falls_of, to_json
    from moesim.report import calibration_tables, tables

    name, found = falls_of(profile_path(profile))
    tables.show(calibration_tables.falls_table(name, found), text_stream(as_json))
    if as_json:
        print_json(to_json(name, found))


def _shapes(path: Path | None, records: Records) -> frozenset[Shape]:
    """The shapes of a file, and in the open those that no record is of. Raises BadInput where that is all of them."""
    from moesim.calibration.shapes_file import absent, read_shapes

    shapes = read_shapes(path) if path else frozenset()
    unknown = ["/".join(map(str, shape)) for shape in absent(records, shapes)]
    if unknown and len(unknown) == len(shapes):
        way_out = "shapes of these records, or no such file"
        raise BadInput(f"no record is of its shapes, such as {unknown[0]}", where=path or "", way_out=way_out)
    if unknown:
        click.echo(f"{path}: no record is of {', '.join(unknown)}", err=True)
    return shapes
