"""Numbers, verdicts and tables as text: what every page and figure writes in the same way."""

from report.text.formats import (
    DASH,
    count,
    interval,
    mean_sd,
    number,
    p_text,
    percent,
    points,
    scaled,
    seconds,
    signed,
    span,
    three_digits,
)
from report.text.latex import latex
from report.text.table import Table, markdown

__all__ = [
    "DASH", "Table", "count", "interval", "latex", "markdown", "mean_sd", "number", "p_text", "percent", "points",
    "scaled", "seconds", "signed", "span", "three_digits",
]  # fmt: skip
