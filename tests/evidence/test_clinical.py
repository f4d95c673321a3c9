"""Clinical scores against scikit-learn on whole tests, patients' scores by hand, intervals with known truth, curves."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest
from sklearn import metrics as sk

from pipelines.evidence import clinical, schemas
from tests.evidence.made import noisy_test, one_set, outcome

CLASSES = ["a", "b", "c", "d"]


def found(outcomes, classes=CLASSES):
    frame = schemas.frame("clinical", clinical.rows({"m": outcomes, "no run": []}, classes))
    return frame.set_index([frame["level"], frame["class"].fillna("all"), frame["measure"]])


def test_values_are_scikit_learns_means_over_runs():
    tests = [noisy_test(seed=seed) for seed in range(3)]

    rows = found(
        [outcome(*test, seed, indices=np.arange(300) + 300 * seed, n_units=900) for seed, test in enumerate(tests)]
    )
    assert set(rows["level"]) == {"image"} and set(rows.runs) == {3} and len(rows) == 3 + 3 * 4
    named = [(labels, probabilities.argmax(1)) for labels, probabilities in tests]
    for measure, metric in (
        ("accuracy", sk.accuracy_score), ("balanced_accuracy", sk.balanced_accuracy_score),
        ("kappa", sk.cohen_kappa_score),
    ):  # fmt: skip
        assert rows.loc[("image", "all", measure), "value"] == pytest.approx(np.mean([metric(*own) for own in named]))
    for measure, metric in (("auc", sk.roc_auc_score), ("average_precision", sk.average_precision_score)):
        expected = np.mean([metric(labels == 2, probabilities[:, 2]) for labels, probabilities in tests])
        assert rows.loc[("image", "c", measure), "value"] == pytest.approx(expected)
    assert ((rows.lo < rows.value) & (rows.value < rows.hi)).all()


def test_of_many_classes_only_what_is_of_all_of_them_is_told():
    labels, probabilities = noisy_test()
    many = [f"class{number}" for number in range(clinical.MOST + 1)]
    wide = np.pad(probabilities, ((0, 0), (0, len(many) - 4)))
    rows = found(one_set([(labels, wide)] * 2), many)
    assert list(rows.measure) == ["accuracy", "balanced_accuracy", "kappa"]
    assert rows["value"].tolist() == pytest.approx(found(one_set([(labels, probabilities)] * 2))["value"].tolist()[:3])


def test_a_patients_images_of_one_class_are_one():
    labels = np.array([0, 0, 1, 1, 0])
    score = np.array([0.9, 0.6, 0.3, 0.9, 0.2])
    own = clinical.by_patient(
        outcome(labels, np.c_[score, 1 - score], units=np.array([7, 7, 7, 9, 9]), indices=np.arange(5), patients=True)
    )
    # Patient 7: 0.75 for class 0, 0.3 for class 1; patient 9: 0.2 and 0.9.
    assert own.units.tolist() == [7, 7, 9, 9] and own.labels.tolist() == [0, 1, 0, 1]
    assert own.probabilities[:, 0] == pytest.approx([0.75, 0.3, 0.2, 0.9])


def test_patients_have_rows_where_they_are_known():
    tested = one_set([noisy_test(seed=s) for s in (0, 0)], units=np.arange(300) // 3, patients=True)
    rows = found(tested)
    assert set(rows["level"]) == {"image", "patient"} and len(rows) == 2 * 15
    patients = clinical.by_patient(tested[0])
    expected = sk.accuracy_score(patients.labels, patients.probabilities.argmax(1))
    assert rows.loc[("patient", "all", "accuracy"), "value"] == pytest.approx(expected)


def test_a_sensitivity_of_one_rests_on_the_units_of_its_class():
    """60 of 60 found among 600: Clopper and Pearson's limit of 60."""
    labels = np.repeat([0, 1], [60, 540])
    rows = found(one_set([(labels, np.eye(2)[labels])]), ["a", "b"])
    for name, count in (("a", 60), ("b", 540)):
        expected = binomtest(count, count).proportion_ci(method="exact").low
        assert rows.loc[("image", name, "sensitivity"), "lo"] == pytest.approx(expected, abs=1e-6)
    smallest = binomtest(60, 60).proportion_ci(method="exact").low
    assert rows.loc[("image", "all", "balanced_accuracy"), "lo"] == pytest.approx((1 + smallest) / 2, abs=1e-6)


def test_sensitivity_at_specificity_covers_the_truth():
    """Binormal scores: at 95 % specificity the sensitivity is Phi(d - z), here in five folds of new images."""
    rng, d, n, inside, trials = np.random.default_rng(0), 2.2, 160, 0, 120
    truth = ndtr(d - ndtri(0.95))
    for _ in range(trials):
        tested = []
        for seed in range(5):
            labels = np.arange(n) % 2
            score = ndtr((rng.normal(size=n) + d * labels - d / 2) / 2)
            own = np.arange(n) + n * seed
            tested.append(outcome(labels, np.c_[1 - score, score], seed, indices=own, n_units=5 * n))
        value, lo, hi = clinical.measured(tested, ["no", "yes"])["yes", "sensitivity"]
        inside += lo <= truth <= hi
    assert inside / trials >= 0.85  # the threshold is estimated too, on 80 images


def test_curves_pass_through_scikit_learns():
    tests = [noisy_test(seed=seed) for seed in range(2)]
    rows = schemas.frame("roc", clinical.curves({"m": one_set(tests), "no run": []}, CLASSES))
    assert len(rows) == 4 * 2 * len(clinical.POINTS) and set(rows.method) == {"m"}
    roc = rows.query("curve == 'roc' and `class` == 'b'")
    assert roc.x.tolist() == pytest.approx(np.linspace(0, 1, 51)) and roc.y.is_monotonic_increasing
    expected = np.mean([sk.roc_auc_score(labels == 1, probabilities[:, 1]) for labels, probabilities in tests])
    assert np.trapezoid(roc.y, roc.x) == pytest.approx(expected, abs=0.01)
    precision = rows.query("curve == 'precision_recall' and `class` == 'b'")
    assert precision.y.is_monotonic_decreasing
    at_half = []
    for labels, probabilities in tests:
        points, recall, _ = sk.precision_recall_curve(labels == 1, probabilities[:, 1])
        at_half.append(points[recall >= 0.5].max())
    assert precision.y.iloc[25] == pytest.approx(np.mean(at_half))
    without = [(np.where(labels == 1, 0, labels), probabilities) for labels, probabilities in tests]
    lacking = schemas.frame("roc", clinical.curves({"m": one_set(without)}, CLASSES))
    assert set(lacking["class"]) == {"a", "c", "d"}  # without an image there is no curve
