"""Runs on other patients: values and intervals by hand, contrasts as a family of their own, tables that do not fit."""

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn import metrics as sk

from pipelines.evidence import external, outcomes, schemas, stats
from pipelines.evidence.summary import summarise
from pipelines.files.errors import UserError
from tests import fake_results as fake
from tests.evidence.made import folds, graded, one_set
from tests.evidence.test_summarise import _work_in  # noqa: F401

METHODS = ["full", "head-only", "colora-blocks2-5"]


def write(names=("elsewhere",), **more):
    params = fake.params(METHODS, seeds=range(4), **more)
    sets = [{"name": name, "path": f"scans/{name}"} for name in names]
    params = type(params).model_validate(params.model_dump() | {"data": params.data.model_dump() | {"external": sets}})
    fake.write_profile(params, folds=2, n_test=60)
    return params


def test_values_are_those_of_the_predictions():
    params = write()
    summarise(params)
    found = schemas.read(params.results_dir, "external").set_index("method")
    assert found.index.tolist() == METHODS and set(found.data) == {"elsewhere"} and set(found.runs) == {4}
    assert set(found.images) == {fake.EXTERNAL_IMAGES} and set(found.patients) == {fake.EXTERNAL_IMAGES // 2}
    balanced, aucs, own = [], [], []
    for seed in params.seeds:
        with np.load(params.run_dir("full", seed) / "external-elsewhere.npz") as archive:
            labels, probabilities = archive["labels"], archive["probabilities"].astype(float)
        balanced.append(sk.balanced_accuracy_score(labels, probabilities.argmax(1)))
        aucs.append(np.mean([sk.roc_auc_score(labels == c, probabilities[:, c]) for c in range(4)]))
        with np.load(params.run_dir("full", seed) / "predictions.npz") as archive:
            own.append(sk.balanced_accuracy_score(archive["labels"], archive["probabilities"].argmax(1)))
    row = found.loc["full"]
    assert (row.balanced_accuracy, row.auc) == pytest.approx((np.mean(balanced), np.mean(aucs)), rel=1e-5)
    assert row.own_balanced_accuracy == pytest.approx(np.mean(own), rel=1e-5)
    assert row.change == pytest.approx(np.mean(balanced) - np.mean(own), rel=1e-4)
    assert row.balanced_accuracy_lo < row.balanced_accuracy < row.balanced_accuracy_hi and row.change_hi > row.change


def test_declared_contrasts_are_made_again_as_a_family_of_their_own():
    params = write(("elsewhere", "abroad"))
    summarise(params)
    found = schemas.read(params.results_dir, "contrasts").query("runs > 0")
    assert found.data.unique().tolist() == ["test", "elsewhere", "abroad"]
    assert set(found.query("data != 'test'").metric) == {"balanced_accuracy", "auc"}
    for _, family in found.groupby(["data", "metric"]):
        assert stats.holm(family.p)[0] == pytest.approx(family.p_holm, rel=1e-4)
    elsewhere = found.query("data == 'elsewhere'")
    assert set(elsewhere.folds) == {1} and set(elsewhere.repeats) == {2} and elsewhere.corrected_lo.isna().all()
    assert set(schemas.read(params.results_dir, "pairs").data) == {"test", "elsewhere", "abroad"}


def test_the_change_has_the_interval_of_runs_and_of_both_sets_of_images():
    """One run: independent images, so the variances of two shares add. More: Student's of the runs' changes, and C."""
    here, there = one_set([graded(np.arange(200) < 150)]), one_set([graded(np.arange(100) < 90)])
    found = external.change(list(zip(there, here)), "accuracy")
    error = np.sqrt(0.9 * 0.1 / 99 + 0.75 * 0.25 / 199)
    assert found.interval() == pytest.approx((0.15 - 1.959964 * error, 0.15 + 1.959964 * error), abs=1e-4)
    rates = np.array([0.7, 0.8, 0.75, 0.9])
    own = folds([graded(np.arange(100) < 100 * rate) for rate in rates])
    other = folds([graded(np.ones(100, bool))] * 4)
    found = external.change(list(zip(own, other)), "accuracy")
    expected = scipy_stats.t.interval(0.95, 3, rates.mean() - 1, scipy_stats.sem(rates))
    assert found.interval() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "external-elsewhere.csv: no such file; run `python -m pipelines.prepare`"),
        (
            "image,label,patient\n0,0,0\n",
            "no patient for 59 test images of method full, seed 0, the first being image 1",
        ),
        ("image,label\n0,0\n", "not a table of image and patient numbers"),
    ],
)
def test_a_table_that_does_not_fit_is_named(content, message):
    params = write()
    path = params.results_dir / "data" / "external-elsewhere.csv"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=message):
        summarise(params)


def test_nothing_external_leaves_empty_tables():
    params = fake.params(METHODS)
    fake.write_profile(params)
    summarise(params)
    assert schemas.read(params.results_dir, "external").empty
    assert outcomes.gather(params, {}).keys() == {"test"}
