"""Images that most runs get wrong, by hand."""

import numpy as np

from pipelines.evidence import hard_scans, schemas
from tests.evidence.made import outcome


def runs(*probabilities, labels, indices):
    return [
        outcome(np.array(labels), np.array(own), seed, indices=indices, n_units=100)
        for seed, own in enumerate(probabilities)
    ]


def test_most_runs_and_how_sure_they_are():
    labels, indices = [0, 0, 1, 1], np.array([4, 7, 9, 30])
    found = hard_scans.misclassified(
        runs(
            [[0.1, 0.9], [0.4, 0.6], [0.2, 0.8], [0.6, 0.4]],
            [[0.2, 0.8], [0.3, 0.7], [0.1, 0.9], [0.7, 0.3]],
            [[0.3, 0.7], [0.9, 0.1], [0.1, 0.9], [0.2, 0.8]],
            labels=labels,
            indices=indices,
        ),
        ["cnv", "dme"],
    )
    assert found.image.tolist() == [4, 30, 7]  # wrong in 3, 2 and 2 of 3 runs; sure by 0.8, 0.5 and 0.467
    assert found.label.tolist() == ["cnv", "dme", "cnv"] and found.predicted.tolist() == ["dme", "cnv", "dme"]
    np.testing.assert_allclose(found.probability, [0.8, 0.5, 1.4 / 3])
    np.testing.assert_allclose(found.share_wrong, [1, 2 / 3, 2 / 3])
    assert found.runs.tolist() == [3, 3, 3]
    assert hard_scans.hard(found).image.tolist() == [4]  # the others' probability is a half or less
    assert list(schemas.frame("hard_scans", found)) == list(found)


def test_folds_test_an_image_in_some_runs_only():
    first, second = runs([[0.1, 0.9]], labels=[0], indices=[3]), runs([[0.9, 0.1]], labels=[1], indices=[8])
    found = hard_scans.misclassified([*first, *second, *runs([[0.8, 0.2]], labels=[0], indices=[3])], ["cnv", "dme"])
    assert found.image.tolist() == [8] and found.runs.tolist() == [1]  # image 3: wrong in half of its runs


def test_an_image_may_be_wrong_in_many_ways():
    """Three of four runs are wrong, each its own way; the class that most name is the right one."""
    probabilities = [np.eye(4)[[own]] for own in (0, 1, 2, 3)]
    found = hard_scans.misclassified(runs(*probabilities, labels=[0], indices=[1]), list("abcd"))
    assert found.predicted.tolist() == ["a"] and found.share_wrong.tolist() == [0.75]
    assert hard_scans.hard(found).empty


def test_at_most_so_many_are_shown():
    wrong = hard_scans.misclassified(
        runs(np.tile([0.1, 0.9], (60, 1)), labels=[0] * 60, indices=np.arange(60)), ["a", "b"]
    )
    assert len(wrong) == 60 and len(hard_scans.hard(wrong)) == hard_scans.MOST
    assert hard_scans.misclassified([], ["a"]).empty
