"""What the statistics are made of: one run's answers on the images of one data set, as arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.evidence import measures, stats
from pipelines.files import arrays
from pipelines.files.errors import UserError
from pipelines.profile import Params

AGAIN = "run `python -m pipelines.prepare`"


@dataclass(frozen=True, eq=False)
class Outcome:
    """One run on one data set.

    method, seed: of the run. indices, labels (N,), probabilities (N, C): the images, in ascending order. units (N,):
    whose they are, numbers from 0 to n_units - 1 that all runs on the data set share; patients: whether these are
    patients, and not single images. trained_on: training images.
    """

    method: str
    seed: int
    indices: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    units: np.ndarray
    n_units: int
    patients: bool
    trained_on: int

    def jackknife(self, measure: Callable) -> tuple[np.ndarray, np.ndarray]:
        """Of one of `measures` the value and each unit's influence on it; see `stats.jackknife`."""
        return stats.jackknife(partial(measure, self.labels, self.probabilities), self.units, self.n_units)

    @cache  # noqa: B019 (the command ends soon)
    def figure(self, metric: str) -> tuple[float, np.ndarray]:
        """A metric's value and the influence of each unit on it, (n_units,)."""
        if metric in measures.COUNTED:
            return self.jackknife(measures.COUNTED[metric])
        once = np.ones((1, len(self.labels)), np.int64)
        without = measures.auc_without(self.labels, self.probabilities, self.units)
        return (
            measures.auc(self.labels, self.probabilities, once)[0],
            stats.influence(without, self.units, self.n_units),
        )

    def grid(self, metric: str) -> float:
        """The step in which a metric moves; AUC has none to speak of."""
        return 0.0 if metric == "auc" else 1 / len(self.labels)

    @property
    def correct(self) -> np.ndarray:
        """Whether each image was named rightly, (N,)."""
        return self.probabilities.argmax(1) == self.labels

    def parts(self, metric: str) -> np.ndarray:
        """Each unit's part of a metric that is a sum over images, (n_units,): accuracy or balanced accuracy."""
        weight = np.full(len(self.labels), 1 / len(self.labels))
        if metric == "balanced_accuracy":
            classes, place, size = np.unique(self.labels, return_inverse=True, return_counts=True)
            weight = 1 / (len(classes) * size[place])
        return np.bincount(self.units, self.correct * weight, self.n_units)


def mean(runs: list, metric, minus: list | None = None) -> stats.Estimate:
    """The mean over runs of a metric, or of its difference from that of the runs `minus`, pair by pair.

    Args:
        runs: of one method on one data set, at least one; what has `units`, `figure` and `grid`.
    """
    values, influence = map(np.array, zip(*(own.figure(metric) for own in runs), strict=True))
    if minus is not None:
        theirs, their_influence = zip(*(own.figure(metric) for own in minus), strict=True)
        values, influence = values - theirs, influence - their_influence
    return stats.estimate(values, influence, count_units(runs), grid=max(own.grid(metric) for own in runs))


def difference(pairs: list[tuple[Outcome, Outcome]], metric: str) -> stats.Estimate:
    """The mean over runs of a metric's paired difference, first minus second; see `paired`."""
    first, second = zip(*pairs, strict=True)
    return mean(first, metric, second)


def paired(first: list[Outcome], second: list[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """The runs of two methods, seed by seed, where both have one.

    Raises:
        UserError: they saw different images under one seed.
    """
    others = {own.seed: own for own in second}
    pairs = [(own, others[own.seed]) for own in first if own.seed in others]
    for a, b in pairs:
        if not (np.array_equal(a.indices, b.indices) and np.array_equal(a.labels, b.labels)):
            raise UserError(
                f"methods {a.method} and {b.method}, seed {a.seed}: tested on different images, so they cannot be "
                "paired; run both on the same prepared data"
            )
    return pairs


def corrected(pairs: list[tuple[Outcome, Outcome]], metric: str, level: float = stats.LEVEL) -> tuple[float, float]:
    """`stats.corrected_interval` of a metric's paired difference over folds."""
    values = np.array([a.figure(metric)[0] - b.figure(metric)[0] for a, b in pairs])
    test_share = float(np.mean([len(a.labels) / a.trained_on for a, _ in pairs]))
    return stats.corrected_interval(values, test_share, level)


def design(outcomes: list[Outcome]) -> int:
    """Folds of the data set: 1 where all runs have one test set, else how many test sets make up all test images."""
    sets = {own.indices.tobytes() for own in outcomes}
    if len(sets) < 2:
        return 1
    images = np.unique(np.concatenate([own.indices for own in outcomes]))
    return max(1, round(len(images) / np.mean([len(own.indices) for own in outcomes])))


def count_units(outcomes: list[Outcome]) -> int:
    """How many units the tests of some runs have."""
    return len(np.unique(np.concatenate([own.units for own in outcomes])))


def counted(outcomes: list[Outcome], metric: str) -> list[int]:
    """The units behind each of the shares whose mean a metric is, for `Estimate.share_interval`: all for an accuracy,
    those with an image of a class for balanced accuracy, a number a class; none for what is no share of units.
    """
    if metric == "accuracy":
        return [count_units(outcomes)]
    return list(units_of_class(outcomes).values()) if metric == "balanced_accuracy" else []


def units_of_class(outcomes: list[Outcome]) -> dict[int, int]:
    """How many units have an image of each class, by class."""
    labels, units = (np.concatenate([getattr(own, name) for own in outcomes]) for name in ("labels", "units"))
    return {int(label): len(np.unique(units[labels == label])) for label in np.unique(labels)}


def largest_class(outcomes: list[Outcome]) -> float:
    """The share of the largest class in the tests of some runs: the accuracy of always naming it."""
    labels = np.concatenate([own.labels for own in outcomes])
    return np.bincount(labels).max() / len(labels)


def count_patients(outcomes: list[Outcome]) -> int | None:
    """How many patients these images are of; None where patients are not known."""
    return count_units(outcomes) if outcomes[0].patients else None


def count_images(outcomes: list[Outcome]) -> int:
    """How many different images the tests of some runs have."""
    return len(np.unique(np.concatenate([own.indices for own in outcomes])))


def gather(params: Params, runs: dict) -> dict[str, dict[str, list[Outcome]]]:
    """The outcomes of all runs, {data: {method: by seed}}: "test", and external data by name; methods without a run
    too.

    A unit is a patient where results/<profile>/data/patients.csv, or external-<name>.csv, says whose each image is,
    else an image.

    Args:
        runs: by (method, seed), as `pipelines.runs.reading.read_runs` returns them.

    Raises:
        UserError: a table of patients is malformed, or is of other images than the runs'; or as `check_labels`.
    """
    directory = params.results_dir / "data"
    sets = {"test": (directory / "patients.csv", runs)}
    for name in params.data.external_names:
        sets[name] = directory / f"external-{name}.csv", {key: run["external"][name] for key, run in runs.items()}
    found = {}
    for data, (path, answers) in sets.items():
        patients = _read_patients(path)
        if patients is None and data != "test":
            raise UserError(f"{path}: no such file; {AGAIN}")
        owners = {run: _owners(path, patients, own["indices"], run) for run, own in answers.items()}
        known = np.unique(np.concatenate(list(owners.values()))) if owners else []
        found[data] = {method: [] for method in params.method}
        for (method, seed), own in answers.items():
            units = np.searchsorted(known, owners[method, seed])
            found[data][method].append(Outcome(
                method, seed, own["indices"], own["labels"], own["probabilities"], units, len(known),
                patients is not None, runs[method, seed]["data"]["train"],
            ))  # fmt: skip
        check_labels(data, [own for by_seed in found[data].values() for own in by_seed])
    return found


def _read_patients(path: Path) -> pd.Series | None:
    """The patient's number by image index, of a table with columns image and patient; None without the file."""
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > arrays.LIMIT:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        patients = pd.read_csv(path, dtype="int64").set_index("image")["patient"]
        if not patients.index.is_unique:
            raise ValueError("an image occurs twice")
        return patients
    except Exception as error:  # pandas raises many types for text that is no table
        raise UserError(f"{path}: not a table of image and patient numbers ({error}); {AGAIN}") from None


def _owners(path: Path, patients: pd.Series | None, images: np.ndarray, run: tuple[str, int]) -> np.ndarray:
    """Whose the images (N,) of a run are, (N,); without patients each image is a unit."""
    if patients is None:
        return images.astype(np.int64)
    owner = patients.reindex(images)
    if (lacking := owner.isna()).any():
        raise UserError(
            f"{path}: no patient for {lacking.sum()} test images of method {run[0]}, seed {run[1]}, the first being "
            f"image {lacking.idxmax()}; the file and the run are of different data: {AGAIN}, then the run again"
        )
    return owner.to_numpy(np.int64)


def check_labels(data: str, outcomes: list[Outcome]) -> None:
    """Raises UserError where two runs give one image different labels: they were tested on different data."""
    known: dict[int, tuple[int, Outcome]] = {}
    for own in outcomes:
        for image, label in zip(own.indices.tolist(), own.labels.tolist(), strict=True):
            first, other = known.setdefault(image, (label, own))
            if first != label:
                raise UserError(
                    f"image {image} of {data} is of class {first} in method {other.method}, seed {other.seed}, and of "
                    f"class {label} in method {own.method}, seed {own.seed}: they were tested on different data; run "
                    "`python -m pipelines.train` for both"
                )
