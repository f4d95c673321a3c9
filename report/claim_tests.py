"""The kinds of test that claims.yaml may name, each a small class: its arguments, its words, and how it judges.

A test judges the CoLoRA method that it is given, on the results of one profile, from the statistics that are there:
comparisons.csv, stability.csv, the parameter counts, and cost.csv where it has been measured. Times in runs.csv are
never used: those runs may have run beside other work.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field, model_validator
from scipy.stats import t

from pipelines.evidence.stability import DEFINITIONS, spread_interval
from pipelines.profile import Section
from report import claim_costs, quality
from report.comparisons import ALPHA, GROUPS, HEADS, larger_p, p_text, points, verdict
from report.results import Results
from report.tables import interval, signed, start

SUPPORTED, CONTRADICTED, UNDECIDED = WORDS = ("supported", "contradicted", "undecided")
MOST_SEEDS = 200  # that are told as what a decision would take

Against = Literal["full", "head_only", "ViT", "state space", "KAN"]
Measure = Literal["spread", "jitter", "drawdown", "epochs_to_final", "loss_spikes"]


@dataclass(frozen=True)
class Finding:
    """evidence: the numbers. verdict: one of `WORDS`. takes: what a decision would take; empty where there is one."""

    evidence: str
    verdict: str
    takes: str = ""


class Part(NamedTuple):
    """A finding on one of the comparisons that a test asks for; `reaches`: is a gain of the claimed size possible."""

    evidence: str
    verdict: str
    takes: str
    reaches: bool | None = None


def combined(parts: Iterable[Part]) -> Finding:
    """All must support; one contradiction is enough."""
    parts = list(parts)
    words = {part.verdict for part in parts}
    word = CONTRADICTED if CONTRADICTED in words else SUPPORTED if words == {SUPPORTED} else UNDECIDED
    takes = "; ".join(dict.fromkeys(part.takes for part in parts if part.takes)) if word == UNDECIDED else ""
    return Finding("; ".join(part.evidence for part in parts), word, takes)


class Parameters(Section):
    """The share of full fine-tuning's trained parameters that the method trains: exact, so never undecided by chance."""

    kind: Literal["parameters"]
    at_most: float = Field(gt=0)

    def words(self) -> str:
        return f"Trained parameters, at most {100 * self.at_most:g} % of full fine-tuning's on the same backbone"

    def judge(self, results: Results, method: str) -> Finding:
        methods, whole = results.methods, reference(results, method, "full")
        if whole is None or pd.isna(methods.trainable[whole]):
            return Finding(f"{methods.trainable[method]:,.0f} trained", UNDECIDED, lacking(results, method, "full"))
        share = methods.trainable[method] / methods.trainable[whole]
        text = (
            f"{methods.trainable[method]:,.0f} against {methods.trainable[whole]:,.0f} of {whole}: {100 * share:.1f} %"
        )
        return Finding(text, SUPPORTED if share <= self.at_most else CONTRADICTED)


class Gain(Section):
    """Whether the method is better than each method of `over`, and whether a gain of the claimed `size` can be true.

    Supported: every difference is shown to be positive, Holm-corrected as in comparisons.csv, and some 95 % interval
    reaches `size`. Contradicted: a difference is shown to be negative, or no interval reaches `size`.
    """

    kind: Literal["gain"]
    metric: Literal["accuracy", "auc"]
    over: list[Against] = Field(min_length=1)
    size: float | None = Field(None, gt=0, lt=1)

    def words(self) -> str:
        size = f", and some 95 % interval reaches {signed(self.size)}" if self.size else ""
        best = "" if set(self.over) <= set(HEADS) else ", each by its best method"
        metric = {"accuracy": "accuracy", "auc": "macro AUC"}[self.metric]
        return f"Test {metric} shown to be above that of {_listed(self.over)}{best}{size}"

    def judge(self, results: Results, method: str) -> Finding:
        parts = [self._part(results, method, against) for against in self.over]
        found = combined(parts)
        reaching = [part.reaches for part in parts]
        if found.verdict == CONTRADICTED or not self.size or any(reaching) or None in reaching:
            return found
        return Finding(f"{found.evidence}; no interval reaches {signed(self.size)}", CONTRADICTED)

    def _part(self, results: Results, method: str, against: str) -> Part:
        row = pair(results, method, against)
        if row is None:
            return Part(f"no comparison with {_shown(against)}", UNDECIDED, lacking(results, method, against))
        accuracy = self.metric == "accuracy"
        p = larger_p(row) if accuracy else row.auc_p_holm
        low, high = (row.lo, row.hi) if accuracy else (row.auc_lo, row.auc_hi)
        text = _told(results, row, row.difference if accuracy else row.auc_difference, low, high, p)
        if row.seeds < 2:
            return Part(text, UNDECIDED, "two seeds or more")
        reaches = None if self.size is None or pd.isna(high) else bool(high >= self.size)
        if p < ALPHA:
            difference = row.difference if accuracy else row.auc_difference
            return Part(text, SUPPORTED if difference > 0 else CONTRADICTED, "", reaches)
        more = needed(row) if accuracy else f"more seeds or test images, as ±{(high - low) / 2:.3f} is too wide"
        return Part(text, UNDECIDED, more, reaches)


class Comparable(Section):
    """Whether the method is at least as accurate as each of `over`, within the profile's margin.

    Supported: shown equivalent within the margin, or shown higher. Contradicted: shown lower, the whole 95 % interval
    being beyond the margin. A difference that may be smaller or larger than the margin is undecided.
    """

    kind: Literal["comparable"]
    over: list[Against] = Field(min_length=1)

    def words(self) -> str:
        return f"Test accuracy equivalent to that of the best {_listed(self.over)} method, within the margin, or higher"

    def judge(self, results: Results, method: str) -> Finding:
        return combined(self._part(results, method, against) for against in self.over)

    def _part(self, results: Results, method: str, against: str) -> Part:
        row = pair(results, method, against)
        if row is None:
            return Part(f"no comparison with {_shown(against)}", UNDECIDED, lacking(results, method, against))
        shown = verdict(row)
        told = _told(results, row, row.difference, row.lo, row.hi, larger_p(row))
        text = f"{told}, margin {points(row.margin)}: {shown}"
        if row.seeds < 2:
            return Part(text, UNDECIDED, "two seeds or more")
        if shown == "equivalent" or "within the margin" in shown or shown == "higher":
            return Part(text, SUPPORTED, "")
        if shown == "lower" and row.hi < -row.margin:
            return Part(text, CONTRADICTED, "")
        return Part(text, UNDECIDED, needed(row))


class Stability(Section):
    """Whether training is steadier than full fine-tuning by the measures of stability.csv, lower being steadier.

    Supported: the 95 % interval of some measure lies below full fine-tuning's, and none above. Contradicted: the other
    way round. Intervals that do not meet are a stricter sign than p < 0.05, as several measures are looked at.
    """

    kind: Literal["stability"]
    measures: list[Measure] = Field(min_length=1)

    def words(self) -> str:
        names = ", ".join(DEFINITIONS[name][0].lower() for name in self.measures)
        return f"Intervals of some of {names} below full fine-tuning's, none above"

    def judge(self, results: Results, method: str) -> Finding:
        whole, rows = (
            reference(results, method, "full"),
            quality.read(results, "stability").set_index(["method", "measure"]),
        )
        if whole is None or not results.methods.seeds[whole]:
            return Finding("no full fine-tuning to compare with", UNDECIDED, lacking(results, method, "full"))
        if rows.empty:
            return Finding("no stability.csv", UNDECIDED, "run python -m pipelines.summarise")
        texts, sides, seeds = [], [], []
        for name in self.measures:
            if not {(method, name), (whole, name)} <= set(rows.index):
                texts.append(f"{DEFINITIONS[name][0].lower()}: not measured")
                continue
            ours, theirs = (rows.loc[(one, name)] for one in (method, whole))
            scale, unit = (100, " points") if name in quality.POINTS else (1, "")
            told = f"{_value(ours, scale)} against {_value(theirs, scale)}{unit}"
            texts.append(f"{DEFINITIONS[name][0].lower()} {told}")
            sides.append("lower" if ours.hi < theirs.lo else "higher" if ours.lo > theirs.hi else "open")
            seeds.append(seeds_to_part(name, ours, theirs))
        text = f"against {whole}: {'; '.join(texts)}"
        if ("lower" in sides) != ("higher" in sides):
            return Finding(text, SUPPORTED if "lower" in sides else CONTRADICTED)
        if "lower" in sides:
            return Finding(text, UNDECIDED, "one measure of stability to be agreed on: they disagree")
        fewest = min((n for n in seeds if n), default=None)
        takes = f"about {fewest} seeds, if the values stay" if fewest else "more seeds or epochs: the intervals overlap"
        return Finding(text, UNDECIDED, takes)


class Cost(Section):
    """A ratio of cost.csv at every setting where it was measured for the method: full fine-tuning's step time and peak
    memory, or the merged network's inference time over the untouched one's.

    at_most: supported where every interval lies at or below it, contradicted where every one lies above. within:
    supported where every interval lies in 1 -+ within, contradicted where every one lies outside. tolerance: for a
    ratio without an interval, how far it may be off, as a share.
    """

    kind: Literal["cost"]
    ratio: Literal["step", "memory", "inference"]
    at_most: float | None = Field(None, gt=0)
    within: float | None = Field(None, gt=0, lt=1)
    tolerance: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _one_bound(self):
        if (self.at_most is None) == (self.within is None):
            raise ValueError("expected one of at_most and within")
        return self

    def words(self) -> str:
        name = {
            "step": "Time of a training step over full fine-tuning's",
            "memory": "Peak memory of training over full fine-tuning's",
            "inference": "Inference time of the merged network over the untouched one's",
        }[self.ratio]
        bound = f"at most {self.at_most:g}" if self.within is None else f"within 1 ± {self.within:g}"
        return f"{name}, {bound}, measured alone on the machine"

    def judge(self, results: Results, method: str) -> Finding:
        rows = claim_costs.ratios(results, method, self.ratio, self.tolerance)
        if rows is None:
            return Finding("not measured", UNDECIDED, f"run {claim_costs.COMMAND}")
        if rows.empty:
            return Finding(
                "cost.csv has no such ratio of a CoLoRA method",
                UNDECIDED,
                f"a CoLoRA method and full fine-tuning on one backbone in what {claim_costs.COMMAND} measures",
            )
        lowest, highest = (0, self.at_most) if self.within is None else (1 - self.within, 1 + self.within)
        inside = (rows.lo >= lowest) & (rows.hi <= highest)
        outside = (rows.lo > highest) | (rows.hi < lowest)
        text = "; ".join(
            f"{row.value:.3f}{'' if pd.isna(row.lo) else f' {interval(row.lo, row.hi)}'} ({row.setting})"
            for row in rows.itertuples()
        )
        if inside.all() or outside.all():
            return Finding(text, SUPPORTED if inside.all() else CONTRADICTED)
        if (inside | outside).all():
            return Finding(text, UNDECIDED, f"one setting to be agreed on: it holds only at {_settings(rows[inside])}")
        return Finding(text, UNDECIDED, f"more rounds at {_settings(rows[~inside & ~outside])}")


Test = Annotated[Parameters | Gain | Comparable | Stability | Cost, Field(discriminator="kind")]


def reference(results: Results, method: str, family: str) -> str | None:
    """The profile's first method of a family on the method's backbone, as in `pipelines.evidence.comparisons.references`."""
    methods = results.whole
    found = methods.index[(methods.family == family) & (methods.backbone == methods.backbone[method])]
    return found[0] if len(found) else None


def pair(results: Results, method: str, against: str):
    """The row of comparisons.csv that sets the method against a family of references or a group; None without a result."""
    rows = results.comparisons
    rows = rows[(rows.method == method) & (rows.against == against) & rows.difference.notna()]
    return next(rows.itertuples(), None)


def lacking(results: Results, method: str, against: str) -> str:
    """What to run or add so that there is a comparison."""
    methods, holes, rows = results.whole, results.holes, results.comparisons
    asked = rows.reference[(rows.method == method) & (rows.against == against)]
    missing = holes[holes.method.isin([*asked, method])]
    if len(asked) and len(missing):  # without runs of a common seed
        return train(missing)
    if against in GROUPS:
        there, wanted = methods[methods.group == against], f"of group {against}"
    else:
        there = methods[(methods.family == against) & (methods.backbone == methods.backbone[method])]
        wanted = f"of family {against} on {methods.backbone[method]}"
    if there.empty:
        return f"a method {wanted} in the profile"
    return "run python -m pipelines.summarise" if there.seeds.any() else train(holes[holes.method.isin(there.index)])


def train(holes: pd.DataFrame) -> str:
    """The command that trains the first of some missing runs."""
    return f"run python -m pipelines.train --method {holes.method.iloc[0]} --seed {holes.seed.iloc[0]}"


def needed(row) -> str:
    """What a comparison that decides nothing would need to find a difference of the margin."""
    seeds, margin = row.seeds_needed, points(row.margin)
    if np.isinf(seeds):
        return f"more test images: no number of seeds shows {margin} on these"
    if pd.isna(seeds) or seeds <= row.seeds:
        return f"more seeds: the difference is near {margin} or below"
    return f"about {seeds:.0f} seeds, with which {margin} is found with 80 % power"


def seeds_to_part(name: str, ours: pd.Series, theirs: pd.Series) -> int | None:
    """Fewest seeds at which the intervals of a measure would no longer meet if the values stayed as they are.

    None for counts of epochs or spikes, values without an interval or alike, and beyond `MOST_SEEDS`.
    """
    if name not in quality.POINTS or pd.isna([ours.hi, theirs.hi]).any() or ours.value == theirs.value:
        return None
    steady, other = (ours, theirs) if ours.value < theirs.value else (theirs, ours)
    for n in range(int(min(ours.seeds, theirs.seeds)) + 1, MOST_SEEDS + 1):
        if name == "spread":
            high, low = spread_interval(steady.value, n)[1], spread_interval(other.value, n)[0]
        else:
            # The upper limit tells the deviation: the lower one may be cut at zero.
            scale = [
                np.sqrt(row.seeds / n) * t.ppf(0.975, n - 1) / t.ppf(0.975, row.seeds - 1) for row in (steady, other)
            ]
            high = steady.value + (steady.hi - steady.value) * scale[0]
            low = other.value - (other.hi - other.value) * scale[1]
        if high < low:
            return n
    return None


def _told(results: Results, row, difference: float, low: float, high: float, p: float) -> str:
    """A difference from another method; of another group's without pretrained weights this is said too."""
    about = [row.against] if row.against in GROUPS else []
    about += ["from scratch"] if about and start(results.methods.weights[row.reference]) == "from scratch" else []
    other = f"{row.reference} ({', '.join(about)})" if about else row.reference
    holm = "" if pd.isna(p) else f"Holm's p {p_text(p)}, "
    seeds = f"{row.seeds} seed{'s' * (row.seeds != 1)}"
    return f"{signed(difference)} {interval(low, high, plus=True)} against {other}, {holm}{seeds}"


def _value(row: pd.Series, scale: float) -> str:
    if pd.isna(row.value):
        return "undefined"
    limits = "" if pd.isna(row.lo) else f" [{scale * row.lo:.2f}, {scale * row.hi:.2f}]"
    return f"{scale * row.value:.2f}{limits}"


def _shown(against: str) -> str:
    return HEADS.get(against, against)


def _listed(names: list[str]) -> str:
    return ", ".join(_shown(name) for name in names)


def _settings(rows: pd.DataFrame) -> str:
    return "; ".join(rows.setting)
