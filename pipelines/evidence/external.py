"""Runs on other patients: rows of external.csv, patients as units."""

import numpy as np

from pipelines.evidence import outcomes as tests
from pipelines.evidence import stats
from pipelines.evidence.outcomes import Outcome

METRICS = ("accuracy", "balanced_accuracy", "auc")


def rows(data: str, there: dict[str, list[Outcome]], own: dict[str, list[Outcome]]) -> list[dict]:
    """A row a method with a run.

    Args:
        data: name of the external data.
        there, own: by method, the outcomes on them and on the profile's own test images.
    """
    found = []
    for method, outcomes in there.items():
        if not outcomes:
            continue
        home = {outcome.seed: outcome for outcome in own[method]}
        pairs = [(outcome, home[outcome.seed]) for outcome in outcomes]
        moved = change(pairs, "balanced_accuracy")
        lo, hi = moved.interval_over_runs()
        found.append({
            "data": data, "method": method, "runs": len(outcomes), "images": tests.count_images(outcomes),
            "patients": tests.count_patients(outcomes), **figures(outcomes),
            "own_balanced_accuracy": np.mean([b.figure("balanced_accuracy")[0] for _, b in pairs]),
            "change": moved.mean, "change_lo": lo, "change_hi": hi,
        })  # fmt: skip
    return found


def figures(outcomes: list[Outcome]) -> dict[str, float]:
    """The mean over runs of each of `METRICS`, with _lo and _hi."""
    found = {}
    for metric in METRICS:
        estimate = tests.mean(outcomes, metric)
        lo, hi = estimate.share_interval(counted=tests.counted(outcomes, metric))
        found |= {metric: estimate.mean, f"{metric}_lo": lo, f"{metric}_hi": hi}
    return found


def change(pairs: list[tuple[Outcome, Outcome]], metric: str) -> stats.Estimate:
    """The mean over runs of a metric's difference between two data sets that share no unit, first minus second."""
    values = [a.figure(metric)[0] - b.figure(metric)[0] for a, b in pairs]
    influence = [np.concatenate([a.figure(metric)[1], -b.figure(metric)[1]]) for a, b in pairs]
    units = sum(tests.count_units(list(side)) for side in zip(*pairs, strict=True))
    grid = 1 / max(len(own.labels) for pair in pairs for own in pair)
    return stats.estimate(np.array(values), np.array(influence), units, grid=grid)
