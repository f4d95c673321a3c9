"""Cells of tables as a page needs them: what is missing, by which number a column sorts, which colour a verdict has."""

import re
from typing import NamedTuple

from report.claims.tests import WORDS
from report.text import DASH

TONES = {"supported": "up", "contradicted": "down", "inconclusive": "open", "not tested": "none"}


class Cell(NamedTuple):
    """text: as shown. sort: its number, as JavaScript reads it. numeric: flush right. missing: a hole. tone: a
    verdict's colour.
    """

    text: str
    sort: str | None
    numeric: bool
    missing: bool
    tone: str | None


def rank(verdict: str) -> int:
    """Where a verdict stands in their order, the highest first: supported, contradicted, inconclusive, not tested."""
    return len(WORDS) - WORDS.index(verdict)


def kind(column) -> str:
    """What a column of texts holds: 'number', 'verdict' or 'text'."""
    values = [str(text) for text in column if not is_missing(str(text))]
    if values and all(value in TONES for value in values):
        return "verdict"
    return "number" if values and all(sort_value(value) is not None for value in values) else "text"


def cell(text: str, column: str) -> Cell:
    """A cell of a column of the given kind."""
    if is_missing(text):
        return Cell(text, None, column == "number", True, None)
    if column == "verdict":
        return Cell(text, str(rank(text)), False, False, TONES[text])
    sort = str(sort_value(text)).replace("inf", "Infinity") if column == "number" else None
    return Cell(text, sort, column == "number", False, None)


def is_missing(text: str) -> bool:
    return text.strip() in ("", DASH)


_NUMBER = re.compile(r"([<\[]?)([+\-\N{MINUS SIGN}]?)([\d,]*\.?\d+(?:e[+-]?\d+)?)\s?([TGMk]?)(?=$|[\s,\]/%×])")
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def sort_value(text: str) -> float | None:
    """The number that a cell shows first, by which its column sorts; None where it does not start with one.

    Read from the text, so that the order is that of what is seen: '0.975 ± 0.010', '[0.959, 0.985]', '1,583,620',
    '1.19G', '4 of 5', '\N{MINUS SIGN}0.048', '\N{INFINITY}', and '<0.001', which comes before 0.001.
    """
    text = text.strip()
    if text.lstrip("+\N{MINUS SIGN}-").startswith("\N{INFINITY}"):
        return float("-inf") if text[0] in "-\N{MINUS SIGN}" else float("inf")
    match = _NUMBER.match(text)
    if not match:
        return None
    start, sign, digits, unit = match.groups()
    value = float(digits.replace(",", "")) * _UNITS[unit] * (-1 if sign in ("-", "\N{MINUS SIGN}") else 1)
    return value / 2 if start == "<" else value
