"""Measures of one test under resampled images, for the jackknife: pure functions on arrays.

Every function takes labels (N,), integers in 0..C-1, probabilities (N, C) and counts (B, N), how often each image
counts in each of B draws, and returns a value a draw, (B,), or more. What has nothing to count is NaN. An image's
prediction is its most probable class.
"""

import numpy as np

SPECIFICITY = 0.95  # at which sensitivity is told
RANKED = ("auc", "average_precision", "sensitivity")


def accuracy(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Share of images whose prediction is the label."""
    return counts @ (probabilities.argmax(1) == labels) / counts.sum(1)


def balanced_accuracy(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over the classes that the test has of the share of their images that are named rightly."""
    own = np.eye(probabilities.shape[1])[labels][:, np.unique(labels)]
    right = own * (probabilities.argmax(1) == labels)[:, None]
    with np.errstate(invalid="ignore"):
        return ((counts @ right) / (counts @ own)).mean(1)


def kappa(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Cohen's kappa (1960): (p_o - p_e) / (1 - p_e), p_o the agreement with the labels, p_e that of chance."""
    observed, each = accuracy(labels, probabilities, counts), np.eye(probabilities.shape[1])
    own, named = (counts @ each[of] / counts.sum(1, keepdims=True) for of in (labels, probabilities.argmax(1)))
    chance = (own * named).sum(1)
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


def auc_without(labels: np.ndarray, probabilities: np.ndarray, units: np.ndarray) -> np.ndarray:
    """`auc` of a test without the images of each of its units, (G,), in the order of their numbers.

    What counting anew for every unit gives, in a time that grows with the images alone: a unit's images take with them
    the pairs of an image of the class and one of the rest in which they are ranked rightly.
    """
    present, place = np.unique(units, return_inverse=True)
    found = np.empty((len(present), probabilities.shape[1]))
    for c, score in enumerate(probabilities.T):
        own = labels == c
        first, rest = np.sort(score[own]), np.sort(score[~own])
        pairs = np.where(own, _below(rest, score), len(first) - _below(first, score))  # rightly ranked, of each image
        lost, of_own, of_rest = (np.bincount(place, weight, len(present)) for weight in (pairs, own, ~own))
        for unit in np.flatnonzero((of_own > 0) & (of_rest > 0)):  # pairs within a unit were taken off twice
            mine = place == unit
            lost[unit] -= _below(np.sort(score[mine & ~own]), score[mine & own]).sum()
        with np.errstate(invalid="ignore"):
            found[:, c] = (pairs[own].sum() - lost) / ((len(first) - of_own) * (len(rest) - of_rest))
    return found.mean(1)


def _below(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How many of the first lie below each of the second; equal ones count half."""
    return (np.searchsorted(ascending, values, "left") + np.searchsorted(ascending, values, "right")) / 2


COUNTED = {own.__name__: own for own in (accuracy, balanced_accuracy, kappa)}
