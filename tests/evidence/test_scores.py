"""Scores against scikit-learn and medmnist, by hand, and by simulation of networks whose calibration is known."""

import warnings

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss, precision_recall_fscore_support, recall_score

from pipelines.evidence import schemas, scores
from pipelines.runs.metrics import accuracy, macro_auc


def noisy_test(n=400, classes=4, seed=0, edge=0.6):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    probabilities = rng.dirichlet(np.ones(classes), n) + edge * np.eye(classes)[labels]
    return labels, probabilities / probabilities.sum(1, keepdims=True)


def calibrated_test(n, classes=4, seed=0):
    """Labels drawn from the probabilities themselves."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.5), n)
    labels = (probabilities.cumsum(1) < rng.random((n, 1))).sum(1).clip(0, classes - 1)
    return labels, probabilities


def sure(labels, predicted, classes=3):
    return np.array(labels), np.eye(classes)[predicted]


@pytest.mark.parametrize("seed", range(3))
def test_class_scores_are_scikit_learns(seed):
    labels, probabilities = noisy_test(seed=seed)
    found = scores.class_scores(labels, probabilities)
    precision, recall, f1, images = precision_recall_fscore_support(labels, probabilities.argmax(1))
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1), ("images", images)):
        assert found[name] == pytest.approx(expected, abs=1e-12)
    rest = [recall_score(labels != c, probabilities.argmax(1) != c) for c in range(4)]
    assert found["specificity"] == pytest.approx(rest, abs=1e-12)
    assert found["predicted"].sum() == found["images"].sum() == len(labels)


def test_classes_without_images_or_predictions_are_holes():
    found = scores.class_scores(*sure([0, 0, 0, 1], [0, 0, 2, 0]))  # 1 is never predicted, 2 has no image
    assert found["recall"] == pytest.approx([2 / 3, 0, np.nan], nan_ok=True)
    assert found["precision"] == pytest.approx([2 / 3, np.nan, 0], nan_ok=True)
    assert found["specificity"] == pytest.approx([0, 1, 3 / 4], nan_ok=True)
    assert found["f1"] == pytest.approx([2 / 3, 0, np.nan], nan_ok=True)
    whole = scores.scores(*sure([0, 0, 0, 1], [0, 0, 2, 0]))
    assert all(np.isnan(whole[name]) for name in ("recall", "precision", "f1")) and whole["brier"] == 1
    only = scores.class_scores(*sure([1, 1], [1, 1]))
    assert only["specificity"] == pytest.approx([1, np.nan, 1], nan_ok=True)


def test_macro_recall_of_balanced_classes_is_accuracy():
    labels, probabilities = noisy_test()
    labels = np.arange(len(labels)) % 4
    assert scores.scores(labels, probabilities)["recall"] == pytest.approx(accuracy(labels, probabilities), abs=1e-12)


def test_likelihood_and_brier_are_scikit_learns():
    labels, probabilities = noisy_test()
    assert scores.negative_log_likelihood(labels, probabilities) == pytest.approx(log_loss(labels, probabilities))
    each = [brier_score_loss(labels == c, probabilities[:, c]) for c in range(4)]
    assert scores.brier(labels, probabilities) == pytest.approx(sum(each), abs=1e-12)


def test_likelihood_and_brier_at_their_ends():
    right, wrong = sure([0, 1, 2], [0, 1, 2]), sure([0, 1, 2], [1, 2, 0])
    assert (scores.brier(*right), scores.brier(*wrong)) == (0, 2)
    assert scores.negative_log_likelihood(*right) == 0
    assert scores.negative_log_likelihood(*wrong) == pytest.approx(-np.log(scores.FLOOR))
    labels, even = np.arange(4), np.full((4, 4), 0.25)
    assert scores.negative_log_likelihood(labels, even) == pytest.approx(np.log(4))
    assert scores.brier(labels, even) == pytest.approx(0.75)


def test_calibration_error_by_hand():
    # Bins of a fifth: (0.4, 0.6] holds 0.5 and 0.6, one of two right; (0.8, 1] holds 0.9, 0.9 and 1, all wrong but one.
    top = np.array([0.5, 0.6, 0.9, 0.9, 1.0])
    labels = np.array([0, 1, 1, 0, 1])
    probabilities = np.c_[top, 1 - top]
    bins = scores.reliability(labels, probabilities, 5)
    assert bins["count"].tolist() == [0, 0, 2, 0, 3]
    assert bins.accuracy.tolist() == pytest.approx([np.nan, np.nan, 1 / 2, np.nan, 1 / 3], nan_ok=True)
    assert bins.confidence.tolist() == pytest.approx([np.nan, np.nan, 0.55, np.nan, 2.8 / 3], nan_ok=True)
    expected = 2 / 5 * 0.05 + 3 / 5 * (2.8 / 3 - 1 / 3)
    assert scores.calibration_error(labels, probabilities, 5) == pytest.approx(expected, abs=1e-12)


def test_bins_are_scikit_learns():
    labels, probabilities = noisy_test()
    bins = scores.reliability(labels, probabilities).query("count > 0")
    right, sure = calibration_curve(
        probabilities.argmax(1) == labels, probabilities.max(1), n_bins=15, strategy="uniform"
    )
    assert bins.accuracy.to_numpy() == pytest.approx(right) and bins.confidence.to_numpy() == pytest.approx(sure)


def test_confidence_a_little_over_one_is_in_the_last_bin():
    bins = scores.reliability(np.array([0, 0]), np.array([[1.0000002, 0.0], [1.0, 0.0]], np.float32))
    assert bins["count"].tolist() == [0] * 14 + [2]
    assert scores.calibration_error_by_chance(np.array([0]), np.array([[1.0000002, 0.0]])) == 0


@pytest.mark.parametrize("n", [100, 1000, 10_000])
def test_calibrated_networks_have_the_error_of_chance(n):
    tests = [calibrated_test(n, seed=s) for s in range(60)]
    found = np.array([scores.calibration_error(*test) for test in tests])
    expected = np.mean([scores.calibration_error_by_chance(*test) for test in tests])
    assert found.mean() == pytest.approx(expected, abs=4 * found.std() / np.sqrt(len(found)))
    assert expected < 0.9 / np.sqrt(n) * np.sqrt(15 / 4)  # it goes to zero as the square root of the images


def test_chance_alone_is_the_mean_deviation_of_a_binomial():
    top = np.full(30, 0.9)
    error = scores.calibration_error_by_chance(np.zeros(30, int), np.c_[top, 1 - top])
    rights = np.random.default_rng(0).binomial(30, 0.9, 200_000) / 30
    assert error == pytest.approx(np.abs(rights - 0.9).mean(), rel=0.01)


def test_overconfidence_is_found():
    labels, probabilities = calibrated_test(20_000)
    sharp = probabilities**3 / (probabilities**3).sum(1, keepdims=True)
    gap = sharp.max(1).mean() - accuracy(labels, sharp)
    assert scores.calibration_error(labels, sharp) == pytest.approx(gap, abs=0.01) and gap > 0.1
    assert scores.brier(labels, sharp) > scores.brier(labels, probabilities)  # both are proper
    assert scores.negative_log_likelihood(labels, sharp) > scores.negative_log_likelihood(labels, probabilities)


@pytest.mark.parametrize("seed", range(3))
def test_names_of_classes_and_order_of_images_do_not_matter(seed):
    labels, probabilities = noisy_test(seed=seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = np.array([2, 0, 3, 1])
    expected = pytest.approx(scores.scores(labels, probabilities), abs=1e-12)
    assert scores.scores(labels[order], probabilities[order]) == expected
    assert scores.scores(turn[labels], probabilities[:, np.argsort(turn)]) == expected
    found = scores.scores(labels, probabilities)
    assert 0 <= found["ece"] <= 1 and 0 <= found["brier"] <= 2 and found["nll"] >= 0


def degenerate(name):
    labels, probabilities = noisy_test(n=80, seed=5)
    even, one = np.full_like(probabilities, 0.25), np.tile(np.eye(4)[1], (80, 1))
    return {
        "even": (labels, even),
        "one class": (labels, one),
        "all right": (labels, np.eye(4)[labels]),
        "all wrong": (labels, np.eye(4)[(labels + 1) % 4]),
        "ties": (labels, probabilities.round(1)),
        "float32": (labels, probabilities.astype(np.float32)),
        "two classes": (labels % 2, probabilities[:, :2] / probabilities[:, :2].sum(1, keepdims=True)),
    }[name]


@pytest.mark.parametrize(
    "name", ["even", "one class", "all right", "all wrong", "ties", "float32", "two classes", *range(4)]
)
def test_auc_and_accuracy_are_those_of_medmnists_evaluator(name):
    evaluator = pytest.importorskip("medmnist.evaluator")
    labels, probabilities = noisy_test(seed=name, edge=0.2) if isinstance(name, int) else degenerate(name)
    assert macro_auc(labels, probabilities) == pytest.approx(
        evaluator.getAUC(labels[:, None], probabilities, "multi-class"), abs=1e-9
    )
    assert accuracy(labels, probabilities) == evaluator.getACC(labels[:, None], probabilities, "multi-class")


@pytest.mark.parametrize("name", ["even", "one class", "all right", "all wrong", "float32"])
def test_degenerate_predictions_raise_no_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores.scores(*degenerate(name))
    assert np.isfinite([found[key] for key in ("ece", "ece_chance", "brier", "nll", "f1")]).all()
    assert np.isnan(found["precision"]) == (name in ("even", "one class"))


def made_up_runs():
    tests = {("b", 0): noisy_test(seed=0), ("b", 5): noisy_test(seed=1), ("a", 0): noisy_test(seed=2, edge=2)}
    return {key: {"labels": labels, "probabilities": p} for key, (labels, p) in tests.items()}


def test_frames():
    runs = made_up_runs()
    frame = schemas.frame("scores", scores.rows(runs))
    assert list(frame.columns) == ["method", "seed", *scores.SCORES]
    assert list(zip(frame.method, frame.seed)) == list(runs)
    own = runs["b", 5]
    assert frame.iloc[1].ece == scores.calibration_error(own["labels"], own["probabilities"])

    classes = ["cnv", "dme", "drusen", "normal"]
    by_class = schemas.frame("class_scores", scores.class_rows(runs, classes))
    assert by_class["class"].tolist() == classes * 3 and by_class.images.sum() == 1200
    assert by_class.groupby(["method", "seed"]).f1.mean()["b", 5] == pytest.approx(frame.iloc[1].f1)

    by_method = {name: [run for (own, _), run in runs.items() if own == name] for name in ("b", "a", "no run")}
    bins = schemas.frame("reliability", scores.reliability_rows(by_method))
    assert bins.method.tolist() == ["b"] * 15 + ["a"] * 15
    assert bins.groupby("method")["count"].sum().to_dict() == {"a": 400, "b": 800}
    pooled = np.average(
        bins[bins["count"] > 0].query("method == 'b'").accuracy,
        weights=bins.query("method == 'b' and count > 0")["count"],
    )
    assert pooled == pytest.approx(np.mean([accuracy(*runs["b", s].values()) for s in (0, 5)]))
