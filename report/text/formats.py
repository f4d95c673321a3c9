"""Number formats: a value that is missing is a dash everywhere."""

import math

import pandas as pd

DASH = "\N{EM DASH}"
MINUS = "\N{MINUS SIGN}"
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


def number(value, form: str) -> str:
    """A value in a format such as '.3f'."""
    return DASH if pd.isna(value) else format(value, form)


def count(value) -> str:
    """A parameter count in full, thousands parted by commas: these are checked to the last digit."""
    return DASH if pd.isna(value) else f"{int(value):,}"


def seconds(value) -> str:
    """A duration to three digits, in whatever unit stands in the heading."""
    return DASH if pd.isna(value) else three_digits(value)


def three_digits(value: float) -> str:
    """A positive number to three digits, trailing zeros kept: '0.0412', '2.30', '78.1', '1234'."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def scaled(value: float, trailing: bool = True) -> str:
    """A large count in three digits: '869k', '2.54M', '4.00G', or '4G' without trailing zeros."""
    unit, sign = next((u, s) for u, s in _UNITS if value >= u or u == 1)
    return f"{three_digits(value / unit) if trailing else format(value / unit, '.3g')}{sign}"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign; a minus sign, not a hyphen; no sign where it rounds to zero."""
    text = f"{value:+.{digits}f}".replace("-", MINUS)
    return text[1:] if float(text[1:]) == 0 else text


def points(value: float, *, plus: bool = False) -> str:
    """An accuracy in percentage points, one decimal: 0.0312 is '3.1'; `plus` writes the sign of a difference."""
    return DASH if pd.isna(value) else signed(100 * value, 1) if plus else f"{100 * value:.1f}".replace("-", MINUS)


def percent(share: float) -> str:
    """A share as per cent, without digits that say nothing: 0.05 is '5 %', 0.125 is '12.5 %'."""
    return DASH if pd.isna(share) else f"{round(100 * share, 9):g} %"


def mean_sd(mean, sd, digits: int) -> str:
    """'0.912 ± 0.004', or the mean alone where no deviation is known."""
    if pd.isna(mean):
        return DASH
    return f"{mean:.{digits}f}" if pd.isna(sd) else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def interval(low, high, *, plus: bool = False) -> str:
    """'[0.901, 0.923]', or with signs, of a difference."""
    if pd.isna(low):
        return DASH
    return f"[{signed(low)}, {signed(high)}]" if plus else f"[{low:.3f}, {high:.3f}]"


def p_text(value) -> str:
    """A p value: three decimals, '<0.001' below them."""
    return DASH if pd.isna(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def span(values) -> str:
    """Whole numbers as one, or as a range where they differ: '5', '798-801'; zero stands for a hole and is left out."""
    values = sorted({int(v) for v in values if pd.notna(v) and v > 0})
    if not values:
        return "no"
    return f"{values[0]:,}" if values[0] == values[-1] else f"{values[0]:,}\N{EN DASH}{values[-1]:,}"
