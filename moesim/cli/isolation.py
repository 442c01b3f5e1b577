"""`moesim isolation`."""

from __future__ import annotations

import click

from moesim.cli.options import json_option, overrides_option, print_json, scenario_argument, text_stream


@click.command()
@scenario_argument
@overrides_option
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@json_option
def isolation(scenario: str, overrides: tuple[str, ...], seed: int, as_json: bool) -> None:
    """Route one in eight requests of SCENARIO's batch among three other sets of requests: what changes for them?

    E.g. --set 'routing={router: switch_top1}'. Says whether experts, drops or latency depend on others, by example.
    """
    from moesim.studies import load
    from moesim.studies.isolation import isolation as tried
    from moesim.studies.isolation import words

    document = tried(load(scenario, overrides), seed).to_json()
    print("\n".join(words(document)), file=text_stream(as_json))
    if as_json:
        print_json(document)
