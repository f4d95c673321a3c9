"""Scores that a clinic asks for, with intervals: rows of clinical.csv, and the curves of roc.csv.

For images, and for patients: a patient's probabilities are the mean over his images of one class, so that a patient
with images of two classes counts once in each.
"""

from functools import partial

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from pipelines.evidence import measures, stats
from pipelines.evidence.outcomes import Outcome

WHOLE = {"accuracy": measures.accuracy, "balanced_accuracy": measures.balanced_accuracy, "kappa": measures.kappa}
POINTS = np.linspace(0, 1, 51)


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
    return Outcome(
        outcome.method, outcome.seed, np.arange(len(pairs)), pairs[:, 1], np.array(columns).T, pairs[:, 0],
        outcome.n_units, outcome.patients, outcome.trained_on,
    )  # fmt: skip


def measured(tested: list[Outcome], classes: list[str]) -> dict[tuple[str | None, str], tuple[float, float, float]]:
    """{(class, measure): (mean over runs, lower, upper limit)}; the class is None for measures of all classes."""
    found: dict[tuple[str | None, str], list] = {}
    for outcome in tested:
        draw = partial(_draw, outcome.labels, outcome.probabilities)
        for key, figure in _named(stats.jackknife(draw, outcome.units, outcome.n_units), classes).items():
            found.setdefault(key, []).append(figure)
    units = len(np.unique(np.concatenate([outcome.units for outcome in tested])))
    return {key: _with_limits(*zip(*figures, strict=True), units, key[1]) for key, figures in found.items()}


def _draw(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """All measures side by side, (B, 3 + 3 C)."""
    whole = [measure(labels, probabilities, counts)[:, None] for measure in WHOLE.values()]
    return np.concatenate([*whole, *measures.ranked(labels, probabilities, counts).values()], axis=1)


def _named(figure: tuple[np.ndarray, np.ndarray], classes: list[str]) -> dict:
    """The columns of `_draw` by class and measure: a value and the units' influence."""
    keys = [(None, measure) for measure in WHOLE]
    keys += [(name, measure) for measure in ("auc", "average_precision", "sensitivity") for name in classes]
    values, influence = figure
    return {key: (values[column], influence[:, column]) for column, key in enumerate(keys)}


def _with_limits(values, influence, units: int, measure: str) -> tuple[float, float, float]:
    found = stats.estimate(np.array(values), np.array(influence), units)
    counted = measure in ("accuracy", "balanced_accuracy", "sensitivity")
    lo, hi = found.interval() if measure == "kappa" else found.share_interval(counted=counted)
    return found.mean, lo, hi


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
