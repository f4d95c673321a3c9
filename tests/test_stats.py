"""Statistics against closed forms, other libraries, and a simulation with a known truth."""

import numpy as np
import pytest
from scipy.stats import binom, norm
from sklearn.metrics import accuracy_score, roc_auc_score

from pipelines import stats


def noisy_test(n=300, classes=4, seed=0, digits=None):
    """Labels and probabilities of a classifier that is right more often than not; `digits` rounds scores into ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    probabilities = rng.dirichlet(np.ones(classes), n) + 0.4 * np.eye(classes)[labels]
    probabilities /= probabilities.sum(1, keepdims=True)
    return labels, probabilities if digits is None else probabilities.round(digits)


def graded(correct):
    """A two-class test whose images are right or wrong as given."""
    labels = np.zeros(len(correct), int)
    return labels, np.eye(2)[np.where(correct, 0, 1)]


def half_width(limits):
    return (limits[1] - limits[0]) / 2


@pytest.mark.parametrize("digits", [None, 1])
def test_metrics_agree_with_other_libraries(digits):
    from medmnist.evaluator import getACC, getAUC

    labels, probabilities = noisy_test(digits=digits)
    auc = stats.macro_auc(labels, probabilities)
    assert auc == pytest.approx(getAUC(labels, probabilities, "multi-class"), abs=1e-12)
    each = [roc_auc_score(labels == c, probabilities[:, c]) for c in range(4)]
    assert auc == pytest.approx(np.mean(each), abs=1e-12)
    accuracy = stats.accuracy(labels, probabilities)
    assert accuracy == accuracy_score(labels, probabilities.argmax(1)) == getACC(labels, probabilities, "multi-class")


def test_auc_without_images_of_a_class_is_nan():
    labels, probabilities = noisy_test()
    assert np.isnan(stats.macro_auc(np.where(labels == 3, 2, labels), probabilities))


def test_counts_mean_repeated_images():
    labels, probabilities = noisy_test(digits=1)
    counts = np.random.default_rng(1).integers(0, 4, (3, len(labels)))
    for name in ("accuracy", "macro_auc"):
        weighted = stats.METRICS[name](labels, probabilities, counts)
        repeated = [
            getattr(stats, name)(np.repeat(labels, row), np.repeat(probabilities, row, axis=0)) for row in counts
        ]
        assert weighted == pytest.approx(repeated, abs=1e-12)


@pytest.mark.parametrize("shared", [True, False])
def test_one_seed_gives_the_binomial_interval(shared):
    n, right = 250, 210
    low, high = stats.interval([graded(np.arange(n) < right)], shared=shared, draws=20_000)
    expected = binom.ppf([0.025, 0.975], n, right / n) / n
    assert [low, high] == pytest.approx(expected, abs=1.01 / n)


@pytest.mark.parametrize("shared", [True, False])
def test_seeds_alone_give_the_binomial_interval_over_seeds(shared):
    tests = [graded(np.full(50, s < 7)) for s in range(10)]  # a seed is all right or all wrong: images add nothing
    low, high = stats.interval(tests, shared=shared, draws=8000)
    assert [low, high] == pytest.approx(binom.ppf([0.025, 0.975], 10, 0.7) / 10, abs=1e-9)


def test_folds_have_the_variance_of_the_two_stage_bootstrap():
    n, rates = 200, np.array([0.70, 0.80, 0.85, 0.95])
    tests = [graded(np.arange(n) < round(rate * n)) for rate in rates]
    variance = (rates.var() + (rates * (1 - rates) / n).mean()) / len(rates)
    expected = norm.ppf(0.975) * np.sqrt(variance)
    assert half_width(stats.interval(tests, shared=False, draws=20_000)) == pytest.approx(expected, rel=0.05)


def test_seeds_that_agree_narrow_the_interval_only_if_their_images_differ():
    test = graded(np.arange(400) % 10 > 1)
    alone = half_width(stats.interval([test], shared=True, draws=8000))
    together = half_width(stats.interval([test] * 4, shared=True, draws=8000))
    folds = half_width(stats.interval([test] * 4, shared=False, draws=8000))
    assert together == pytest.approx(alone, rel=0.05)
    assert folds == pytest.approx(alone / 2, rel=0.05)


def test_interval_of_auc_agrees_with_hanley_and_mcneil():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 300)
    score = 1 / (1 + np.exp(-rng.normal(1.2 * labels)))
    probabilities = np.c_[1 - score, score]
    auc = stats.macro_auc(labels, probabilities)
    # Hanley & McNeil 1982, eq. 1, with the exponential approximation of Q1 and Q2.
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + 299 * (q1 - auc**2) + 299 * (q2 - auc**2)) / 300**2
    low, high = stats.interval([(labels, probabilities)], "macro_auc", shared=True)
    assert low < auc < high
    assert half_width((low, high)) == pytest.approx(1.96 * np.sqrt(variance), rel=0.12)


def test_paired_difference_of_an_arm_with_itself_is_zero():
    tests = [noisy_test(seed=s) for s in range(3)]
    assert stats.paired_difference(tests, tests, shared=False) == (0, 0, 0)


def test_paired_difference_has_the_width_of_its_discordant_images():
    n = 500
    first = graded(np.arange(n) >= 50)  # wrong on 0..49
    second = graded((np.arange(n) < 20) | (np.arange(n) >= 90))  # wrong on 20..89
    difference, low, high = stats.paired_difference([first], [second], shared=True, draws=8000)
    each = np.zeros(n)
    each[:20], each[50:90] = -1, 1
    assert difference == pytest.approx(each.mean(), abs=1e-12)
    assert half_width((low, high)) == pytest.approx(norm.ppf(0.975) * each.std() / np.sqrt(n), rel=0.05)
    assert stats.paired_difference([second], [first], shared=True, draws=8000) == pytest.approx(
        (-difference, -high, -low)
    )


def test_paired_difference_drops_what_is_common_to_a_seed():
    rng = np.random.default_rng(0)
    rates = [0.5, 0.6, 0.7, 0.8, 0.9]
    first = [graded(rng.random(300) < rate) for rate in rates]
    second = [graded((probabilities.argmax(1) == 0) & (np.arange(300) >= 6)) for _, probabilities in first]
    _, low, high = stats.paired_difference(first, second, shared=False)
    assert half_width((low, high)) < half_width(stats.interval(first, shared=False)) / 4


def test_results_do_not_change_from_call_to_call():
    tests = [noisy_test(seed=s) for s in range(2)]
    assert stats.interval(tests, "macro_auc", shared=True) == stats.interval(tests, "macro_auc", shared=True)
    assert stats.interval(tests, shared=True, seed=1) != stats.interval(tests, shared=True, seed=2)


def test_many_images_are_counted_in_blocks(monkeypatch):
    tests = [noisy_test(seed=s) for s in range(2)]
    whole = stats.interval(tests, shared=False, draws=100)
    monkeypatch.setattr(stats, "_BLOCK", 1000)  # three draws a block
    assert stats.interval(tests, shared=False, draws=100) == pytest.approx(whole, abs=0.03)


def test_coverage_of_the_interval_with_a_shared_test_set():
    """New seeds and new test images each time: about 95 % of the intervals hold the accuracy behind them."""
    rng = np.random.default_rng(0)
    seeds, images, spread, hard = 5, 120, 0.3, 1.5
    logits = 1.2 + rng.normal(0, spread, 400_000) + rng.normal(0, hard, 400_000)
    truth = np.mean(1 / (1 + np.exp(-logits)))
    held = {True: 0, False: 0}
    for trial in range(200):
        logits = 1.2 + rng.normal(0, spread, (seeds, 1)) + rng.normal(0, hard, images)
        tests = [graded(row) for row in rng.random((seeds, images)) < 1 / (1 + np.exp(-logits))]
        for shared in held:
            low, high = stats.interval(tests, shared=shared, draws=300, seed=trial)
            held[shared] += low <= truth <= high
    assert held[True] / 200 >= 0.90
    assert held[False] < held[True]  # treating the images as new for every seed promises too much


@pytest.mark.parametrize(
    ("tests", "options", "message"),
    [
        ([], {"shared": True}, "no test"),
        ([noisy_test()], {"shared": True, "metric": "f1"}, "'f1' is unknown; known: accuracy, macro_auc"),
        ([noisy_test(), noisy_test(200)], {"shared": True}, "shared=False"),
    ],
)
def test_interval_refuses(tests, options, message):
    with pytest.raises(ValueError, match=message):
        stats.interval(tests, **options)


def test_paired_difference_refuses_what_is_no_pair():
    with pytest.raises(ValueError, match="1 and 2 tests"):
        stats.paired_difference([noisy_test()], [noisy_test()] * 2, shared=True)
    with pytest.raises(ValueError, match="test 0 has other labels"):
        stats.paired_difference([noisy_test(seed=0)], [noisy_test(seed=1)], shared=True)
