"""`moesim pipeline`."""

from __future__ import annotations

import click


@click.command()
@click.argument("name")
@click.option("--ranks", type=click.IntRange(1, 64), help="pipeline ranks  [default: 4, or the file's]")
@click.option("--micro-batches", type=click.IntRange(1, 512), help="of a step  [default: 8, or the file's]")
@click.option("--chunks", type=click.IntRange(1, 16), help="stages on each rank, where the order has several")
@click.option("--forward", type=click.IntRange(1), default=1, show_default=True, help="time of a stage's forward pass")
@click.option("--backward", type=click.IntRange(2), default=2, show_default=True,
              help="of its whole backward pass; half of it is gradients of weights where they are apart")  # fmt: skip
def pipeline(
    name: str, ranks: int | None, micro_batches: int | None, chunks: int | None, forward: int, backward: int
) -> None:
    """Draw a pipeline's order of passes on its ranks, with its bubble and the activations that each rank holds. NAME is
    one of `moesim list pipelines`, or FILE.csv, an order as PyTorch's pipeline runtime reads it.
    """
    from pathlib import Path

    from moesim.schedules.pipelines import OrdersFile, Pass, Slot, check_orders, draw, find_pipeline, is_file, play

    own = OrdersFile(Path(name), ranks, micro_batches, chunks) if is_file(name) else None
    order = own or find_pipeline(name)(ranks or 4, micro_batches or 8, chunks)
    check_orders(order.orders, order.micro_batches, order.stages)
    units = {Pass.F: forward, Pass.B: backward, Pass.D: backward - backward // 2, Pass.W: backward // 2}

    def taken(_rank: int, slot: Slot) -> int:
        return sum(units[act.what] for act in slot)

    played = play(order.orders, taken)
    click.echo(draw(played))
    click.echo(f"{played.makespan} units of time, {100 * played.bubble:.1f} % of them waiting (bubble)")
    alive = ", ".join(str(order.alive(rank)) for rank in range(order.ranks))
    click.echo(f"micro-batches alive at most, by rank: {alive}")
