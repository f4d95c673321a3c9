"""Axes of accuracies and AUCs that widen towards one, and points that would hide one another."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from report import figures, layout


@pytest.fixture
def axis():
    figure, axis = plt.subplots(figsize=(4, 3))
    yield axis
    plt.close(figure)


@pytest.mark.parametrize("which", ["x", "y"])
@pytest.mark.parametrize(
    "values", [[0.34, 0.975, 1.0], [0.9985, 0.9931], [0.25, 0.26], [0.5], [1.0], [0.0, 1.0], [0.7, np.nan]]
)
def test_every_value_is_within_and_ticks_stand_at_their_values(axis, which, values):
    layout.widen_towards_one(axis, which, values, 0.01)
    low, high = getattr(axis, f"get_{which}lim")()
    assert low < np.nanmin(values) <= np.nanmax(values) < high
    column = "xy".index(which)
    places = axis.transAxes.inverted().transform(axis.transData.transform([(v, v) for v in values]))[:, column]
    finite = np.isfinite(values)
    assert ((places[finite] > 0) & (places[finite] < 1)).all()
    ticks = getattr(axis, f"get_{which}ticks")()
    written = [float(label.get_text()) for label in getattr(axis, f"get_{which}ticklabels")()]
    assert written == pytest.approx(list(ticks))
    assert len(ticks) >= 2 and low <= ticks.min() and ticks.max() <= min(high, 1)


def test_without_a_value_the_axis_has_the_whole_range(axis):
    layout.widen_towards_one(axis, "x", [np.nan], 0.01)
    low, high = axis.get_xlim()
    assert low <= 0 and high >= 1


def test_equal_ratios_of_errors_take_equal_room(axis):
    """With 1 - accuracy well above `finest`, halving the error is the same step everywhere."""
    layout.widen_towards_one(axis, "x", [0.2, 0.99], 1e-9)
    x = axis.transData.transform([(v, 0) for v in (0.2, 0.6, 0.8, 0.9)])[:, 0]
    assert np.diff(x) == pytest.approx(np.diff(x)[0] * np.ones(3), rel=1e-6)


def test_points_alike_are_moved_apart_around_their_mean_and_the_others_stay():
    values = pd.Series([1000.0, 50.0, 1004.0, 1000.0, 200.0])
    moved = figures._side_by_side(values, step=0.05)
    alike = np.log(moved[[0, 3, 2]])  # in the order of their values
    assert np.diff(alike) == pytest.approx([0.05, 0.05])
    assert alike.mean() == pytest.approx(np.log(values[[0, 2, 3]]).mean())
    assert moved[[1, 4]].to_list() == pytest.approx([50.0, 200.0])
    many = figures._side_by_side(pd.Series(np.full(40, 7.0)), step=0.05)
    assert many.is_unique and (abs(many / 7 - 1) < 0.14).all()
