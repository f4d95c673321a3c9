"""The declared contrasts: estimates, Holm's correction, and the verdict words, which are given here and nowhere else.

A row's Holm-adjusted interval decides its three questions. Better: supported above zero, contradicted below; the
patient swap test must agree (it is asked where the metric is a sum over images, so not of AUC). By the claimed size:
supported where the method is shown to be better and the size lies in or below the interval, contradicted where the
whole interval lies below the size. Not inferior: supported where the whole interval lies above minus the margin,
contradicted below it.
"""

from dataclasses import dataclass

import numpy as np

from pipelines.evidence import outcomes as tests
from pipelines.evidence import stats
from pipelines.evidence.declared import Comparator, Declared
from pipelines.evidence.outcomes import Outcome

SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_TESTED = "supported", "contradicted", "inconclusive", "not tested"
LEARNED = 0.9  # training accuracy that a network from scratch should exceed
ABOVE_CHANCE = 0.05  # by which training accuracy should exceed the share of the largest class
NEARLY = 0.9  # of the smallest published network's parameters


@dataclass(frozen=True)
class Network:
    """What the verdicts ask about a method's networks; train_acc: in the tested epoch, mean over runs."""

    from_scratch: bool
    parameters: int
    train_acc: float

    def not_learned(self, chance: float) -> str | None:
        """Why its result says nothing of its kind of network, or None; chance: the share of the largest class."""
        least = LEARNED if self.from_scratch else chance + ABOVE_CHANCE
        if self.train_acc > least:
            return None
        asked = f"{least:.2f} is asked of a network {'from scratch' if self.from_scratch else 'that is not guessing'}"
        return f"did not learn: training accuracy {self.train_acc:.3f}, more than {asked}"

    def unpublished(self, comparator: Comparator) -> str | None:
        """Why a network from scratch stands for nothing that its authors publish, or None."""
        published = comparator.published_parameters
        if not self.from_scratch or published is None or self.parameters >= NEARLY * published:
            return None
        return (
            f"from scratch at a size nobody publishes: {self.parameters / 1e6:.1f} million parameters, the smallest "
            f"published network has {published / 1e6:.1f}"
        )


def judge(
    lo: float, hi: float, margin: float | None, size: float | None = None, guard_p: float = float("nan")
) -> dict[str, str | None]:
    """The verdict words of one interval: {"higher", "reaches", "noninferior"}; None without a size, or a margin.

    Args:
        lo, hi: the Holm-adjusted interval of the difference; NaN decides nothing.
        margin, size: of non-inferiority, and the gain that is claimed.
        guard_p: the swap test's adjusted p; NaN where it is not asked.
    """
    agrees = not guard_p >= 1 - stats.LEVEL
    higher = SUPPORTED if lo > 0 and agrees else CONTRADICTED if hi < 0 and agrees else INCONCLUSIVE
    reaches = None
    if size is not None:
        reaches = CONTRADICTED if hi < size else SUPPORTED if higher == SUPPORTED else INCONCLUSIVE
    noninferior = None
    if margin is not None:
        noninferior = SUPPORTED if lo > -margin else CONTRADICTED if hi < -margin else INCONCLUSIVE
    return {"higher": higher, "reaches": reaches, "noninferior": noninferior}


@dataclass(frozen=True)
class Trial:
    """What one data set at one share of the labels has for the contrasts.

    outcomes: by method. networks: by method. names: what a declared name is called at this share. folds: of the test
    images of these runs; repeat: the runs that one repeat of all folds trains.
    """

    data: str
    share: float
    outcomes: dict[str, list[Outcome]]
    networks: dict[str, Network]
    names: dict[str, str]
    folds: int
    repeat: int


def rows(declared: Declared, trial: Trial) -> list[dict]:
    """Rows of contrasts.csv, in the order declared: one Holm family a metric over those that can be tested."""
    asked = declared.contrasts(trial.data)
    found = [_row(declared, trial, *contrast) for contrast in asked]
    for metric in dict.fromkeys(metric for _, metric, _ in asked):
        family = [row for row in found if row["metric"] == metric and "estimate" in row]
        p_holm, levels = stats.holm([row["p"] for row in family])
        p_swap_holm, _ = stats.holm([row["p_swap"] for row in family])
        for row, p, swap, level in zip(family, p_holm, p_swap_holm, levels, strict=True):
            _decide(declared, trial, row, p, swap, level)
    return found


def _row(declared: Declared, trial: Trial, comparator: str, metric: str, size: float | None) -> dict:
    """A contrast before its family is known: with "estimate" and "pairs" where it can be tested."""
    method, against = trial.names.get(declared.method), trial.names.get(comparator)
    margin = None if metric == "auc" else declared.margin
    row = {
        "data": trial.data, "share": trial.share, "metric": metric, "method": method or declared.method,
        "against": against or comparator, "comparator": comparator, "size": size, "margin": margin,
    }  # fmt: skip
    pairs = tests.paired(trial.outcomes.get(method, []), trial.outcomes.get(against, []))
    why = _untested(declared, trial, comparator, pairs)
    if pairs:  # the numbers of a network that did not learn are told, and judged by nobody
        first, estimate = [a for a, _ in pairs], tests.difference(pairs, metric)
        row |= {
            "difference": estimate.mean, "se": estimate.se, "runs": len(pairs), "folds": trial.folds,
            "repeats": len(pairs) / trial.repeat, "images": tests.count_images(first),
            "patients": tests.count_patients(first),
        }  # fmt: skip
    if why:
        asked = {"higher": True, "reaches": size is not None, "noninferior": margin is not None}
        return row | {"reason": why} | {question: NOT_TESTED for question in asked if asked[question]}
    p_swap = float("nan")
    if metric != "auc":
        sides = (np.mean([own.parts(metric) for own in side], axis=0) for side in zip(*pairs, strict=True))
        p_swap = stats.swap_p(*sides)
    return row | {"estimate": estimate, "pairs": pairs, "p": estimate.p_value(), "p_swap": p_swap}


def _untested(declared: Declared, trial: Trial, comparator: str, pairs: list) -> str | None:
    names = [(declared.method, trial.names.get(declared.method)), (comparator, trial.names.get(comparator))]
    for name, method in names:
        if not trial.outcomes.get(method):
            return f"no run of {method or name}"
    if not pairs:
        return f"{names[0][1]} and {names[1][1]} have no seed in common"
    for _, method in names:
        if why := trial.networks[method].not_learned(tests.largest_class([a for a, _ in pairs])):
            return f"{method} {why}"
    return trial.networks[names[1][1]].unpublished(declared.against[comparator])


def _decide(declared: Declared, trial: Trial, row: dict, p_holm: float, p_swap_holm: float, level: float) -> None:
    """Fill in what follows from a row's place in its family: level, interval, verdicts, what would decide it."""
    estimate, pairs = row.pop("estimate"), row.pop("pairs")
    lo, hi = estimate.interval_over_runs(level)
    row |= {"level": level, "lo": lo, "hi": hi, "p_holm": p_holm, "p_swap_holm": p_swap_holm}
    row["trained_lo"], row["trained_hi"] = estimate.trained_interval(level)
    if trial.folds > 1:
        row["corrected_lo"], row["corrected_hi"] = tests.corrected(pairs, row["metric"], level)
    row |= judge(lo, hi, row["margin"], row["size"], p_swap_holm)
    # A size that is excluded already needs no more runs.
    target = row["size"] if row["size"] and row["reaches"] != CONTRADICTED else row["margin"]
    needed = estimate.repeats_needed(target, trial.folds, level) if target else float("nan")
    row["repeats_needed"] = np.ceil(needed * trial.folds / trial.repeat) if np.isfinite(needed) else needed
    if INCONCLUSIVE in (row["higher"], row["reaches"], row["noninferior"]):
        row["reason"] = _what_would_decide(row, target)


def _what_would_decide(row: dict, target: float | None) -> str:
    if row["runs"] < 2:
        return "two runs or more"
    if np.isnan(row["lo"]):
        return "a class whose images are all of one patient leaves no interval: more patients of it"
    if row["higher"] == INCONCLUSIVE and not row["lo"] <= 0 <= row["hi"]:
        return f"the patient swap test does not agree (Holm's p {row['p_swap_holm']:.2g}): more patients"
    if INCONCLUSIVE not in (row["higher"], row["reaches"]):
        return "whether it is at most the margin worse: more repeats, or more patients"
    if target is None:
        return "more repeats, or more patients"
    needed, shown = row["repeats_needed"], f"a true difference of {target:g} with 80 % power"
    if np.isnan(needed):
        return f"a second repeat of the folds, which would say how many show {shown}"
    if np.isinf(needed):
        return f"not reachable on these images: no number of repeats shows {shown}; more patients"
    if needed <= row["repeats"]:
        return f"{row['repeats']:g} repeats would show {shown}; a smaller one takes more repeats, or more patients"
    return f"{needed:.0f} repeats in place of {row['repeats']:g} show {shown}"
