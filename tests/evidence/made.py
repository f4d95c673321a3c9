"""Made-up outcomes: runs whose every image is right or wrong, or has a given ranking, as a test wants it."""

import numpy as np

from pipelines.evidence.outcomes import Outcome


def graded(correct):
    """Labels and probabilities of a two-class test whose images are right or wrong as given; all are of class 0."""
    return np.zeros(len(correct), int), np.eye(2)[np.where(correct, 0, 1)]


def outcome(labels, probabilities, seed=0, units=None, indices=None, n_units=None, method="m", patients=False, on=400):
    """One run; by default every image is a unit of its own, and all runs have the same images."""
    indices = np.arange(len(labels)) if indices is None else np.asarray(indices)
    units = indices if units is None else np.asarray(units)
    count = 1 + int(units.max()) if n_units is None else n_units
    return Outcome(method, seed, indices, np.asarray(labels), probabilities, units, count, patients, on)


def one_set(tests, units=None, **more):
    """Runs of seeds 0, 1, ... on one test set, of (labels, probabilities)."""
    return [outcome(*test, seed=seed, units=units, **more) for seed, test in enumerate(tests)]


def folds(tests, **more):
    """Runs of seeds 0, 1, ... on test sets without an image in common, each image a unit."""
    ends = np.cumsum([0, *(len(labels) for labels, _ in tests)])
    return [
        outcome(*test, seed=seed, indices=np.arange(ends[seed], ends[seed + 1]), n_units=int(ends[-1]), **more)
        for seed, test in enumerate(tests)
    ]


def noisy_test(n=300, classes=4, seed=0, digits=None):
    """Labels and probabilities of a classifier that is right more often than not; `digits` rounds scores into ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    probabilities = rng.dirichlet(np.ones(classes), n) + 0.4 * np.eye(classes)[labels]
    probabilities /= probabilities.sum(1, keepdims=True)
    return labels, probabilities if digits is None else probabilities.round(digits)
