"""Measures under image counts against scikit-learn and medmnist, whole and with weights."""

import numpy as np
import pytest
from sklearn import metrics as sk

from pipelines.evidence import measures
from pipelines.runs import metrics
from tests.evidence.made import noisy_test

CASES = {"smooth": None, "ties": 1}


def counts(n, draws=3, seed=1):
    return np.random.default_rng(seed).integers(0, 4, (draws, n))


@pytest.mark.parametrize("digits", CASES.values(), ids=CASES)
def test_whole_measures_are_scikit_learns_with_weights(digits):
    labels, probabilities = noisy_test(digits=digits)
    named = probabilities.argmax(1)
    for row, *found in zip(
        counts(300),
        measures.accuracy(labels, probabilities, counts(300)),
        measures.balanced_accuracy(labels, probabilities, counts(300)),
        measures.kappa(labels, probabilities, counts(300)),
    ):
        expected = [
            metric(labels, named, sample_weight=row)
            for metric in (sk.accuracy_score, sk.balanced_accuracy_score, sk.cohen_kappa_score)
        ]
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("digits", CASES.values(), ids=CASES)
def test_ranked_measures_are_scikit_learns_with_weights(digits):
    labels, probabilities = noisy_test(digits=digits)
    drawn = counts(300)
    found = dict(zip(measures.RANKED, measures.ranked(labels, probabilities, drawn).swapaxes(0, 1)))
    for b, row in enumerate(drawn):
        for c in range(4):
            own, score = labels == c, probabilities[:, c]
            assert found["auc"][b, c] == pytest.approx(sk.roc_auc_score(own, score, sample_weight=row), abs=1e-12)
            expected = sk.average_precision_score(own, score, sample_weight=row)
            assert found["average_precision"][b, c] == pytest.approx(expected, abs=1e-12)
            alarms, recall, _ = sk.roc_curve(own, score, sample_weight=row, drop_intermediate=False)
            assert found["sensitivity"][b, c] == pytest.approx(recall[alarms <= 0.05 + 1e-9].max(), abs=1e-12)
    auc = measures.auc(labels, probabilities, np.ones((1, 300), int))[0]
    assert auc == pytest.approx(metrics.macro_auc(labels, probabilities), abs=1e-12)  # what training chooses by


@pytest.mark.parametrize("digits", CASES.values(), ids=CASES)
@pytest.mark.parametrize("units", [np.arange(300), np.arange(300)[::-1] // 4, np.repeat([7, 3, 9], 100)])
def test_auc_without_each_unit_is_that_of_the_other_images(units, digits):
    labels, probabilities = noisy_test(digits=digits)
    labels[units == units[0]] = 3  # the whole class is one unit's in the last case
    found = measures.auc_without(labels, probabilities, units)
    others = (units != np.unique(units)[:, None]).astype(int)
    assert found == pytest.approx(measures.auc(labels, probabilities, others), abs=1e-12, nan_ok=True)
    few = np.where(labels == 3, 3, 0)  # classes that only one unit has, or none
    found = measures.auc_without(few, probabilities, units)
    assert found == pytest.approx(measures.auc(few, probabilities, others), abs=1e-12, nan_ok=True)


def test_sensitivity_at_specificity_by_hand():
    """20 others: the threshold may let one of them pass. Two of the four own lie above the second highest other."""
    labels = np.array([1] * 4 + [0] * 20)
    score = np.r_[0.99, 0.8, 0.5, 0.1, 0.9, 0.6, np.linspace(0.01, 0.4, 18)]
    found = measures.ranked(labels, np.c_[1 - score, score], np.ones((1, 24), int))
    assert found[0, 2, 1] == 0.5


def test_without_images_of_a_class():
    labels, probabilities = noisy_test()
    few = np.where(labels == 3, 2, labels)
    once = np.ones((1, 300), int)
    assert np.isnan(measures.auc(few, probabilities, once)[0])
    # As in scikit-learn, classes that the test lacks do not count; one that a draw loses cannot be told.
    expected = np.mean([np.mean(probabilities.argmax(1)[few == c] == c) for c in range(3)])
    assert measures.balanced_accuracy(few, probabilities, once)[0] == pytest.approx(expected)
    assert np.isnan(measures.balanced_accuracy(labels, probabilities, (labels != 3)[None].astype(int))[0])


@pytest.mark.parametrize("digits", CASES.values(), ids=CASES)
def test_training_metrics_are_medmnists(digits):
    from medmnist.evaluator import getACC, getAUC

    labels, probabilities = noisy_test(digits=digits)
    assert metrics.macro_auc(labels, probabilities) == pytest.approx(
        getAUC(labels, probabilities, "multi-class"), abs=1e-12
    )
    assert metrics.accuracy(labels, probabilities) == getACC(labels, probabilities, "multi-class")
