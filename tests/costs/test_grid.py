"""Residual grids: multilinear between knots, constant beyond them, and what is written is what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.costs.grid import CLIP, UNIT, Axis, Grid, ResidualGrid, digest, packed_grids, read_grids
from moesim.costs.profile_file import read_profile
from moesim.shipped import shipped

PLANE = (Axis(0, 0.0, 1.0, 4), Axis(1, -2.0, 0.5, 5), Axis(2, 3.0, 2.0, 2))
SLOPES = (0.05, -0.1, 0.02)


def plane(*axes: Axis) -> Grid:
    """Values that are a sum of SLOPES times their coordinates."""
    knots = np.meshgrid(*(axis.start + axis.step * np.arange(axis.knots) for axis in axes), indexing="ij")
    return Grid(axes, np.asarray(sum(SLOPES[axis.coordinate] * at for axis, at in zip(axes, knots, strict=True))))


@given(st.floats(0, 3), st.floats(-2, 0), st.floats(3, 5), st.integers(1, 3))
def test_a_plane_is_met_everywhere_between_its_knots(a: float, b: float, c: float, order: int) -> None:
    axes, where = PLANE[:order], (a, b, c)
    wanted = sum(slope * at for slope, at in zip(SLOPES[:order], where[:order], strict=True))
    factor = ResidualGrid((plane(*axes),)).at([np.array([at]) for at in where])
    assert np.log(factor[0]) == pytest.approx(wanted, abs=1e-9)


def test_beyond_its_edges_a_grid_is_constant_and_its_sum_is_clipped() -> None:
    grid = plane(PLANE[0])
    far, edge = ResidualGrid((grid,)).at([np.array([99.0, 3.0])])
    assert far == edge == pytest.approx(np.exp(0.15))
    steep = Grid(grid.axes, 100 * grid.values)
    assert np.log(ResidualGrid((steep, steep)).at([np.array([3.0])])) == pytest.approx(CLIP)


def test_grids_add_up_and_broadcast() -> None:
    both = ResidualGrid((plane(PLANE[0]), plane(PLANE[1], PLANE[0])))
    factor = both.at([np.array([[1.0], [2.0]]), np.array([-1.0, -0.25])])
    assert factor.shape == (2, 2) and np.log(factor[1, 0]) == pytest.approx(2 * 0.05 * 2 + 0.1)


def test_an_axis_of_one_knot_needs_no_other() -> None:
    single = Grid((Axis(0, 5.0, 1.0, 1),), np.array([0.25]))
    assert np.log(ResidualGrid((single,)).at([np.array([-9.0, 5.0, 9.0])])) == pytest.approx([0.25] * 3)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    held = {"b": ResidualGrid((plane(*PLANE), plane(PLANE[1]))), "a": ResidualGrid((plane(PLANE[2], PLANE[0]),))}
    path = tmp_path / "grids.parquet"
    path.write_bytes(packed_grids(held))
    found = read_grids(path, digest(packed_grids(held)))
    assert list(found) == ["a", "b"] and [len(grid.grids) for grid in found.values()] == [1, 2]
    for name, grid in held.items():
        for own, read in zip(grid.grids, found[name].grids, strict=True):
            assert own.axes == read.axes and np.abs(own.values - read.values).max() <= UNIT / 2 + 1e-12


def test_compiled_code_finds_the_same_to_the_bit() -> None:
    """Every grid of a shipped profile, inside and outside of what was measured."""
    _, grids = read_profile(shipped("calibration", "profiles", "h100_sxm.yaml"))
    random = np.random.default_rng(0)
    for residual in grids.values():
        most = max(axis.coordinate for grid in residual.grids for axis in grid.axes)
        rows = random.uniform(-5.0, 40.0, (most + 1, 99))
        assert np.array_equal(residual._sum(rows), residual.in_arrays(rows))
