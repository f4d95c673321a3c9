"""Statistics against closed forms, other libraries and published values; simulations are in test_coverage.py."""

from functools import partial

import numpy as np
import pytest
from scipy import stats as scipy_stats

from pipelines.evidence import measures, outcomes, stats
from tests.evidence.made import folds, graded, noisy_test, one_set, outcome


def half_width(limits):
    return (limits[1] - limits[0]) / 2


def made(mean=0.0, runs=5, run_var=1.0, image_var=0.0, units=100):
    return stats.Estimate(mean, runs, run_var, image_var, image_var, units)


def share_interval(tested, metric="accuracy"):
    return outcomes.mean(tested, metric).share_interval(counted=outcomes.counted(tested, metric))


def difference(first, second, metric="accuracy"):
    return outcomes.difference(list(zip(first, second)), metric)


def test_jackknife_of_accuracy_has_the_variance_of_a_mean():
    labels, probabilities = noisy_test(n=150)
    draw = partial(measures.accuracy, labels, probabilities)
    value, influence = stats.jackknife(draw, np.arange(150), 200)
    correct = probabilities.argmax(1) == labels
    assert value == correct.mean() and not influence[150:].any()
    assert np.sum(influence**2) == pytest.approx(correct.var(ddof=1) / 150)


def test_jackknife_leaves_out_a_patients_images_together():
    labels, probabilities = noisy_test(n=60)
    draw = partial(measures.accuracy, labels, probabilities)
    _, influence = stats.jackknife(draw, np.repeat(np.arange(20), 3), 20)
    means = (probabilities.argmax(1) == labels).reshape(20, 3).mean(1)  # patients of one size: a mean of their means
    assert np.sum(influence**2) == pytest.approx(means.var(ddof=1) / 20)
    assert np.isnan(stats.jackknife(draw, np.zeros(60, int), 3)[1][0])  # one patient alone


def test_several_metrics_at_once_and_images_in_blocks(monkeypatch):
    labels, probabilities = noisy_test()
    units = np.arange(300) // 2
    draw = partial(measures.auc, labels, probabilities)
    both = lambda counts: np.c_[draw(counts), measures.accuracy(labels, probabilities, counts)]  # noqa: E731
    whole = stats.jackknife(draw, units, 150)
    monkeypatch.setattr(stats, "_BLOCK", 1000)  # three units a block
    values, influence = stats.jackknife(both, units, 150)
    assert values[0] == whole[0] and influence[:, 0] == pytest.approx(whole[1], abs=1e-15)
    assert influence.shape == (150, 2)


def test_one_run_gives_the_interval_of_a_share():
    limits = share_interval(one_set([graded(np.arange(250) < 210)]))
    wilson = scipy_stats.binomtest(210, 250).proportion_ci(method="wilson")
    assert limits == pytest.approx((wilson.low, wilson.high), abs=0.005)


def test_everything_right_leaves_the_binomial_limit():
    tests = [graded(np.ones(90, bool))] * 2
    exact = scipy_stats.binomtest(90, 90).proportion_ci(method="exact")
    assert share_interval(one_set(tests)) == pytest.approx((exact.low, 1))
    exact = scipy_stats.binomtest(180, 180).proportion_ci(method="exact")
    assert share_interval(folds(tests)) == pytest.approx((exact.low, 1))
    assert share_interval(one_set([graded(np.zeros(90, bool))]))[0] == 0
    labels = np.arange(90) % 2
    assert np.isnan(share_interval(one_set([(labels, np.eye(2)[labels])]), "auc")[0])


def test_where_classes_differ_in_size_the_smallest_bounds_balanced_accuracy():
    """All right of 30 and of 60 images: the others may be so, and the 30 not."""
    labels = np.repeat([0, 1], [30, 60])
    low = scipy_stats.binomtest(30, 30).proportion_ci(method="exact").low
    tested = one_set([(labels, np.eye(2)[labels])])
    assert share_interval(tested, "balanced_accuracy") == pytest.approx(((low + 1) / 2, 1))
    assert share_interval(one_set([(labels, np.eye(2)[1 - labels])]), "balanced_accuracy")[1] == pytest.approx(
        1 - (low + 1) / 2
    )


def test_one_run_says_nothing_of_a_difference_between_runs():
    both = [graded(np.arange(50) < 40)], [graded(np.arange(50) < 30)]
    alone = difference(*map(one_set, both))
    assert np.isnan(alone.interval_over_runs()).all() and np.isfinite(alone.interval()).all()
    twice = difference(*(one_set(own * 2) for own in both))
    assert twice.interval_over_runs() == twice.interval()


def test_folds_give_students_interval_over_runs():
    rates = np.array([0.70, 0.80, 0.85, 0.95])
    ours = folds([graded(np.arange(200) < round(rate * 200)) for rate in rates])
    found = difference(ours, folds([graded(np.zeros(200, bool))] * 4))
    assert found.image_var == 0
    for level in (0.95, 0.99):
        expected = scipy_stats.t.interval(level, 3, rates.mean(), scipy_stats.sem(rates))
        assert found.interval(level) == pytest.approx(expected, rel=1e-6)
    assert found.p_value() == pytest.approx(scipy_stats.ttest_1samp(rates, 0).pvalue, rel=1e-6)


def test_runs_that_agree_narrow_the_interval_only_if_their_images_differ():
    test = graded(np.arange(400) % 10 > 1)
    alone = half_width(share_interval(one_set([test])))
    assert half_width(share_interval(one_set([test] * 4))) == pytest.approx(alone, rel=0.01)
    assert half_width(share_interval(folds([test] * 4))) < alone / 2


def test_a_patients_alike_images_widen_the_interval():
    correct = np.repeat(np.arange(100) % 10 > 1, 4)
    images = half_width(share_interval(one_set([graded(correct)])))
    patients = half_width(share_interval(one_set([graded(correct)], units=np.arange(400) // 4)))
    assert patients == pytest.approx(2 * images, 0.02)


def test_variance_parts_are_those_of_the_two_way_layout():
    """Runs by images: s^2 / S + C is the unbiased variance of the grand mean, MS(s)/SN + MS(i)/SN - MS(si)/SN."""
    rng = np.random.default_rng(5)
    correct = rng.random((4, 60)) < rng.uniform(0.4, 1, (1, 60)) * rng.uniform(0.8, 1, (4, 1))
    found = outcomes.mean(one_set([graded(row) for row in correct]), "accuracy")
    value = correct.astype(float)
    rows, columns = value.mean(1), value.mean(0)
    rest = value - rows[:, None] - columns + value.mean()
    squares = 60 * rows.var(ddof=1), 4 * columns.var(ddof=1), np.sum(rest**2) / (3 * 59)
    expected = (squares[0] + squares[1] - squares[2]) / 240
    assert found.se**2 == pytest.approx(expected, rel=0.02)


def test_variance_of_repeated_folds_is_that_of_its_parts():
    """Images right by luck of their own (variance a), of the image and repeat (e), of the run (b), all normal.

    The mean of R repeats of k folds has the variance b / (R k) + a / n + e / (R n), which the estimate has on average.
    """
    rng, n, k, repeats, a, e, b = np.random.default_rng(6), 60, 3, 3, 0.2, 0.1, 0.004
    found, values = [], []
    for _ in range(400):
        image, parts, influence = rng.normal(0, a**0.5, n), [], []
        for _ in range(repeats):
            this = image + rng.normal(0, e**0.5, n)
            for fold in np.split(rng.permutation(n), k):
                parts.append(this[fold].mean() + rng.normal(0, b**0.5))
                own = np.zeros(n)
                m = len(fold)
                own[fold] = (this[fold] - this[fold].mean()) / np.sqrt(m * (m - 1))  # the jackknife's of a mean
                influence.append(own)
        found.append(stats.estimate(np.array(parts), np.array(influence), n).se ** 2)
        values.append(np.mean(parts))
    truth = b / (repeats * k) + a / n + e / (repeats * n)
    assert np.var(values) == pytest.approx(truth, rel=0.25)
    assert np.mean(found) == pytest.approx(truth, rel=0.06)


def test_more_repeats_than_there_are():
    planned = made(runs=10, run_var=0.004, image_var=0.0005).repeated(2, 5)
    assert (planned.run_var, planned.image_var) == pytest.approx((0.004, 0.0005))  # as many as there are
    four = made(runs=10, run_var=0.004, image_var=0.0005).repeated(4, 5)
    variance, covariance = 0.0045, 0.0005 * 9 / 5
    assert four.se**2 == pytest.approx(variance / 20 + (1 - 1 / 4) * covariance)
    shared = made(runs=4, run_var=0.01, image_var=0.002).repeated(8, 1)  # one test set: C stays, s^2 / S shrinks
    assert (shared.run_var, shared.image_var) == pytest.approx((0.01, 0.002))


def test_error_distribution_has_its_limits():
    only_runs, only_images = made(run_var=4.0, runs=3), made(run_var=0.0, image_var=4.0)
    for x in (-9.0, -1.0, 0.5, 4.0):
        assert only_runs.below(x) == pytest.approx(scipy_stats.t.cdf(x, 2, scale=np.sqrt(4 / 3)), abs=1e-12)
        assert only_images.below(x) == pytest.approx(scipy_stats.norm.cdf(x, scale=2), abs=1e-12)
        assert made(run_var=4.0, runs=3, image_var=1e-9).below(x) == pytest.approx(only_runs.below(x), abs=1e-5)
    rng = np.random.default_rng(0)
    drawn = 2 / np.sqrt(3) * rng.standard_t(2, 400_000) + 1.5 * rng.normal(size=400_000)
    width = made(run_var=4.0, runs=3, image_var=2.25).half_width()
    assert width == pytest.approx(np.quantile(np.abs(drawn), 0.95), rel=0.02)


def test_interval_of_auc_agrees_with_hanley_and_mcneil():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 300)
    score = 1 / (1 + np.exp(-rng.normal(1.2 * labels)))
    tested = one_set([(labels, np.c_[1 - score, score])])
    auc = tested[0].figure("auc")[0]
    # Hanley & McNeil 1982, eq. 1, with the exponential approximation of Q1 and Q2.
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + 299 * (q1 - auc**2) + 299 * (q2 - auc**2)) / 300**2
    low, high = share_interval(tested, "auc")
    assert low < auc < high
    assert half_width((low, high)) == pytest.approx(1.96 * np.sqrt(variance), rel=0.12)


def test_difference_of_a_method_from_itself():
    tested = folds([noisy_test(seed=s) for s in range(3)])
    found = difference(tested, tested)
    assert found.mean == 0 and found.p_value() == 1
    assert found.interval() == pytest.approx((0, 0), abs=0.003)  # accuracies move in steps of 1/300


def test_difference_has_the_width_of_its_discordant_images():
    n = 500
    first = one_set([graded(np.arange(n) >= 50)])  # wrong on 0..49
    second = one_set([graded((np.arange(n) < 20) | (np.arange(n) >= 90))])  # wrong on 20..89
    found = difference(first, second)
    each = np.zeros(n)
    each[:20], each[50:90] = -1, 1
    assert found.mean == pytest.approx(each.mean(), abs=1e-12)
    expected = scipy_stats.norm.ppf(0.975) * each.std(ddof=1) / np.sqrt(n)
    assert half_width(found.interval()) == pytest.approx(expected)
    assert half_width(found.trained_interval()) == pytest.approx(expected)  # one run: nothing else varies
    back = difference(second, first)
    assert back.interval() == pytest.approx(tuple(-limit for limit in found.interval()[::-1]))


def test_the_interval_of_trained_networks_is_that_of_patients_pooled_over_all_images():
    """Folds of one size: the patients' mean differences, all images pooled."""
    rng = np.random.default_rng(4)
    correct = rng.random((2, 3, 80)) < np.array([0.8, 0.7])[:, None, None]
    sides = [
        [outcome(*graded(row), seed=s, units=(np.arange(80) + 80 * s) // 2, n_units=120) for s, row in enumerate(side)]
        for side in correct
    ]
    pooled = (correct[0].astype(float) - correct[1]).reshape(3, 40, 2).mean(2)  # a patient's mean difference
    found = difference(*sides)
    within = sum(np.sum((fold - fold.mean()) ** 2) for fold in pooled) * 40 / 39 / 120**2
    assert half_width(found.trained_interval()) == pytest.approx(1.959964 * np.sqrt(within), rel=1e-6)


def test_difference_drops_what_is_common_to_a_run():
    rng = np.random.default_rng(0)
    first = [graded(rng.random(300) < rate) for rate in [0.5, 0.6, 0.7, 0.8, 0.9]]
    second = [graded((probabilities.argmax(1) == 0) & (np.arange(300) >= 6)) for _, probabilities in first]
    found = difference(folds(first), folds(second))
    assert half_width(found.interval()) < half_width(share_interval(folds(first))) / 4


@pytest.mark.parametrize(
    ("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)]
)  # G*Power's matched-pairs t test, two-sided, 5 %, 80 %
def test_power_is_that_of_a_paired_t_test(effect, pairs):
    assert made(runs=pairs).power(effect) >= 0.8 > made(runs=pairs - 1).power(effect)
    assert made(runs=4).repeats_needed(effect, folds=1) == (pairs if pairs <= stats.MOST_REPEATS else np.inf)


def test_repeats_needed_has_limits():
    assert np.isnan(made(runs=1, run_var=np.nan, image_var=0.1).repeats_needed(0.5, folds=1))
    assert np.isnan(made(runs=5).repeats_needed(0.5, folds=5))  # one repeat says nothing of others
    # Patients that every repeat shares: 0.5 / 0.2 < 1.96 + 0.84, however many there are.
    assert made(runs=4, run_var=1e-3, image_var=0.04).repeats_needed(0.5, folds=1) == np.inf
    assert made(runs=4, image_var=0.01).repeats_needed(0.5, folds=1) > 34
    assert made(runs=10, run_var=0.004, image_var=1e-9).repeats_needed(0.037, folds=5, level=0.9937) > 2
    assert made(run_var=1e-9).repeats_needed(0.5, folds=1) == 2


def test_corrected_interval_is_that_of_the_formula():
    values = np.array([0.01, 0.03, 0.02, 0.05, -0.01, 0.02, 0.04, 0.03, 0.01, 0.0])
    reach = scipy_stats.t.ppf(0.975, 9) * np.sqrt((1 / 10 + 200 / 700) * values.var(ddof=1))
    expected = values.mean() - reach, values.mean() + reach
    assert stats.corrected_interval(values, 200 / 700) == pytest.approx(expected)
    plain = scipy_stats.t.interval(0.95, 9, values.mean(), scipy_stats.sem(values))
    assert stats.corrected_interval(values, 0.0) == pytest.approx(plain)
    assert np.isnan(stats.corrected_interval(values[:1], 0.3)).all()


def test_holm_by_hand():
    adjusted, levels = stats.holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # Compared with 0.05 / 4 and / 3, rejected; then with / 2, not rejected, where the others stay.
    assert levels == pytest.approx([1 - 0.05 / 3, 0.975, 0.975, 1 - 0.05 / 4])
    adjusted, levels = stats.holm([0.6, np.nan, 0.7])
    assert adjusted == pytest.approx([1, np.nan, 1], nan_ok=True) and levels[0] == levels[2] == 0.975
    assert stats.holm([])[0].shape == (0,) and stats.holm([0.2])[1] == pytest.approx([0.95])


def test_intervals_at_holms_levels_exclude_zero_exactly_where_it_rejects():
    rng, rejected = np.random.default_rng(1), 0
    for _ in range(60):
        family = [made(mean, run_var=0.02) for mean in rng.choice([0.0, 0.1, 0.2, 0.4], 5)]
        family = [made(own.mean + rng.normal(0, 0.06), run_var=own.run_var) for own in family]
        adjusted, levels = stats.holm([own.p_value() for own in family])
        for own, p, level in zip(family, adjusted, levels):
            lo, hi = own.interval(level)
            assert (lo > 0 or hi < 0) == (p < 0.05)
            rejected += p < 0.05
    assert 30 < rejected < 270


def test_swaps_are_counted_exactly_where_few_units_differ():
    ours, theirs = np.array([0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0]), np.array([0.3, 0, 0, 0, 0, 0, 0])
    assert stats.swap_p(ours, theirs) == 2 / 32  # all signs alike: 2 of 2^5
    assert stats.swap_p(theirs, ours) == 2 / 32
    assert stats.swap_p(ours, ours) == 1
    rng = np.random.default_rng(0)
    many = rng.random(400) < 0.15
    other = rng.random(400) < 0.10
    exact = scipy_stats.binomtest(int((many & ~other).sum()), int((many != other).sum())).pvalue
    assert stats.swap_p(many / 400, other / 400) == pytest.approx(exact, abs=0.015)  # McNemar's, of single images
