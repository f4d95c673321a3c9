"""Accuracy on corrupted test images, from what `pipelines.probe` left of each probed run: the rows of robustness.csv.

Intervals are those of `pipelines.stats`: Student's t over seeds and the delete-one-unit jackknife over patients, on the
logit scale. Accuracy kept is the ratio R = A / A_0 of two means over seeds of the same images, corrupted and clean; its
interval is the delta method's: A's, with both parts of variance taken of a_s - R a_0s (Cochran 1977, Sampling
Techniques, ch. 6: what moves both cancels), divided by A_0.
"""

import numpy as np
import pandas as pd

from pipelines.evidence import stats
from pipelines.evidence.probed import Probed
from pipelines.profile import Params

COLUMNS = (
    "method", "kind", "severity", "accuracy", "lo", "hi", "clean", "kept", "kept_lo", "kept_hi", "seeds", "test_images",
)  # fmt: skip
NAMES = ("indices", "labels", "clean", "predicted", "kinds")
MEAN = "mean"  # the row's kind over all kinds and severities
SEVERITIES = 5
NEAR = 0.05  # two probabilities that rounding may put in the other order: a probe's batches are not those of the test


def frame(params: Params, runs: dict) -> pd.DataFrame:
    """`COLUMNS`: for each method, a row a kind and severity; one a kind, its severity empty; one of all, kind "mean".

    `seeds` says how many of the profile's seeds were probed. A method without a probed run has no row, and neither has
    any in a profile without `probe`.

    Args:
        runs: by (method, seed), as `pipelines.runs.reading.read_runs` returns them, with "units" of `reading.add_units`.

    Raises:
        SummaryError: as `Probed.read` and `check`.
    """
    probed = Probed(params, "corruptions.npz", NAMES)
    by_method: dict[str, list[dict]] = {method: [] for method in params.method}
    for (method, _), run in runs.items():
        found = probed.read(run)
        if found is not None:
            check(probed, run, found)
            by_method[method].append({**found, "units": run["units"]})
    rows = [row for method, own in by_method.items() if own for row in _rows(method, own)]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"severity": "Int64"})


def check(probed: Probed, run: dict, found: dict[str, np.ndarray]) -> None:
    """Raises SummaryError where a run's corruptions.npz is malformed, or not of the same run as its predictions."""
    shapes = {name: found[name].shape for name in NAMES}
    n, k = found["indices"].size, found["kinds"].size
    if list(shapes.values()) != [(n,), (n,), (n,), (k, SEVERITIES, n), (k,)] or not k:
        expected = f"(n,), (n,), (n,), (k, {SEVERITIES}, n), (k,) with a kind at least"
        raise probed.error(
            run, f"{', '.join(NAMES)} should be {expected}, found {', '.join(map(str, shapes.values()))}"
        )
    kinds = found["kinds"].tolist()
    if found["kinds"].dtype.kind != "U" or len(set(kinds)) < k or {MEAN, ""} & set(kinds):
        raise probed.error(run, f"kinds should be names that differ, none of them {MEAN!r}, found {kinds[:20]}")
    probed.same(run, "kinds", found["kinds"])
    labels, clean, predicted = found["labels"], found["clean"], found["predicted"]
    if not all(array.dtype.kind in "iu" for array in (labels, clean, predicted)):
        raise probed.error(run, "labels, clean and predicted should be integers")
    probabilities = run["probabilities"][found["places"]]
    lowest, highest = min(clean.min(), predicted.min()), max(clean.max(), predicted.max())
    if lowest < 0 or highest >= probabilities.shape[1]:
        raise probed.error(run, f"classes should be 0 to {probabilities.shape[1] - 1}, found {lowest} to {highest}")
    if not np.array_equal(labels, run["labels"][found["places"]]):
        raise probed.error(run, "its labels differ from those of predictions.npz: not one run")
    behind = probabilities.max(1) - probabilities[np.arange(n), clean.astype(np.int64)]
    if behind.max() > NEAR:
        worst = behind.argmax()
        raise probed.error(
            run,
            f"clean names class {clean[worst]} on image {found['indices'][worst]}, predictions.npz class "
            f"{probabilities[worst].argmax()}: not one run",
        )


def _rows(method: str, runs: list[dict]) -> list[dict]:
    kinds = runs[0]["kinds"].tolist()
    places = [(kind, severity) for kind in kinds for severity in range(1, SEVERITIES + 1)]
    # What a row is of: one of the conditions, a kind's five, or all of them.
    one = np.eye(len(places))
    whole = np.kron(np.eye(len(kinds)), np.full(SEVERITIES, 1 / SEVERITIES))
    weights = np.vstack([one, whole, one.mean(0)])
    names = [*places, *((kind, None) for kind in kinds), (MEAN, None)]
    about = {"seeds": len(runs), "test_images": len(np.unique(np.concatenate([run["indices"] for run in runs])))}
    rows = [
        {"method": method, "kind": kind, "severity": severity, **found, **about}
        for (kind, severity), found in zip(names, measure(runs, weights), strict=True)
    ]
    return sorted(rows, key=lambda row: [*kinds, MEAN].index(row["kind"]))


def measure(runs: list[dict], weights: np.ndarray) -> list[dict]:
    """Accuracy and accuracy kept, with intervals, of each weighted mean of the conditions.

    Args:
        runs: one a seed: "labels" and "clean" (n,), "predicted" (kinds, severities, n), "places" (n,) in the run's
            "units".
        weights: (rows, conditions), each row of sum one; conditions are kinds x severities in C order.

    Returns:
        For each row accuracy, lo, hi, clean, kept, kept_lo, kept_hi; those of kept are NaN where clean is 0.
    """
    units = [run["units"][run["places"]] for run in runs]
    n_units = 1 + max(int(own.max()) for own in units)
    count = len(np.unique(np.concatenate(units)))
    values, influence = zip(*(jackknife(_correct(run), own, n_units) for run, own in zip(runs, units)))
    values, influence = np.array(values), np.array(influence)  # (S, 1 + conditions), and with units at the end
    clean, clean_influence = values[:, 0], influence[:, 0]
    grid = 1 / min(len(own) for own in units)
    rows = []
    for weight in weights:
        step = grid / np.count_nonzero(weight)
        own, own_influence = values[:, 1:] @ weight, np.tensordot(weight, influence[:, 1:], (0, 1))
        found = stats.estimate(own, own_influence, count, grid=step)
        lo, hi = found.share_interval(counted=True)
        row = {"accuracy": found.mean, "lo": lo, "hi": hi, "clean": clean.mean()}
        kept = kept_lo = kept_hi = float("nan")
        if clean.mean() > 0:
            kept = found.mean / clean.mean()
            # The mean of these values is the accuracy still, their spread that of its ratio to the clean one.
            values_left = own - kept * (clean - clean.mean())
            left = stats.estimate(values_left, own_influence - kept * clean_influence, count, grid=step)
            kept_lo, kept_hi = np.array(left.share_interval(counted=True)) / clean.mean()
        rows.append({**row, "kept": kept, "kept_lo": kept_lo, "kept_hi": kept_hi})
    return rows


def _correct(run: dict) -> np.ndarray:
    """Whether each image was named rightly, clean and under every condition: (1 + conditions, n)."""
    predicted = run["predicted"].reshape(-1, len(run["labels"]))
    return np.vstack([run["clean"], predicted]) == run["labels"]


def jackknife(correct: np.ndarray, units: np.ndarray, n_units: int) -> tuple[np.ndarray, np.ndarray]:
    """`stats.jackknife` of many accuracies of the same images at once.

    Args:
        correct: (m, n) whether an image was named rightly; units: (n,) whose image it is.

    Returns:
        values (m,), influence (m, n_units); NaN influence where there is a single unit.
    """
    images = np.bincount(units, minlength=n_units)
    right = np.array([np.bincount(units, row, n_units) for row in correct])
    present = np.flatnonzero(images)
    influence = np.zeros(right.shape)
    if len(present) < 2:
        influence[:, present] = np.nan
    else:
        without = (right.sum(1, keepdims=True) - right[:, present]) / (images.sum() - images[present])
        influence[:, present] = (without.mean(1, keepdims=True) - without) * np.sqrt((len(present) - 1) / len(present))
    return right.sum(1) / images.sum(), influence
