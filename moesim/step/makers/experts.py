"""The routed experts of the rows that came."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from moesim.schedules import Way
from moesim.step.chain import Chain
from moesim.step.even import even_rows
from moesim.step.makers.names import SUFFIX
from moesim.step.traffic import Traffic
from moesim.step.work import Work


def forward(chain: Chain) -> None:
    """Of the first round; later ones follow its combine."""
    of_round(chain, chain.site.routing(chain.node).rounds[0])


def backward(chain: Chain) -> None:
    """Its gradients."""
    backward_of_round(chain, chain.site.routing(chain.node).rounds[0])


def of_round(chain: Chain, sent: Traffic) -> None:
    """Forward."""
    moved = _sorted(chain, sent)
    real, even = (work + moved for work in _work(chain, sent))
    stretch = chain.plan.stretch(chain.node)
    chain.compute("experts", real.stretched(stretch), even.stretched(stretch))


def backward_of_round(chain: Chain, sent: Traffic) -> None:
    """Gradients of inputs and of weights; those of weights are added up."""
    ops, place, way = chain.plan.ops, chain.plan.placement, chain.node.way
    moved = _sorted(chain, sent) if way != Way.BACKWARD_WEIGHT else Work()
    if way != Way.BACKWARD_DATA:
        slots = place.num_slots // place.num_ranks
        moved += ops.accumulate_gradients(
            len(chain.site.ranks), slots * ops.spread.expert_parameters, chain.plan.gradient_bytes
        )
    real, even = (ops.backward("experts", work, way) + moved for work in _work(chain, sent))
    stretch = chain.plan.stretch(chain.node)
    chain.compute("experts" + SUFFIX[way], real.stretched(stretch), even.stretched(stretch))


def _sorted(chain: Chain, sent: Traffic) -> Work:
    """Rows put in order of experts and back, in training."""
    if not chain.batch.training:
        return Work()
    return chain.plan.ops.sorted_rows(_rows(chain, sent), chain.plan.received_bytes)


def _rows(chain: Chain, sent: Traffic) -> npt.NDArray[np.int64]:
    """int64[ranks, slots of a rank] of each lane."""
    rows = chain.plan.placement.by_rank(chain.site.moe_index[chain.node.layer], sent.rows)
    return np.repeat(rows, chain.plan.layout.expert_tensor_parallel, axis=0)


def _work(chain: Chain, sent: Traffic) -> tuple[Work, Work]:
    """Work with the rows as they are, and with the same rows spread evenly over the slots that they reach. Lanes that
    share the width of their experts compute the same rows.
    """
    site, ways, training = chain.site, chain.plan.layout, chain.batch.training
    rows = chain.plan.placement.by_rank(site.moe_index[chain.node.layer], sent.rows)
    choices = int(rows.sum()) if ways.expert_parallel > 1 and chain.plan.dispatch.algorithm.gathers else None
    real, even = (np.repeat(one, ways.expert_tensor_parallel, axis=0) for one in (rows, even_rows(rows)))
    price = chain.plan.ops.experts  # many layers have the same rows when they are even
    return price(real, training, choices), site.kept(
        (even.tobytes(), choices), chain.node, lambda: price(even, training, choices)
    )
