"""Measures of one test under resampled images, for the jackknife: pure functions on arrays.

Every function takes labels (N,), integers in 0..C-1, probabilities (N, C) and counts (B, N), how often each image
counts in each of B draws, and returns a value a draw, (B,), or more. What has nothing to count is NaN. An image's
prediction is its most probable class.
"""

import numpy as np

SPECIFICITY = 0.95  # at which sensitivity is told
RANKED = ("auc", "average_precision", "sensitivity")


def confusion(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Images by true and predicted class, (B, C, C)."""
    classes = probabilities.shape[1]
    cell = np.eye(classes**2)[labels * classes + probabilities.argmax(1)]
    return (counts @ cell).reshape(-1, classes, classes)


def accuracy(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Share of images whose prediction is the label."""
    return counts @ (probabilities.argmax(1) == labels) / counts.sum(1)


def balanced_accuracy(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over the classes that the test has of the share of their images that are named rightly."""
    table = confusion(labels, probabilities, counts)
    with np.errstate(invalid="ignore"):
        recall = np.diagonal(table, axis1=1, axis2=2) / table.sum(2)
    return recall[:, np.unique(labels)].mean(1)


def kappa(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Cohen's kappa (1960): (p_o - p_e) / (1 - p_e), p_o the agreement with the labels, p_e that of chance."""
    table = confusion(labels, probabilities, counts)
    table = table / table.sum((1, 2), keepdims=True)
    observed = np.trace(table, axis1=1, axis2=2)
    chance = (table.sum(1) * table.sum(2)).sum(1)
    with np.errstate(invalid="ignore"):
        return (observed - chance) / (1 - chance)


def ranked(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """What the ranking by a class's probability says of the class against the rest, (B, 3, C), the `RANKED`:

    auc                 area under the ROC curve; ties count half (Mann-Whitney)
    average_precision   sum of precision times the step of recall, over the thresholds (scikit-learn's form)
    sensitivity         highest recall at a threshold of specificity 0.95 or more
    """
    found = np.empty((len(counts), len(RANKED), probabilities.shape[1]))
    for c, score in enumerate(probabilities.T):
        order = np.argsort(-score, kind="stable")
        # A threshold lies below the last of equal scores.
        ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
        own = labels[order] == c
        drawn = counts[:, order]
        right, wrong = (np.cumsum(drawn * side, axis=1)[:, ends].astype(float) for side in (own, ~own))
        with np.errstate(invalid="ignore", divide="ignore"):
            recall, alarms = right / right[:, -1:], wrong / wrong[:, -1:]
            precision = right / (right + wrong)
            steps = np.diff(recall, axis=1, prepend=0.0)
            before = np.concatenate([np.zeros((len(counts), 1)), recall[:, :-1]], axis=1)
            found[:, 0, c] = (np.diff(alarms, axis=1, prepend=0.0) * (recall + before) / 2).sum(1)
            found[:, 1, c] = np.where(steps > 0, steps * precision, 0 * steps).sum(1)
            allowed = alarms <= 1 - SPECIFICITY + 1e-12
            found[:, 2, c] = np.where(allowed, recall, 0 * recall).max(1)
    return found


def auc(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Macro AUC: the mean over classes of each against the rest; NaN when a class drew no image or every image."""
    return ranked(labels, probabilities, counts)[:, 0].mean(1)


METRICS = {own.__name__: own for own in (accuracy, balanced_accuracy, auc, kappa)}
