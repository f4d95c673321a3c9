"""The kinds of test that claims.yaml may name, each a small class: its arguments, its words, and how it judges.

Accuracy and AUC are judged in `pipelines.evidence`, which writes contrasts.csv: here its verdicts are only told. Costs
are those of cost.csv; times in runs.csv are never used, as those runs may have run beside other work.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from pipelines.profile.schema import Section
from report.reading import Results, beside
from report.text import interval, setting, signed

SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_TESTED = WORDS = ("supported", "contradicted", "inconclusive", "not tested")
POINT = ["backbone", "image_size", "batch_size", "precision", "compile"]  # what a cost is measured at
COST = "run `make cost` with this profile active"


@dataclass(frozen=True)
class Finding:
    """evidence: the numbers. verdict: one of `WORDS`. takes: what would decide it, or why it was not tested."""

    evidence: str
    verdict: str
    takes: str = ""


class Parameters(Section):
    """The share of a comparator's trained parameters that the method trains: exact, so never inconclusive."""

    kind: Literal["parameters"]
    against: str
    at_most: float = Field(gt=0)

    def words(self) -> str:
        return f"Trained parameters, at most {100 * self.at_most:g} % of those of {self.against}"

    def judge(self, results: Results, method: str) -> Finding:
        counts = results.methods.trainable.reindex([method, self.against])
        if counts.isna().any():
            missing = ", ".join(counts.index[counts.isna()])
            return Finding("no count", NOT_TESTED, f"no result of {missing} in this profile")
        own, other = counts
        share = own / other
        text = f"{own:,.0f} against {other:,.0f} of {self.against}: {100 * share:.1f} %"
        return Finding(text, SUPPORTED if share <= self.at_most else CONTRADICTED)


class Contrast(Section):
    """The verdict of contrasts.csv on one declared contrast.

    says: `higher`, the method is better; `reaches`, by the claimed size; `noninferior`, at most the margin worse.
    """

    kind: Literal["contrast"]
    says: Literal["higher", "reaches", "noninferior"]
    metric: Literal["accuracy", "auc"]
    against: str

    def words(self) -> str:
        metric = {"accuracy": "accuracy", "auc": "macro AUC"}[self.metric]
        what = {
            "higher": "shown to be above that of",
            "reaches": "above by the claimed size, over",
            "noninferior": "at most the margin below that of",
        }[self.says]
        return f"Test {metric} {what} {self.against}"

    def judge(self, results: Results, method: str) -> Finding:
        rows = results.contrasts
        rows = rows[(rows.data == "test") & (rows.metric == self.metric) & (rows.comparator == self.against)]
        if rows.empty:
            return Finding("no contrast", NOT_TESTED, f"{method} and {self.against} are not both in this profile")
        row = rows.loc[rows.share.idxmax()]
        word = row[self.says]
        if word not in WORDS:
            return Finding("no verdict", NOT_TESTED, f"claims.yaml declares no {self.says} for {self.against}")
        reason = "" if pd.isna(row.reason) or word in (SUPPORTED, CONTRADICTED) else str(row.reason)
        if pd.isna(row.difference):
            return Finding(f"against {self.against}: no difference", word, reason)
        bounds = {"reaches": f", claimed {signed(row['size'])}", "noninferior": f", margin {row.margin:g}"}
        text = f"{signed(row.difference)} {interval(row.lo, row.hi, plus=True)} against {self.against}"
        text += f", {unlike}" if (unlike := results.unlike(row.method, row.against)) else ""
        return Finding(f"{text}{bounds.get(self.says, '')}; {row.runs:.0f} runs", word, reason)


class Elsewhere(Section):
    """A contrast on other data sets, each in a profile of its own: judged only when every one was run.

    All must support the claim; one contradiction is enough against it.
    """

    kind: Literal["elsewhere"]
    datasets: list[str] = Field(min_length=1)
    contrast: Contrast

    def words(self) -> str:
        return f"{self.contrast.words()}, on each of {', '.join(self.datasets)}"

    def judge(self, results: Results, method: str) -> Finding:
        on = {own.dataset: own for own in reversed(beside(results))}  # of several on the same data the first by name
        found = {name: self.contrast.judge(on[name], method) for name in self.datasets if name in on}
        told = "; ".join(f"{name}: {found[name].evidence if name in found else 'not run'}" for name in self.datasets)
        missing = ", ".join(name for name in self.datasets if name not in found)
        takes = [f"a profile on each of {missing}"] if missing else []
        takes += [f"{name}: {own.takes}" for name, own in found.items() if own.verdict == NOT_TESTED]
        if takes:
            return Finding(told, NOT_TESTED, "; ".join(takes))
        words = {own.verdict for own in found.values()}
        word = next(word for word in (CONTRADICTED, INCONCLUSIVE, SUPPORTED) if word in words)
        open_ = dict.fromkeys(own.takes for own in found.values() if own.verdict == word == INCONCLUSIVE)
        return Finding(told, word, "; ".join(open_))


class Stability(Section):
    """Whether training is steadier than a comparator's by the measures of stability.csv, lower being steadier.

    Supported: the 95 % interval of some measure lies below the comparator's, and none above. Contradicted: the other
    way round. Intervals that do not meet are a stricter sign than p < 0.05, as several measures are looked at.
    """

    kind: Literal["stability"]
    measures: list[Literal["spread", "jitter", "drawdown", "epochs_to_final", "loss_spikes"]] = Field(min_length=1)
    against: str

    def words(self) -> str:
        names = ", ".join(name.replace("_", " ") for name in self.measures)
        return f"Intervals of some of {names} below those of {self.against}, none above"

    def judge(self, results: Results, method: str) -> Finding:
        rows = results.stability.dropna(subset=["value", "lo", "hi"]).set_index("measure")
        ours, theirs = rows[rows.method == method], rows[rows.method == self.against]
        both = [name for name in self.measures if name in ours.index and name in theirs.index]
        if not both:
            return Finding("no measure of both", NOT_TESTED, f"{method} and {self.against} with two runs or more each")
        ours, theirs = ours.loc[both], theirs.loc[both]
        pairs = zip(both, ours.itertuples(), theirs.itertuples(), strict=True)
        told = [f"{name.replace('_', ' ')} {_three(own)} against {_three(other)}" for name, own, other in pairs]
        text = f"against {self.against}: {'; '.join(told)}"
        lower, higher = (ours.hi < theirs.lo).any(), (ours.lo > theirs.hi).any()
        if lower != higher:
            return Finding(text, SUPPORTED if lower else CONTRADICTED)
        takes = "the measures disagree" if lower else "more runs or epochs: the intervals overlap"
        return Finding(text, INCONCLUSIVE, takes)


class Cost(Section):
    """A ratio to full fine-tuning in cost.csv, at every setting where it was measured for the method.

    Supported where every interval lies at or below `at_most`, contradicted where every one lies above. tolerance: for a
    ratio without an interval, how far it may be off, as a share. A second reading in the growth sweeps counts as a
    setting of its own.
    """

    kind: Literal["cost"]
    ratio: Literal["step", "peak"]
    at_most: float = Field(gt=0)
    tolerance: float = Field(0.0, ge=0, lt=1)

    def words(self) -> str:
        name = {"step": "Time of a training step", "peak": "Peak memory of training"}[self.ratio]
        return f"{name} over full fine-tuning's, at most {self.at_most:g}, measured alone on the machine"

    def judge(self, results: Results, method: str) -> Finding:
        column, rows, again = f"{self.ratio}_ratio", results.cost, results.cost_growth
        again = again[again.sweep != "rank"].drop_duplicates(["method", *POINT])
        if len(again) and len(rows):
            rows = pd.concat([rows, again.merge(rows[["method", *POINT]].drop_duplicates())])
        rows = rows[(rows.method == method) & rows[column].notna()]
        if rows.empty:
            return Finding("not measured", NOT_TESTED, COST)
        value = rows[column]
        low, high = (rows.get(f"{column}_{end}", value * float("nan")) for end in ("lo", "hi"))
        low, high = low.fillna(value * (1 - self.tolerance)), high.fillna(value * (1 + self.tolerance))
        text = "; ".join(
            f"{v:.3f} {interval(lo, hi)} ({setting(row)})"
            for v, lo, hi, row in zip(value, low, high, rows.itertuples(), strict=True)
        )
        if (high <= self.at_most).all():
            return Finding(text, SUPPORTED)
        if (low > self.at_most).all():
            return Finding(text, CONTRADICTED)
        return Finding(text, INCONCLUSIVE, "more processes, or one setting agreed on: they do not all say the same")


class Inference(Section):
    """Whether the merged network runs the operators of the plain one, hence costs the same, at every setting measured.

    Decided by identity: the operators of one image in their order with the shapes they return, and their FLOPs. No
    timing can decide it better.
    """

    kind: Literal["inference"]
    against: str

    def words(self) -> str:
        return f"The merged network runs the same operators on an image as the network of {self.against}"

    def judge(self, results: Results, method: str) -> Finding:
        rows = results.cost.dropna(subset=["inference_operators"])
        own, plain = rows[rows.method == method], rows[rows.method == self.against]
        pairs = own.merge(plain, on=POINT, suffixes=("", "_plain")).drop_duplicates(["backbone", "image_size"])
        if pairs.empty:
            return Finding("not measured", NOT_TESTED, COST)
        same = pairs.inference_operators == pairs.inference_operators_plain
        text = "; ".join(
            f"{row.backbone}, {row.image_size:.0f} px: {row.inference_flops:,.0f} FLOPs against "
            f"{row.inference_flops_plain:,.0f}, {'the same' if alike else 'other'} operators"
            for alike, row in zip(same, pairs.itertuples(), strict=True)
        )
        return Finding(text, SUPPORTED if same.all() else CONTRADICTED)


Test = Annotated[Parameters | Contrast | Elsewhere | Stability | Cost | Inference, Field(discriminator="kind")]


def _three(row) -> str:
    return f"{row.value:.4f} {interval(row.lo, row.hi)}"
