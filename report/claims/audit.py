"""Checks of the paper's own figures by arithmetic: against one another, and against exact parameter counts.

Each kind of check that claims.yaml may name is a small class here. It reads figures from paper.csv, counts from
counts.csv (VGG16 with the paper's head and 4 classes, counted by `pipelines.parameters`), and nothing else.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from math import ceil, sqrt
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field, model_validator
from scipy.stats import norm

from pipelines.files.errors import UserError
from pipelines.profile import Section
from report.reading import PAPER
from report.text import signed

COUNTS = Path(__file__).with_name("counts.csv")
YES, NO, OPEN = "yes", "no", "cannot be said"

Rows = dict[Literal["method", "backbone", "dataset", "training_set", "source"], str | list[str]]
Column = Literal["accuracy", "auc", "trainable_m", "total_m", "epoch_min", "memory_gib"]


@dataclass(frozen=True)
class Result:
    """stated: the paper's figure. recomputed: what it should be, or what follows from it. agrees: yes, no, in part."""

    stated: str
    recomputed: str
    agrees: str


@dataclass(frozen=True)
class Sources:
    """paper: the figures of paper.csv. counts: trained parameters by method, from counts.csv."""

    paper: pd.DataFrame
    counts: dict[str, int]

    def rows(self, where: Rows) -> pd.DataFrame:
        """The figures that a selection picks, of OCTMNIST where it names no data set.

        Raises:
            UserError: there are none.
        """
        frame = self.paper
        for column, value in {"dataset": "octmnist", **where}.items():
            frame = frame[frame[column].isin([value] if isinstance(value, str) else value)]
        if frame.empty:
            raise UserError(f"claims.yaml: {where} picks no row of {PAPER.name}; look at its columns")
        return frame

    def row(self, where: Rows) -> pd.Series:
        """The one row that a selection picks.

        Raises:
            UserError: there is none, or more than one.
        """
        frame = self.rows(where)
        if len(frame) > 1:
            raise UserError(f"claims.yaml: {where} picks {len(frame)} rows of {PAPER.name}, expected one; say more")
        return frame.iloc[0]

    def figure(self, where: Rows, column: str) -> float:
        """One number of paper.csv.

        Raises:
            UserError: as `row`, or the paper does not state it.
        """
        value = self.row(where)[column]
        if pd.isna(value):
            raise UserError(f"claims.yaml: {where} has no {column} in {PAPER.name}; pick a row that states it")
        return float(value)

    def trained(self, method: str) -> int:
        """Trained parameters of a method on VGG16.

        Raises:
            UserError: counts.csv does not have it.
        """
        if method not in self.counts:
            raise UserError(f"claims.yaml: no method {method!r} in {COUNTS.name}; it has {', '.join(self.counts)}")
        return self.counts[method]


def sources(paper: pd.DataFrame) -> Sources:
    """The paper's figures with the counts of counts.csv."""
    counts = pd.read_csv(COUNTS)
    return Sources(paper, dict(zip(counts.method, counts.trainable.astype(int), strict=True)))


class Count(Section):
    """Millions of trained parameters against exact counts, rounded to the paper's two decimals.

    named: the methods of counts.csv that the paper's words allow, by what tells them apart; without any, the paper does
    not say enough. other: methods that its words exclude, shown for comparison.
    """

    kind: Literal["count"]
    of: Rows
    named: dict[str, str] = {}
    other: dict[str, str] = {}

    @model_validator(mode="after")
    def _something(self):
        if not self.named and not self.other:
            raise ValueError("expected a method in named or other")
        return self

    def check(self, given: Sources, stated: str | None) -> Result:
        figure = millions(given.figure(self.of, "trainable_m"))
        methods = {**self.named, **self.other}
        text = [
            f"{label} {given.trained(method):,} ({millions(given.trained(method) / 1e6)})"
            for label, method in methods.items()
        ]
        fits = [label for label, method in methods.items() if millions(given.trained(method) / 1e6) == figure]
        own, others = ([label for label in group if label in fits] for group in (self.named, self.other))
        if not self.named:
            agrees = OPEN
        elif own:
            agrees = YES if len(own) == len(self.named) else f"only {', '.join(own)}"
        else:
            agrees = f"{NO}; it is that of {', '.join(others)}" if others else NO
        return Result(stated or figure, "; ".join(text), agrees)


class Convention(Section):
    """Which way of counting fits a whole row of figures: for each convention how many of them it gives.

    conventions: what is added to a method's name, by the convention's own. stated_is: the one that the authors state.
    """

    kind: Literal["convention"]
    of: list[str]
    training_set: str
    conventions: dict[str, str]
    stated_is: str

    @model_validator(mode="after")
    def _known(self):
        if self.stated_is not in self.conventions:
            raise ValueError(f"stated_is: expected one of {', '.join(self.conventions)}, found {self.stated_is!r}")
        return self

    def check(self, given: Sources, stated: str | None) -> Result:
        text, whole = [], []
        for label, suffix in self.conventions.items():
            misses = [method for method in self.of if not self._fits(given, method, suffix)]
            fitting = len(self.of) - len(misses)
            text.append(f"{label} {fitting} of {len(self.of)} counts fit")
            text[-1] += f" (not {', '.join(misses)})" if misses else ""
            whole += [] if misses else [label]
        agrees = YES if self.stated_is in whole else f"{NO}; {', '.join(whole)}" if whole else NO
        return Result(stated or self.stated_is, "; ".join(text), agrees)

    def _fits(self, given: Sources, method: str, suffix: str) -> bool:
        where = {"method": method, "training_set": self.training_set}
        return millions(given.figure(where, "trainable_m")) == millions(given.trained(method + suffix) / 1e6)


class Reduction(Section):
    """1 - of / than of one column, or of two; agrees where it is `least` or more."""

    kind: Literal["reduction"]
    of: Rows
    than: Rows
    column: Column
    than_column: Column | None = None
    least: float

    def check(self, given: Sources, stated: str | None) -> Result:
        ours, theirs = given.figure(self.of, self.column), given.figure(self.than, self.than_column or self.column)
        less = 1 - ours / theirs
        text = f"{_plain(self.column, ours)} against {_plain(self.column, theirs)}: {100 * less:.1f} % less"
        return Result(stated or f"{100 * self.least:g} % less", text, YES if less >= self.least else NO)


class Gap(Section):
    """One figure minus the highest of others; agrees where it rounds to `size`, at `digits` decimals."""

    kind: Literal["gap"]
    of: Rows
    than: Rows
    column: Column
    size: float
    digits: int = Field(ge=0)

    def check(self, given: Sources, stated: str | None) -> Result:
        others = given.rows(self.than).dropna(subset=self.column)
        if others.empty:
            raise UserError(f"claims.yaml: {self.than} states no {self.column} in {PAPER.name}; pick other rows")
        best = others.loc[others[self.column].idxmax()]
        ours, theirs = given.figure(self.of, self.column), float(best[self.column])
        gap = round(ours - theirs, 9)
        text = f"{ours:.3f} minus {theirs:.3f} ({best.method}, {best.backbone}): {signed(gap)}"
        return Result(
            stated or signed(self.size),
            text,
            YES if _rounded(gap, self.digits) == _rounded(self.size, self.digits) else NO,
        )


class Chance(Section):
    """The 95 % half-width of one accuracy on n images, 1.96 sqrt(p (1 - p) / n); agrees where `size` exceeds it."""

    kind: Literal["chance"]
    of: Rows
    images: int = Field(gt=0)
    size: float = Field(gt=0)

    def check(self, given: Sources, stated: str | None) -> Result:
        p = given.figure(self.of, "accuracy")
        half = norm.ppf(0.975) * sqrt(p * (1 - p) / self.images)
        text = f"one accuracy of {p:.3f} on {self.images:,} images is known to ±{half:.3f} (95 %)"
        within = f"{NO}; within chance on one test set"
        return Result(stated or signed(self.size), text, YES if self.size > half else within)


class Runs(Section):
    """How many runs a mean, a standard deviation and a maximum need: no value lies more than sd sqrt(n - 1) from the
    mean of n (Samuelson 1968, J. Am. Stat. Assoc. 63:1522), so n is at least 1 + ((max - mean) / sd)^2.

    Taken at the ends of the three figures' rounding that favour the paper, and with the divisor n, which asks for fewer
    runs than n - 1. Agrees where `plausible` runs are enough.
    """

    kind: Literal["runs"]
    of: Rows
    plausible: int = Field(gt=0)

    def check(self, given: Sources, stated: str | None) -> Result:
        mean, sd, highest = (given.figure(self.of, name) for name in ("accuracy", "accuracy_sd", "accuracy_max"))
        half = 0.0005  # of the last digit given
        away = max(0.0, (highest - half) - (mean + half)) / (sd + half)
        runs = max(2, ceil(1 + away**2 - 1e-9))
        text = f"the highest lies {(highest - mean) / sd:.1f} sd above the mean, which takes {runs} runs or more"
        agrees = YES if runs <= self.plausible else "doubtful; the number of runs is not stated"
        return Result(stated or f"{mean:.3f} ± {sd:.3f}, highest {highest:.3f}", text, agrees)


Check = Annotated[Count | Convention | Reduction | Gap | Chance | Runs, Field(discriminator="kind")]


class Figure(Section):
    """figure: what is checked, in our words. stated: what the paper says, where that is not a figure of paper.csv."""

    figure: str
    stated: str | None = None
    check: Check

    def result(self, given: Sources) -> Result:
        return self.check.check(given, self.stated)


def millions(value: float) -> str:
    """Millions of parameters as the paper prints them: two decimals, halves up."""
    return f"{_rounded(value, 2)}M"


def _rounded(value: float, digits: int) -> Decimal:
    return Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)


def _plain(column: str, value: float) -> str:
    return millions(value) if column.endswith("_m") else f"{value:.{3 if column == 'memory_gib' else 2}f}"
