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
from report.text.words import HIGHER, MARK, few, listed, plural, unnamed

__all__ = [
    "DASH", "HIGHER", "MARK", "Table", "count", "few", "interval", "latex", "listed", "markdown", "mean_sd", "number",
    "p_text", "percent", "plural", "points", "scaled", "seconds", "signed", "span", "three_digits",
    "unnamed",
]  # fmt: skip
