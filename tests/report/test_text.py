"""Numbers and names as tables and sentences write them."""

import numpy as np
import pandas as pd
import pytest

from report import text


@pytest.mark.parametrize("value", [0.0412, 2.3, 78.13, 199.4, 1234.0])
def test_three_digits_round_trip(value):
    assert float(text.three_digits(value)) == pytest.approx(value, rel=0.005)
    assert len(text.three_digits(value).replace(".", "").lstrip("0")) >= 3


@pytest.mark.parametrize(
    ("value", "shown", "tick"),
    [
        (1_190_000_000, "1.19G", "1.19G"), (4e9, "4.00G", "4G"), (869_124, "869k", "869k"), (2e12, "2.00T", "2T"),
        (500, "500", "500"),
    ],
)  # fmt: skip
def test_large_counts_have_three_digits(value, shown, tick):
    assert text.scaled(value) == shown and text.scaled(value, trailing=False) == tick


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0123, "+0.012"), (-0.0123, "\N{MINUS SIGN}0.012"), (-0.0001, "0.000"), (0.0004, "0.000")]
)
def test_differences_have_a_sign(value, shown):
    assert text.signed(value) == shown


def test_points_are_per_cent_of_accuracy():
    assert text.points(0.0312) == "3.1" and text.points(0.0312, plus=True) == "+3.1"
    assert text.points(-0.0312, plus=True) == "\N{MINUS SIGN}3.1" and text.points(-0.0312) == "\N{MINUS SIGN}3.1"
    assert text.points(np.nan) == text.DASH
    # An end of an interval decides by its sign, which a rounded one would not have.
    assert text.points(-0.0002, plus=True) == "\N{MINUS SIGN}0.02" and text.points(0.0004, plus=True) == "+0.04"
    assert text.points(0.0, plus=True) == "0.0" and text.points(0.0005, plus=True) == "+0.1"


def test_missing_values_are_dashes():
    values = text.number(np.nan, ".3f"), text.three_digits(None), text.percent(np.nan), text.p_text(np.nan)
    assert set(values) == {text.DASH} and text.interval(np.nan, np.nan) == text.mean_sd(np.nan, 1, 3) == text.DASH


def test_small_p_values_and_shares():
    assert text.p_text(0.0004) == "<0.001" and text.p_text(0.0312) == "0.031"
    assert text.percent(0.05) == "5 %" and text.percent(0.125) == "12.5 %" and text.percent(0.07) == "7 %"


@pytest.mark.parametrize(
    ("values", "shown"), [([5, 5], "5"), ([1798, 801, 0, None], "801\N{EN DASH}1,798"), ([0], "no"), ([], "no")]
)
def test_span(values, shown):
    assert text.span(values) == shown


def test_lists_of_names():
    assert text.listed(["a"]) == "a" and text.listed(["a", "b", "c"], "or") == "a, b or c"
    assert text.few(list("abcde"), 4) == "a, b, c, d and e" and text.few(list("abcdef"), 4) == "a, b, c, d and 2 more"
    assert text.plural(1, "run") == "1 run" and text.plural(1200, "run") == "1,200 runs"


def test_markdown_keeps_a_bar_in_its_run():
    frame = pd.DataFrame({"a|b": ["x | y"], "n": ["1"]})
    assert text.markdown(text.Table("t", "", "", frame, frame)).splitlines() == [
        "| a\\|b | n |", "| --- | ---: |", "| x \\| y | 1 |",
    ]  # fmt: skip
