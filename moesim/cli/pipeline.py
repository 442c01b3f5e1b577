"""`moesim pipeline`."""

from __future__ import annotations

import click


@click.command()
@click.argument("name")
@click.option("--ranks", type=click.IntRange(1, 64), default=4, show_default=True, help="pipeline ranks")
@click.option("--micro-batches", type=click.IntRange(1, 512), default=8, show_default=True, help="of a step")
@click.option("--chunks", type=click.IntRange(1, 16), help="stages on each rank, where the order has several")
@click.option("--forward", type=click.IntRange(1), default=1, show_default=True, help="time of a stage's forward pass")
@click.option("--backward", type=click.IntRange(2), default=2, show_default=True,
              help="of its whole backward pass; half of it is gradients of weights where they are apart")  # fmt: skip
def pipeline(name: str, ranks: int, micro_batches: int, chunks: int | None, forward: int, backward: int) -> None:
    """Draw a pipeline's order of passes on its ranks, with its bubble and the activations that each rank holds."""
    from moesim.schedules.pipelines import Pass, Slot, check_orders, draw, find_pipeline, play

    order = find_pipeline(name)(ranks, micro_batches, chunks)
    check_orders(order.orders, micro_batches, order.stages)
    units = {Pass.F: forward, Pass.B: backward, Pass.D: backward - backward // 2, Pass.W: backward // 2}

    def taken(_rank: int, slot: Slot) -> int:
        return sum(units[act.what] for act in slot)

    played = play(order.orders, taken)
    click.echo(draw(played))
    click.echo(f"{played.makespan} units of time, {100 * played.bubble:.1f} % of them waiting (bubble)")
    click.echo(f"micro-batches alive at most, by rank: {', '.join(str(order.alive(rank)) for rank in range(ranks))}")
