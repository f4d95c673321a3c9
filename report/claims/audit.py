"""Checks of the paper's own figures by arithmetic: against one another, and against exact parameter counts.

A kind of check that claims.yaml names is a function here; the other keys of a check are its arguments. It reads figures
from paper.csv, counts from counts.csv (VGG16 with the paper's head and 4 classes, counted by `pipelines.parameters`),
and nothing else, and returns the paper's figure, what it should be or what follows from it, and whether they agree:
yes, no, or in part. `of` and `than` pick rows of paper.csv by its columns, of OCTMNIST unless they name a data set.
"""

from decimal import ROUND_HALF_UP, Decimal
from math import ceil, sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from report.text import signed

COUNTS = Path(__file__).with_name("counts.csv")
YES, NO, OPEN = "yes", "no", "cannot be said"


class Sources(NamedTuple):
    """paper: the figures of paper.csv. counts: trained parameters by method, from counts.csv."""

    paper: pd.DataFrame
    counts: dict[str, int]

    def rows(self, where: dict) -> pd.DataFrame:
        picked = [self.paper[key].isin(np.atleast_1d(v)) for key, v in {"dataset": "octmnist", **where}.items()]
        return self.paper[np.logical_and.reduce(picked)]

    def figure(self, where: dict, column: str) -> float:
        """One number of paper.csv; ValueError where the selection picks no row, or several."""
        return self.rows(where)[column].item()

    def millions(self, method: str) -> str:
        return millions(self.counts[method] / 1e6)


class Result(NamedTuple):
    stated: str
    recomputed: str
    agrees: str


def sources(paper: pd.DataFrame) -> Sources:
    return Sources(paper, pd.read_csv(COUNTS).set_index("method").trainable.to_dict())


def count(given: Sources, of: dict, named: dict | None = None, other: dict | None = None) -> Result:
    """Millions of trained parameters against exact counts, rounded to the paper's two decimals.

    named: the methods of counts.csv that the paper's words allow, by what tells them apart; without any, the paper does
    not say enough. other: methods that its words exclude, shown for comparison.
    """
    figure = millions(given.figure(of, "trainable_m"))
    named, other = named or {}, other or {}
    methods = named | other
    text = [f"{label} {given.counts[method]:,} ({given.millions(method)})" for label, method in methods.items()]
    own, others = (
        [label for label, method in group.items() if given.millions(method) == figure] for group in (named, other)
    )
    if not named:
        agrees = OPEN
    elif own:
        agrees = YES if len(own) == len(named) else f"only {', '.join(own)}"
    else:
        agrees = f"{NO}; it is that of {', '.join(others)}" if others else NO
    return Result(figure, "; ".join(text), agrees)


def convention(given: Sources, of: list[str], training_set: str, conventions: dict[str, str], stated_is: str) -> Result:
    """Which way of counting fits a whole row of figures: for each convention how many of them it gives.

    conventions: what is added to a method's name, by the convention's own. stated_is: the one that the authors state.
    """
    stated = {m: given.figure({"method": m, "training_set": training_set}, "trainable_m") for m in of}
    text, whole = [], []
    for label, suffix in conventions.items():
        misses = [method for method in of if millions(stated[method]) != given.millions(method + suffix)]
        lacking = f" (not {', '.join(misses)})" if misses else ""
        text.append(f"{label} {len(of) - len(misses)} of {len(of)} counts fit{lacking}")
        whole += [] if misses else [label]
    agrees = YES if stated_is in whole else f"{NO}; {', '.join(whole)}" if whole else NO
    return Result(stated_is, "; ".join(text), agrees)


def reduction(given: Sources, of: dict, than: dict, column: str, least: float, than_column: str = "") -> Result:
    """1 - of / than of one column, or of two; agrees where it is `least` or more."""
    ours, theirs = given.figure(of, column), given.figure(than, than_column or column)
    less = 1 - ours / theirs
    plain = millions if column.endswith("_m") else f"{{:.{3 if column == 'memory_gib' else 2}f}}".format
    text = f"{plain(ours)} against {plain(theirs)}: {100 * less:.1f} % less"
    return Result(f"{100 * least:g} % less", text, YES if less >= least else NO)


def gap(given: Sources, of: dict, than: dict, column: str, size: float, digits: int) -> Result:
    """One figure minus the highest of others; agrees where it rounds to `size`, at `digits` decimals."""
    others = given.rows(than)
    best = others.loc[others[column].idxmax()]
    ours, theirs = given.figure(of, column), best[column]
    difference = round(ours - theirs, 9)
    text = f"{ours:.3f} minus {theirs:.3f} ({best.method}, {best.backbone}): {signed(difference)}"
    return Result(signed(size), text, YES if _rounded(difference, digits) == _rounded(size, digits) else NO)


def chance(given: Sources, of: dict, images: int, size: float) -> Result:
    """The 95 % half-width of one accuracy on n images, 1.96 sqrt(p (1 - p) / n); agrees where `size` exceeds it."""
    p = given.figure(of, "accuracy")
    half = norm.ppf(0.975) * sqrt(p * (1 - p) / images)
    text = f"one accuracy of {p:.3f} on {images:,} images is known to ±{half:.3f} (95 %)"
    return Result(signed(size), text, YES if size > half else f"{NO}; within chance on one test set")


def runs(given: Sources, of: dict, plausible: int) -> Result:
    """How many runs a mean, a standard deviation and a maximum need: no value lies more than sd sqrt(n - 1) from the
    mean of n (Samuelson 1968, J. Am. Stat. Assoc. 63:1522), so n is at least 1 + ((max - mean) / sd)^2.

    Taken at the ends of the three figures' rounding that favour the paper, and with the divisor n, which asks for fewer
    runs than n - 1. Agrees where `plausible` runs are enough.
    """
    mean, sd, highest = (given.figure(of, name) for name in ("accuracy", "accuracy_sd", "accuracy_max"))
    half = 0.0005  # of the last digit given
    away = max(0.0, (highest - half) - (mean + half)) / (sd + half)
    needed = max(2, ceil(1 + away**2 - 1e-9))
    text = f"the highest lies {(highest - mean) / sd:.1f} sd above the mean, which takes {needed} runs or more"
    agrees = YES if needed <= plausible else "doubtful; the number of runs is not stated"
    return Result(f"{mean:.3f} ± {sd:.3f}, highest {highest:.3f}", text, agrees)


CHECKS = {check.__name__: check for check in (count, convention, reduction, gap, chance, runs)}


def millions(value: float) -> str:
    """Millions of parameters as the paper prints them: two decimals, halves up."""
    return f"{_rounded(value, 2)}M"


def _rounded(value: float, digits: int) -> Decimal:
    return Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
