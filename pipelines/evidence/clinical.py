"""Scores that a clinic asks for, with intervals: rows of clinical.csv, and the curves of roc.csv.

For images, and for patients: a patient's probabilities are the mean over his images of one class, so that a patient
with images of two classes counts once in each.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from pipelines.evidence import measures, stats
from pipelines.evidence.outcomes import Outcome, count_units, counted, mean, units_of_class

WHOLE = ("accuracy", "balanced_accuracy", "kappa")
POINTS = np.linspace(0, 1, 51)
MOST = 20  # classes, of which each is set against the rest: nobody reads more, and they take hours


def rows(outcomes: dict[str, list[Outcome]], classes: list[str]) -> list[dict]:
    """A row a method, level ("image", or "patient" where patients are known), measure and class."""
    found = []
    for method, own in outcomes.items():
        levels = {"image": own} if own else {}
        if own and own[0].patients:
            levels["patient"] = [by_patient(outcome) for outcome in own]
        for level, tested in levels.items():
            for (name, measure), (value, lo, hi) in measured(tested, classes).items():
                about = {"method": method, "level": level, "class": name, "measure": measure, "runs": len(tested)}
                found.append(about | {"value": value, "lo": lo, "hi": hi})
    return found


def by_patient(outcome: Outcome) -> Outcome:
    """A patient's images of one class as one: the mean of their probabilities."""
    pairs, place = np.unique(np.c_[outcome.units, outcome.labels], axis=0, return_inverse=True)
    size = np.bincount(place)
    columns = [np.bincount(place, column) / size for column in outcome.probabilities.T]
    probabilities, indices = np.array(columns).T, np.arange(len(pairs))
    return replace(outcome, indices=indices, labels=pairs[:, 1], probabilities=probabilities, units=pairs[:, 0])


def measured(tested: list[Outcome], classes: list[str]) -> dict[tuple[str | None, str], tuple[float, float, float]]:
    """{(class, measure): (mean over runs, lower, upper limit)}; the class is None for measures of all classes, which
    are the only ones where there are more than `MOST`.
    """
    found = {(None, measure): _limits(mean(tested, measure), measure, counted(tested, measure)) for measure in WHOLE}
    if len(classes) > MOST:
        return found
    values, influence = map(np.array, zip(*(own.jackknife(measures.ranked) for own in tested), strict=True))
    units, of_class = count_units(tested), units_of_class(tested)
    for (place, measure), (c, name) in product(enumerate(measures.RANKED), enumerate(classes)):
        estimate = stats.estimate(values[:, place, c], influence[:, :, place, c], units)
        own = [of_class[c]] if measure == "sensitivity" and c in of_class else []
        found[name, measure] = _limits(estimate, measure, own)
    return found


def _limits(estimate: stats.Estimate, measure: str, counted: Sequence[int]) -> tuple[float, float, float]:
    limits = estimate.interval() if measure == "kappa" else estimate.share_interval(counted=counted)
    return estimate.mean, *limits


def curves(outcomes: dict[str, list[Outcome]], classes: list[str]) -> list[dict]:
    """Rows of roc.csv: at `POINTS` of x the mean over runs of each class's curve against the rest.

    ROC: the true positive rate between thresholds is interpolated. Precision and recall: the highest precision at a
    recall of x or more. A run without an image of the class, or of another, has no curve.
    """
    found = []
    for method, own in outcomes.items():
        for number, name in enumerate(classes):
            sides = [(outcome.labels == number, outcome.probabilities[:, number]) for outcome in own]
            sides = [side for side in sides if 0 < side[0].sum() < len(side[0])]
            for curve, points in (("roc", _roc), ("precision_recall", _precision)):
                if sides:
                    height = np.mean([points(*side) for side in sides], axis=0)
                    about = {"method": method, "class": name, "curve": curve}
                    found += [about | {"x": x, "y": y} for x, y in zip(POINTS, height, strict=True)]
    return found


def _roc(own: np.ndarray, score: np.ndarray) -> np.ndarray:
    alarms, recall, _ = roc_curve(own, score)
    return np.interp(POINTS, alarms, recall)


def _precision(own: np.ndarray, score: np.ndarray) -> np.ndarray:
    precision, recall, _ = precision_recall_curve(own, score)  # recall descends
    return np.maximum.accumulate(precision)[np.searchsorted(-recall, -POINTS, side="right") - 1]
