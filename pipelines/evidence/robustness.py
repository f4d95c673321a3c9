"""Accuracy on corrupted test images: rows of robustness.csv and robustness_pairs.csv.

Effects are absolute: accuracy lost, and differences of methods on the same corrupted images; a ratio to the clean
accuracy would reward a low start. Intervals are those of `stats`, of the mean over kinds of corruption `over_kinds`.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from pipelines.evidence import stats
from pipelines.evidence.outcomes import Outcome, count_images, mean
from pipelines.evidence.probed import Probed
from pipelines.profile import Params

MEAN, CLEAN = "mean", "clean"  # the rows' kinds over all kinds, and of uncorrupted images
SEVERITIES = 5
FORMS = {"labels": "iu n", "clean": "iu n", "predicted": f"iu k {SEVERITIES} n", "kinds": "U k"}
NEAR = 0.05  # two probabilities that rounding may put in the other order: a probe's batches are not those of the test


@dataclass(frozen=True)
class Corrupted:
    """A probed run. values (1 + k * SEVERITIES,): accuracy on clean images, then by kind and severity; influence
    (units, the same) of each unit. indices, units (n,): the images, and whose they are.
    """

    seed: int
    kinds: list[str]
    values: np.ndarray
    influence: np.ndarray
    indices: np.ndarray
    units: np.ndarray

    def figure(self, weight: np.ndarray) -> tuple[float, np.ndarray]:
        """A weighted sum of the accuracies, and each unit's influence on it."""
        return self.values @ weight, self.influence @ weight

    def grid(self, weight: np.ndarray) -> float:
        return 1 / len(self.indices) / np.count_nonzero(weight)


def read(params: Params, runs: dict, outcomes: dict[str, list[Outcome]]) -> dict[str, list[Corrupted]]:
    """The probed runs by method; methods without one are left out.

    Args:
        runs: by (method, seed), as `pipelines.runs.reading.read_runs` returns them. outcomes: on the test images.

    Raises:
        UserError: as `Probed.read` and `check`.
    """
    probed = Probed(params, "corruptions.npz", FORMS)
    found: dict[str, list[Corrupted]] = {}
    for outcome in (own for method in outcomes.values() for own in method):
        run = runs[outcome.method, outcome.seed]
        content = probed.read(run)
        if content is None:
            continue
        check(probed, run, content)
        units = outcome.units[content["places"]]
        correct = np.vstack([content["clean"], content["predicted"].reshape(-1, len(units))]) == content["labels"]
        values, influence = stats.jackknife(lambda counts, c=correct: shares(c, counts), units, outcome.n_units)
        own = Corrupted(outcome.seed, content["kinds"].tolist(), values, influence, content["indices"], units)
        found.setdefault(outcome.method, []).append(own)
    return found


def check(probed: Probed, run: dict, found: dict[str, np.ndarray]) -> None:
    """Raises UserError where a run's corruptions.npz is not of the same run as its predictions, or of other kinds of
    corruption than other runs'.
    """
    kinds, labels = found["kinds"].tolist(), found["labels"]
    if not kinds or len(set(kinds)) < len(kinds) or {MEAN, CLEAN, ""} & set(kinds):
        raise probed.error(
            run, f"kinds should be names that differ, none of them {MEAN!r} or {CLEAN!r}, found {kinds[:20]}"
        )
    probed.same(run, "kinds", found["kinds"])
    if not np.array_equal(labels, run["labels"][found["places"]]):
        raise probed.error(run, "its labels differ from those of predictions.npz: not one run")
    probabilities, clean = run["probabilities"][found["places"]], found["clean"].astype(np.int64)
    named, classes = np.append(clean, found["predicted"]), probabilities.shape[1]
    if named.min() < 0 or named.max() >= classes:
        raise probed.error(run, f"classes should be 0 to {classes - 1}, found {named.min()} to {named.max()}")
    behind = probabilities.max(1) - np.take_along_axis(probabilities, clean[:, None], 1)[:, 0]
    if behind.max() > NEAR:
        image, other = found["indices"][behind.argmax()], probabilities[behind.argmax()].argmax()
        raise probed.error(
            run, f"clean names class {clean[behind.argmax()]} on image {image}, predictions.npz {other}: not one run"
        )


def shares(correct: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Accuracies (B, m) of m tests of the same images, correct (m, n), under image counts (B, n)."""
    return counts @ correct.T.astype(float) / counts.sum(1, keepdims=True)


def rows(corrupted: dict[str, list[Corrupted]]) -> list[dict]:
    """Rows of robustness.csv: for each method a row a kind and severity, one a kind, its severity empty, one of all."""
    found = []
    for method, runs in corrupted.items():
        about = {"method": method, "clean": float(np.mean([run.values[0] for run in runs])), "runs": len(runs)}
        about["images"] = count_images(runs)
        for kind, severity, weight in conditions(runs[0].kinds):
            accuracy = mean(runs, np.append(0.0, weight))
            lo, hi = accuracy.share_interval(counted=[accuracy.units])
            drop = mean(runs, np.append(1.0, -weight))
            drop_lo, drop_hi = drop.interval_over_runs()
            row = {"kind": kind, "severity": severity, "accuracy": accuracy.mean, "lo": lo, "hi": hi}
            found.append(about | row | {"drop": drop.mean, "drop_lo": drop_lo, "drop_hi": drop_hi})
    return found


def conditions(kinds: list[str]) -> list[tuple[str, int | None, np.ndarray]]:
    """(kind, severity, weights of the kinds x severities in C order): single ones, then kinds, then all."""
    one = np.eye(len(kinds) * SEVERITIES)
    found = []
    for number, kind in enumerate(kinds):
        own = one[number * SEVERITIES : (number + 1) * SEVERITIES]
        found += [(kind, severity, weight) for severity, weight in enumerate(own, 1)] + [(kind, None, own.mean(0))]
    return [*found, (MEAN, None, one.mean(0))]


def pair_rows(corrupted: dict[str, list[Corrupted]], method: str | None, against: list[str]) -> list[dict]:
    """Rows of robustness_pairs.csv: the method against each comparator, clean, by kind, and over all kinds."""
    found = []
    for other in against:
        theirs = {run.seed: run for run in corrupted.get(other, [])}
        pairs = [(run, theirs[run.seed]) for run in corrupted.get(method, []) if run.seed in theirs]
        if not pairs:
            continue
        kinds = pairs[0][0].kinds
        weights = {CLEAN: np.append(1.0, np.zeros(len(kinds) * SEVERITIES))}
        weights |= {kind: np.append(0.0, weight) for kind, severity, weight in conditions(kinds) if severity is None}
        ours, others = zip(*pairs, strict=True)
        estimates = {kind: mean(ours, weight, others) for kind, weight in weights.items()}
        intervals = {kind: own.interval_over_runs() for kind, own in estimates.items()}
        intervals[MEAN] = over_kinds(estimates[MEAN], np.array([estimates[kind].mean for kind in kinds]))
        whole = np.sign(estimates[MEAN].mean)
        about = {"method": method, "against": other, "runs": len(pairs), "images": count_images(ours)}
        for kind, (lo, hi) in intervals.items():
            side = 1 if lo > 0 else -1 if hi < 0 else 0
            order = "open" if not side * whole else "same" if side == whole else "reversed"
            found.append(about | {"kind": kind, "difference": estimates[kind].mean, "lo": lo, "hi": hi, "order": order})
    return found


def over_kinds(estimate: stats.Estimate, by_kind: np.ndarray, level: float = stats.LEVEL) -> tuple[float, float]:
    """The interval of the mean over kinds when kinds, runs and patients are all drawn anew: mean -+ t sqrt(SE^2 +
    s_k^2 / k).

    s_k^2 is the sample variance of the k kinds' differences, (k,); it holds some of the noise of patients and runs
    too, so the interval errs on the wide side. t has k - 1 degrees of freedom. With one kind, or one run, there is no
    saying: NaN.
    """
    k = len(by_kind)
    if k < 2 or estimate.runs < 2:
        return float("nan"), float("nan")
    reach = t.ppf((1 + level) / 2, k - 1) * np.sqrt(estimate.se**2 + np.var(by_kind, ddof=1) / k)
    return float(estimate.mean - reach), float(estimate.mean + reach)
