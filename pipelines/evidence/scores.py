"""What a test says beyond accuracy and AUC: scores by class, and whether the probabilities can be believed.

Pure functions on (labels (N,) integers in 0..C-1, probabilities (N, C)); an image's prediction is its most probable
class, its confidence that probability. Accuracy and AUC are in `pipelines.runs.metrics`, which training uses too.
"""

import numpy as np
import pandas as pd
from scipy.stats import binom
from sklearn.metrics import multilabel_confusion_matrix

CLASS_SCORES = ("recall", "precision", "specificity", "f1")
SCORES = (*CLASS_SCORES, "ece", "ece_chance", "brier", "nll")
BINS = 15  # of Guo et al. 2017
FLOOR = np.finfo(np.float64).eps  # scikit-learn's too: a class held impossible costs 36 nats, not infinity


def class_scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of each class against the rest, as (C,) arrays; from its true and false positives and negatives:

        recall      = TP / (TP + FN)    NaN without an image of the class
        precision   = TP / (TP + FP)    NaN without a prediction of it
        specificity = TN / (TN + FP)    NaN without an image of another class
        f1          = 2 TP / (2 TP + FP + FN)    NaN without an image of it; 0 when it has images and is never predicted

    A score with nothing to count is NaN, not 0 (scikit-learn's default): no evidence is not failure. Also
    returned: `images` and `predicted`, the counts.
    """
    classes = np.arange(probabilities.shape[1])
    (tn, fp), (fn, tp) = multilabel_confusion_matrix(labels, probabilities.argmax(1), labels=classes).transpose(1, 2, 0)
    return {
        "images": tp + fn,
        "predicted": tp + fp,
        "recall": _share(tp, tp + fn),
        "precision": _share(tp, tp + fp),
        "specificity": _share(tn, tn + fp),
        "f1": np.where(tp + fn > 0, _share(2 * tp, 2 * tp + fp + fn), np.nan),
    }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def reliability(labels: np.ndarray, probabilities: np.ndarray, n_bins: int = BINS) -> pd.DataFrame:
    """The bins of a reliability diagram: a row for each of `n_bins` intervals (low, high] of equal width.

    Columns: bin (from 1), low, high, confidence and accuracy (means over the bin's images, NaN in an empty bin),
    count.
    """
    top, correct = probabilities.max(1), probabilities.argmax(1) == labels
    edges = np.linspace(0, 1, n_bins + 1)
    # Float32 rows may sum to a little more than 1: whatever lies beyond the last inner edge is in the last bin.
    place = np.searchsorted(edges[1:-1], top, side="left")
    count = np.bincount(place, minlength=n_bins)
    return pd.DataFrame({
        "bin": np.arange(1, n_bins + 1), "low": edges[:-1], "high": edges[1:],
        "confidence": _share(np.bincount(place, top, n_bins), count),
        "accuracy": _share(np.bincount(place, correct, n_bins), count), "count": count,
    })  # fmt: skip


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, n_bins: int = BINS) -> float:
    """Expected calibration error: sum_b n_b / N |accuracy_b - confidence_b| over the bins of `reliability`.

    Guo et al. 2017, "On calibration of modern neural networks", eq. 3. It is biased upwards: bins of few images miss
    their confidence by chance; `calibration_error_by_chance` says by how much.
    """
    bins = reliability(labels, probabilities, n_bins)
    return float(((bins.accuracy - bins.confidence).abs() * bins["count"]).sum() / len(labels))


def calibration_error_by_chance(labels: np.ndarray, probabilities: np.ndarray, n_bins: int = BINS) -> float:
    """The calibration error to expect of a perfectly calibrated network with the same confidences.

    sum_b E|X_b - n_b q_b| / N with X_b ~ Binomial(n_b, q_b), q_b the bin's mean confidence. The binomial's mean
    absolute deviation is De Moivre's: 2 v (1 - q) P(X = v), v = floor(n q) + 1 (Diaconis & Zabell 1991).
    """
    bins = reliability(labels, probabilities, n_bins).query("count > 0")
    n, q = bins["count"].to_numpy(), bins.confidence.to_numpy().clip(0, 1)
    v = np.floor(n * q) + 1
    return float((2 * v * (1 - q) * binom.pmf(v, n, q)).sum() / len(labels))


def brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Brier score over all classes, from 0 to 2: mean_i sum_c (p_ic - [y_i = c])^2 (Brier 1950, eq. 2)."""
    return float(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1).mean())


def negative_log_likelihood(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of -ln p(label), in nats; probabilities below `FLOOR` count as `FLOOR`, 2.2e-16, so that it stays finite."""
    return float(-np.log(probabilities[np.arange(len(labels)), labels].clip(FLOOR)).mean())


def scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """All of `SCORES`. Those by class are averaged with equal weight (macro) and NaN where a class has none.

    The macro average does not skip a class that is never predicted: a method that gave it up would look the better.
    """
    by_class = class_scores(labels, probabilities)
    return {
        **{name: float(by_class[name].mean()) for name in CLASS_SCORES},
        "ece": calibration_error(labels, probabilities),
        "ece_chance": calibration_error_by_chance(labels, probabilities),
        "brier": brier(labels, probabilities),
        "nll": negative_log_likelihood(labels, probabilities),
    }


def rows(runs: dict) -> list[dict]:
    """Rows of scores.csv, of runs by (method, seed) as `pipelines.runs.reading.read_runs` returns them."""
    return [
        {"method": method, "seed": seed, **scores(run["labels"], run["probabilities"])}
        for (method, seed), run in runs.items()
    ]


def class_rows(runs: dict, classes: list[str]) -> list[dict]:
    """Rows of class_scores.csv: a run and class each, the class by its name."""
    return [
        {"method": method, "seed": seed, "class": name, **{score: values[place] for score, values in found.items()}}
        for (method, seed), run in runs.items()
        for found in [class_scores(run["labels"], run["probabilities"])]
        for place, name in enumerate(classes)
    ]


def reliability_rows(by_method: dict[str, list[dict]]) -> list[dict]:
    """Rows of reliability.csv: `reliability` of each method, the predictions of its runs pooled.

    Where runs share a test set, `count` counts an image once a run; it is then no number of independent images.
    """
    found = []
    for method, own in by_method.items():
        if own:
            pooled = (np.concatenate([run[name] for run in own]) for name in ("labels", "probabilities"))
            found += [{"method": method, **row} for row in reliability(*pooled).to_dict("records")]
    return found
