"""Metrics of one test, the pair (labels (N,), probabilities (N, C)), plain and under resampled images.

The training loop chooses epochs by them, so they are among the code that a run's fingerprint covers.
"""

import numpy as np


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Share of images whose most probable class is the label: mean_i [argmax_c p_ic = y_i].

    Args:
        labels: integers (N,).
        probabilities: (N, C).
    """
    return float(np.mean(probabilities.argmax(1) == labels))


def macro_auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve, one class against the rest, averaged over the C classes with equal weight.

    AUC_c = P(p_c of an image of class c > p_c of another image) + P(equal) / 2, the Mann-Whitney form. This is
    the AUC of MedMNIST's evaluator for multi-class sets. NaN when a class has no image, or every image.

    Args:
        labels: integers (N,) in 0..C-1.
        probabilities: (N, C).
    """
    return float(macro_auc_draws(labels, probabilities, np.ones((1, len(labels)), np.int64))[0])


def accuracy_draws(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Accuracy under each row of image counts (B, N), as a (B,) array; rows have a positive sum."""
    correct = (probabilities.argmax(1) == labels).astype(np.float64)
    return counts @ correct / counts.sum(1)


def macro_auc_draws(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`macro_auc` under each row of image counts (B, N), as a (B,) array; NaN where a class drew no image."""
    counts = np.asarray(counts, np.int32)
    total = np.zeros(len(counts))
    for c in range(probabilities.shape[1]):
        own, others = np.flatnonzero(labels == c), np.flatnonzero(labels != c)
        others = others[np.argsort(probabilities[others, c], kind="stable")]
        seen = np.zeros((len(counts), len(others) + 1), np.int32)  # how many of the lowest k others were drawn
        np.cumsum(counts[:, others], axis=1, out=seen[:, 1:])
        below = np.searchsorted(probabilities[others, c], probabilities[own, c], side="left")
        up_to = np.searchsorted(probabilities[others, c], probabilities[own, c], side="right")
        drawn = counts[:, own]
        wins = np.einsum("bi,bi->b", drawn, seen[:, below] + seen[:, up_to], dtype=np.int64) / 2  # a tie is half a win
        with np.errstate(invalid="ignore"):
            total += wins / (drawn.sum(1) * seen[:, -1].astype(np.float64))
    return total / probabilities.shape[1]


def balanced_accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over the classes that have images of the share of the class's images named right.

    Args:
        labels: integers (N,).
        probabilities: (N, C).
    """
    right = probabilities.argmax(1) == labels
    return float(np.mean([right[labels == c].mean() for c in np.unique(labels)]))
