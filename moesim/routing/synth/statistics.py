"""Load statistics of a served model: how skewed its layers are, without saying which expert is which."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moesim import shipped
from moesim.errors import BadInput, unknown_name

SHIPPED: Final = "dsv3_load_statistics"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LoadStatistics:
    """Of one file: levels [Q]; quantiles [L, Q] of experts x share (1 = mean); imbalance {ranks: [L]} of contiguous
    placement; group_cv [L]; neighbour_correlation [L - 1] and mean_correlation of log shares between layers; sigma [L];
    drift: total variation between its shares and those of other files of its phase, the mean; 0 where there are none.
    """

    name: str
    levels: Floats
    quantiles: Floats
    imbalance: dict[int, Floats]
    neighbour_correlation: Floats
    mean_correlation: float
    sigma: Floats
    drift: float = 0.0

    @property
    def layers(self) -> int:
        """Expert layers that were measured."""
        return len(self.quantiles)


def load_statistics(name: str, path: Path | None = None) -> LoadStatistics:
    """One file of a statistics collection, the shipped one (DeepSeek-V3, 12 files) by default. Raises BadInput."""
    data = _collection(path)
    if name not in data["files"]:
        raise unknown_name("load statistics", name, data["files"], where=path or SHIPPED)
    file = data["files"][name]
    try:
        return LoadStatistics(
            name=name,
            levels=np.array(data["definitions"]["quantile_levels"], dtype=np.float64),
            quantiles=np.array(file["sorted_share_quantiles"], dtype=np.float64),
            imbalance={int(r): np.array(v, dtype=np.float64) for r, v in file["imbalance_contiguous"].items()},
            neighbour_correlation=np.array(file["adjacent_layer_corr_of_log_share"], dtype=np.float64),
            mean_correlation=float(file["mean_offdiag_layer_corr_of_log_share"]),
            sigma=np.array(file["lognormal_sigma"], dtype=np.float64),
            drift=_drift(data, name),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"statistics {name!r} lack {error}", where=path or SHIPPED) from None


def _drift(data: dict[str, Any], name: str) -> float:
    """How far the load of another run of the same phase lies from this one's."""
    between = data.get("file_to_file", {}).get(name, {})
    phase = data["files"][name]["phase"]
    others = [
        one["total_variation"] for key, one in between.items() if key != name and data["files"][key]["phase"] == phase
    ]
    return float(np.mean(others)) if others else 0.0


def statistics_names(path: Path | None = None) -> list[str]:
    """Files of the collection."""
    return sorted(_collection(path)["files"])


def _collection(path: Path | None) -> dict[str, Any]:
    path = path or shipped.shipped("workloads", "routing", f"{SHIPPED}.json")
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot be read: {error}", where=path) from None
    return data
