"""Statistics against closed forms, other libraries, and published tables; simulations are in test_stats_coverage.py."""

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import accuracy_score, roc_auc_score

from pipelines.evidence import stats
from pipelines.runs import metrics


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


def same_images(tests):
    """Units of tests on one set of images."""
    return [np.arange(len(labels)) for labels, _ in tests]


def folds(tests):
    """Units of tests without an image in common."""
    return [np.arange(len(labels)) + 10_000 * place for place, (labels, _) in enumerate(tests)]


def half_width(limits):
    return (limits[1] - limits[0]) / 2


def made(mean=0.0, seeds=5, seed_var=1.0, image_var=0.0, units=100):
    return stats.Estimate(mean, seeds, seed_var, image_var, image_var, units)


@pytest.mark.parametrize("digits", [None, 1])
def test_metrics_agree_with_other_libraries(digits):
    from medmnist.evaluator import getACC, getAUC

    labels, probabilities = noisy_test(digits=digits)
    auc = metrics.macro_auc(labels, probabilities)
    assert auc == pytest.approx(getAUC(labels, probabilities, "multi-class"), abs=1e-12)
    each = [roc_auc_score(labels == c, probabilities[:, c]) for c in range(4)]
    assert auc == pytest.approx(np.mean(each), abs=1e-12)
    accuracy = metrics.accuracy(labels, probabilities)
    assert accuracy == accuracy_score(labels, probabilities.argmax(1)) == getACC(labels, probabilities, "multi-class")


def test_auc_without_images_of_a_class_is_nan():
    labels, probabilities = noisy_test()
    assert np.isnan(metrics.macro_auc(np.where(labels == 3, 2, labels), probabilities))
    units = [np.arange(len(labels))]
    assert np.isnan(stats.interval([(np.where(labels == 3, 2, labels), probabilities)], "macro_auc", units=units)).all()


def test_counts_mean_repeated_images():
    labels, probabilities = noisy_test(digits=1)
    counts = np.random.default_rng(1).integers(0, 4, (3, len(labels)))
    for name in ("accuracy", "macro_auc"):
        weighted = stats.METRICS[name](labels, probabilities, counts)
        repeated = [
            getattr(metrics, name)(np.repeat(labels, row), np.repeat(probabilities, row, axis=0)) for row in counts
        ]
        assert weighted == pytest.approx(repeated, abs=1e-12)


def test_jackknife_of_accuracy_has_the_variance_of_a_mean():
    labels, probabilities = noisy_test(n=150)
    value, influence = stats.jackknife((labels, probabilities), "accuracy", np.arange(150), 200)
    correct = probabilities.argmax(1) == labels
    assert value == correct.mean() and not influence[150:].any()
    assert np.sum(influence**2) == pytest.approx(correct.var(ddof=1) / 150)


def test_jackknife_leaves_out_a_patients_images_together():
    labels, probabilities = noisy_test(n=60)
    patients = np.repeat(np.arange(20), 3)
    _, influence = stats.jackknife((labels, probabilities), "accuracy", patients, 20)
    means = (probabilities.argmax(1) == labels).reshape(20, 3).mean(1)  # patients of one size: a mean of their means
    assert np.sum(influence**2) == pytest.approx(means.var(ddof=1) / 20)


def test_images_are_counted_in_blocks(monkeypatch):
    test, units = noisy_test(), np.arange(300) // 2
    whole = stats.jackknife(test, "macro_auc", units, 150)[1]
    monkeypatch.setattr(stats, "_BLOCK", 1000)  # three units a block
    assert stats.jackknife(test, "macro_auc", units, 150)[1] == pytest.approx(whole, abs=1e-15)


def test_one_seed_gives_the_interval_of_a_share():
    n, right = 250, 210
    limits = stats.interval([graded(np.arange(n) < right)], units=[np.arange(n)])
    wilson = scipy_stats.binomtest(right, n).proportion_ci(method="wilson")
    assert limits == pytest.approx((wilson.low, wilson.high), abs=0.005)


def test_everything_right_leaves_the_binomial_limit():
    tests = [graded(np.ones(90, bool))] * 2
    exact = scipy_stats.binomtest(90, 90).proportion_ci(method="exact")
    assert stats.interval(tests, units=same_images(tests)) == pytest.approx((exact.low, 1))
    exact = scipy_stats.binomtest(180, 180).proportion_ci(method="exact")
    assert stats.interval(tests, units=folds(tests)) == pytest.approx((exact.low, 1))
    wrong = [graded(np.zeros(90, bool))]
    assert stats.interval(wrong, units=same_images(wrong))[0] == 0
    labels = np.arange(90) % 2
    assert np.isnan(stats.interval([(labels, np.eye(2)[labels])], "macro_auc", units=[np.arange(90)])[0])


def test_folds_give_students_interval_over_seeds():
    rates = np.array([0.70, 0.80, 0.85, 0.95])
    tests = [graded(np.arange(200) < round(rate * 200)) for rate in rates]
    against = [graded(np.zeros(200, bool))] * 4
    found = stats.paired_difference(tests, against, units=folds(tests))
    assert found.image_var == 0
    expected = scipy_stats.t.interval(0.95, 3, rates.mean(), scipy_stats.sem(rates))
    assert found.interval() == pytest.approx(expected, rel=1e-6)
    assert found.p_value() == pytest.approx(scipy_stats.ttest_1samp(rates, 0).pvalue, rel=1e-5)
    for margin in (0.5, 0.9):
        lower = scipy_stats.ttest_1samp(rates, margin, alternative="less").pvalue
        assert found.equivalence_p(margin) == pytest.approx(lower, rel=1e-5)


def test_seeds_that_agree_narrow_the_interval_only_if_their_images_differ():
    test = graded(np.arange(400) % 10 > 1)
    alone = half_width(stats.interval([test], units=same_images([test])))
    together = half_width(stats.interval([test] * 4, units=same_images([test] * 4)))
    assert together == pytest.approx(alone, rel=0.01)
    assert half_width(stats.interval([test] * 4, units=folds([test] * 4))) < alone / 2


def test_a_patients_alike_images_widen_the_interval():
    correct = np.repeat(np.arange(100) % 10 > 1, 4)
    images = half_width(stats.interval([graded(correct)], units=[np.arange(400)]))
    assert half_width(stats.interval([graded(correct)], units=[np.arange(400) // 4])) == pytest.approx(2 * images, 0.02)


def test_variance_parts_are_those_of_the_two_way_layout():
    """Seeds by images: s^2 / S + C is the unbiased variance of the grand mean, MS(s)/SN + MS(i)/SN - MS(si)/SN."""
    rng = np.random.default_rng(5)
    correct = rng.random((4, 60)) < rng.uniform(0.4, 1, (1, 60)) * rng.uniform(0.8, 1, (4, 1))
    tests = [graded(row) for row in correct]
    found = stats.estimate(*stats.figures(tests, "accuracy", same_images(tests)), 60)
    value = correct.astype(float)
    rows, columns = value.mean(1), value.mean(0)
    rest = value - rows[:, None] - columns + value.mean()
    squares = 60 * rows.var(ddof=1), 4 * columns.var(ddof=1), np.sum(rest**2) / (3 * 59)
    expected = (squares[0] + squares[1] - squares[2]) / 240
    assert found.seed_var / 4 + found.image_var == pytest.approx(expected, rel=0.02)


def test_error_distribution_has_its_limits():
    only_seeds, only_images = made(seed_var=4.0, seeds=3), made(seed_var=0.0, image_var=4.0)
    for x in (-9.0, -1.0, 0.5, 4.0):
        assert only_seeds.below(x) == pytest.approx(scipy_stats.t.cdf(x, 2, scale=np.sqrt(4 / 3)), abs=1e-7)
        assert only_images.below(x) == pytest.approx(scipy_stats.norm.cdf(x, scale=2), abs=1e-12)
    rng = np.random.default_rng(0)
    drawn = 2 / np.sqrt(3) * rng.standard_t(2, 400_000) + 1.5 * rng.normal(size=400_000)
    assert made(seed_var=4.0, seeds=3, image_var=2.25).half_width() == pytest.approx(
        np.quantile(np.abs(drawn), 0.95), rel=0.02
    )


def test_interval_of_auc_agrees_with_hanley_and_mcneil():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 300)
    score = 1 / (1 + np.exp(-rng.normal(1.2 * labels)))
    probabilities = np.c_[1 - score, score]
    auc = metrics.macro_auc(labels, probabilities)
    # Hanley & McNeil 1982, eq. 1, with the exponential approximation of Q1 and Q2.
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + 299 * (q1 - auc**2) + 299 * (q2 - auc**2)) / 300**2
    low, high = stats.interval([(labels, probabilities)], "macro_auc", units=[np.arange(600)])
    assert low < auc < high
    assert half_width((low, high)) == pytest.approx(1.96 * np.sqrt(variance), rel=0.12)


def test_paired_difference_of_an_method_with_itself():
    tests = [noisy_test(seed=s) for s in range(3)]
    found = stats.paired_difference(tests, tests, units=folds(tests))
    assert found.mean == 0 and found.p_value() == 1 and found.improvement() == 0.5
    assert found.interval() == pytest.approx((0, 0), abs=0.003)  # accuracies move in steps of 1/300
    assert found.equivalence_p(0.01) < 0.01


def test_one_small_test_set_without_a_difference_shows_no_equivalence():
    tests = [noisy_test(n=50)]
    assert stats.paired_difference(tests, tests, units=folds(tests)).equivalence_p(0.01) > 0.05


def test_paired_difference_has_the_width_of_its_discordant_images():
    n = 500
    first = graded(np.arange(n) >= 50)  # wrong on 0..49
    second = graded((np.arange(n) < 20) | (np.arange(n) >= 90))  # wrong on 20..89
    found = stats.paired_difference([first], [second], units=[np.arange(n)])
    each = np.zeros(n)
    each[:20], each[50:90] = -1, 1
    assert found.mean == pytest.approx(each.mean(), abs=1e-12)
    expected = scipy_stats.norm.ppf(0.975) * each.std(ddof=1) / np.sqrt(n)
    assert half_width(found.interval()) == pytest.approx(expected)
    back = stats.paired_difference([second], [first], units=[np.arange(n)])
    assert back.interval() == pytest.approx(tuple(-limit for limit in found.interval()[::-1]))
    assert back.improvement() == pytest.approx(1 - found.improvement())


def test_paired_difference_drops_what_is_common_to_a_seed():
    rng = np.random.default_rng(0)
    first = [graded(rng.random(300) < rate) for rate in [0.5, 0.6, 0.7, 0.8, 0.9]]
    second = [graded((probabilities.argmax(1) == 0) & (np.arange(300) >= 6)) for _, probabilities in first]
    found = stats.paired_difference(first, second, units=folds(first))
    assert half_width(found.interval()) < half_width(stats.interval(first, units=folds(first))) / 4


@pytest.mark.parametrize(
    ("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)]
)  # G*Power's matched-pairs t test, two-sided, 5 %, 80 %
def test_seeds_needed_are_those_of_a_paired_t_test(effect, pairs):
    assert made().seeds_needed(effect) == pairs


def test_seeds_needed_has_limits():
    assert np.isnan(made(seeds=1, seed_var=np.nan, image_var=0.1).seeds_needed(0.5))
    assert made(image_var=0.04).seeds_needed(0.5) == np.inf  # 0.5 / 0.2 < 1.96 + 0.84
    assert 34 < made(image_var=0.01).seeds_needed(0.5) < np.inf
    assert made(seed_var=1e-9).seeds_needed(0.5) == 2


def test_mcnemar_agrees_with_the_binomial_test():
    rng = np.random.default_rng(0)
    first, second = rng.random(200) < 0.9, rng.random(200) < 0.8
    b, c, p = stats.mcnemar(first, second)
    assert (b, c) == (np.sum(first & ~second), np.sum(~first & second))
    assert p == scipy_stats.binomtest(b, b + c, 0.5).pvalue
    assert stats.mcnemar(first, first) == (0, 0, 1)


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, np.nan, 0.7]) == pytest.approx([1, np.nan, 1], nan_ok=True)
    assert stats.holm([]).shape == (0,)


def test_swaps_are_counted_exactly_where_few_units_differ():
    difference = np.array([0.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0])
    assert stats.swap_p(difference) == pytest.approx(2 / 32, abs=0.01)  # all signs alike: 2 of 2^5
    assert stats.swap_p(-difference) == stats.swap_p(difference)
    assert stats.swap_p(np.zeros(5)) == 1


def test_friedman_and_ranks_agree_with_scipy():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(6, 5)) + np.arange(5) * 0.7
    statistic, p = stats.friedman(values)
    expected = scipy_stats.friedmanchisquare(*values.T)
    assert (statistic, p) == (expected.statistic, expected.pvalue)
    assert stats.mean_ranks(np.array([[0.9, 0.8, 0.8], [0.7, 0.9, 0.6]])).tolist() == [1.5, 1.75, 2.75]
    assert np.isnan(stats.friedman(values[:, :2])).all() and np.isnan(stats.friedman(values[:1])).all()
    assert stats.friedman(np.full((3, 4), 0.5)) == (0, 1)


@pytest.mark.parametrize(
    ("level", "published"),
    [
        (0.95, [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.90, [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_nemenyi_quantiles_are_the_published_ones(level, published):
    """Demsar 2006, table 5(a): k = 2 to 10."""
    for k, q in enumerate(published, start=2):
        found = stats.critical_difference(k, 7, level) / np.sqrt(k * (k + 1) / (6 * 7))
        assert found == pytest.approx(q, abs=0.0015)
    assert np.isnan(stats.critical_difference(5, 1)) and np.isnan(stats.critical_difference(1, 5))


@pytest.mark.parametrize(
    ("tests", "units", "metric", "message"),
    [
        ([], [], "accuracy", "no test"),
        ([noisy_test()], [np.arange(300)], "f1", "'f1' is unknown; known: accuracy, macro_auc"),
        ([noisy_test()], [np.arange(200)], "accuracy", r"\[300\] images, units are given for \[200\]"),
    ],
)
def test_interval_refuses(tests, units, metric, message):
    with pytest.raises(ValueError, match=message):
        stats.interval(tests, metric, units=units)


def test_paired_difference_refuses_what_is_no_pair():
    one, other = [noisy_test(seed=0)], [noisy_test(seed=1)]
    with pytest.raises(ValueError, match="1 and 2 tests"):
        stats.paired_difference(one, one * 2, units=folds(one))
    with pytest.raises(ValueError, match="test 0 has other labels"):
        stats.paired_difference(one, other, units=folds(one))
