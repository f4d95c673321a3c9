"""Test images that most runs get wrong, for a reader's eye: rows of hard_scans.csv and misclassified.csv."""

import numpy as np
import pandas as pd

from pipelines.evidence import schemas
from pipelines.evidence.outcomes import Outcome

MOST = 24  # hard scans that are shown
WRONG = 0.5  # share of the runs that should be wrong, and probability that they should give what they say


def misclassified(outcomes: list[Outcome], classes: list[str]) -> pd.DataFrame:
    """A row an image that more than half of the runs that tested it get wrong, the surest errors first.

    Args:
        outcomes: runs of any methods on one data set; each counts once. Of classes that equally many runs name the
            first is `predicted`.
    """
    if not outcomes:
        return schemas.frame("misclassified", [])
    images, place = np.unique(np.concatenate([own.indices for own in outcomes]), return_inverse=True)
    labels = np.zeros(len(images), int)
    labels[place] = np.concatenate([own.labels for own in outcomes])
    probabilities = np.concatenate([own.probabilities for own in outcomes])
    votes, sure = np.zeros((2, len(images), len(classes)))
    np.add.at(votes, (place, probabilities.argmax(1)), 1)
    np.add.at(sure, place, probabilities)
    runs, predicted, every = votes.sum(1), votes.argmax(1), np.arange(len(images))
    found = pd.DataFrame({
        "image": images, "label": np.array(classes)[labels], "predicted": np.array(classes)[predicted],
        "probability": sure[every, predicted] / runs, "share_wrong": 1 - votes[every, labels] / runs,
        "runs": runs.astype(int),
    })  # fmt: skip
    return found[found.share_wrong > WRONG].sort_values(["probability", "share_wrong"], ascending=False, kind="stable")


def hard(wrong: pd.DataFrame) -> pd.DataFrame:
    """Of the rows of `misclassified`, at most `MOST` whose named class is wrong and has a probability above a half."""
    return wrong[(wrong.predicted != wrong.label) & (wrong.probability > WRONG)].head(MOST)
