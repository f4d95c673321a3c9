"""Which image is in which split: patient-grouped folds, the paper's subsets, shares of the training data, checks."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from pipelines.data.sources import SPLITS, DataError
from pipelines.files import arrays, records
from pipelines.profile import train_split

ENTROPIES_FROM = "train the run it is to come from with train.save_entropies: true"


def patient_folds(
    labels: np.ndarray,
    patients: np.ndarray | None,
    seeds: Sequence[int],
    folds: int,
    val_share: float,
    classes: Sequence[str],
    key: str = "data.folder",
) -> dict[str, np.ndarray]:
    """Stratified splits that no patient crosses, one triple a seed: {"SEED/train": indices, "SEED/val": ..., ...}.

    Seed s tests on fold s % folds of repeat s // folds. A repeat is a shuffling of its own, whose folds together test
    every image once. `labels` is int (N,), `patients` (N,); a patient seen under two classes is one group. Where
    `patients` is None each image is one. `key` is the section of the parameters, for errors.

    Raises:
        DataError: a class with fewer patients than folds, or missing from a split.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    splitter = StratifiedKFold if patients is None else StratifiedGroupKFold
    owners = np.arange(len(labels)) if patients is None else patients
    kind = "images" if patients is None else "patients"
    parts = round(1 / val_share)
    for label, name in enumerate(classes):
        count = len(np.unique(owners[labels == label]))
        if count < folds:
            raise DataError(
                f"class {name!r} has {count} {kind}, fewer than {key}.folds = {folds}; lower the folds or add {kind}"
            )

    def too_few(seed: int, rest: np.ndarray, label: int) -> DataError:
        count = len(np.unique(owners[rest][labels[rest] == label]))
        raised = f"raise it to {1 / count:.3g} or " if 2 <= count < parts else ""
        return DataError(
            f"seed {seed}: class {classes[label]!r} has {count} {kind} outside the test fold, too few for training and "
            f"validation by {key}.val_share = {val_share}, one part of {parts}; {raised}add {kind}"
        )

    splits = {}
    for seed in seeds:
        repeat, fold = divmod(seed, folds)
        outer = splitter(n_splits=folds, shuffle=True, random_state=repeat)
        rest, test = list(outer.split(labels, labels, patients))[fold]
        images = np.bincount(labels[rest], minlength=len(classes))
        if images.min() < parts:
            raise too_few(seed, rest, images.argmin())
        inner = splitter(n_splits=parts, shuffle=True, random_state=seed)
        train, val = next(iter(inner.split(rest, labels[rest], None if patients is None else patients[rest])))
        if lacking := set(labels[rest]) - (set(labels[rest[train]]) & set(labels[rest[val]])):
            raise too_few(seed, rest, min(lacking))
        for name, indices in zip(SPLITS, (rest[train], rest[val], test)):
            splits[f"{seed}/{name}"] = np.sort(indices).astype(np.int64)
    check(labels, splits, classes)
    return splits


def keep_apart(patients: np.ndarray | None, splits: dict[str, np.ndarray]) -> None:
    """Raise DataError where a patient stands in two of the given splits: its test images would not be new ones."""
    owners = {} if patients is None else {name: set(patients[indices].tolist()) for name, indices in splits.items()}
    for a, b in combinations(owners, 2):
        if both := sorted(owners[a] & owners[b]):
            raise DataError(
                f"{len(both)} patients are in {a} and in {b}: {', '.join(both[:3])}; move their images into one split, "
                "or give no splits, for folds by patient"
            )


def check(labels: np.ndarray, splits: dict[str, np.ndarray], classes: Sequence[str]) -> None:
    """Raise DataError where a split lacks a class: its accuracy and AUC would mean something else than they say."""
    for name, indices in splits.items():
        counts = np.bincount(labels[indices], minlength=len(classes))
        if (counts == 0).any():
            missing = [classes[label] for label in np.flatnonzero(counts == 0)]
            raise DataError(
                f"split {name!r} has no image of class {', '.join(missing)}; add images or change the split sizes"
            )


def select(data, labels: np.ndarray, splits: dict[str, np.ndarray], classes: Sequence[str]) -> dict[str, np.ndarray]:
    """The splits with their training part reduced as `data.mode` says (CoLoRA paper, section on data).

    full: all. balanced: the first `per_class` training images of each class, in stored order. distilled: of those, per
    class, ascending by predictive entropy, ranks keep[0] up to but not including keep[1].

    Raises:
        DataError: a class has too few images; the entropies are missing, of other images, or not numbers; distillation
            with folds (the entropies of one run cover the training images of one seed only).
    """
    if data.mode == "full":
        return splits
    chosen = {}
    for name, indices in splits.items():
        seed, _, part = name.rpartition("/")
        if part == "train":
            indices = _balanced(labels, indices, data.balanced.per_class, classes, f" of seed {seed}" if seed else "")
            if data.mode == "distilled":
                if seed:
                    raise DataError(
                        "data.mode: 'distilled' needs fixed splits, but this source has folds; use 'balanced' or 'full'"
                    )
                indices = _distilled(labels, indices, data.distilled, data.balanced.per_class)
        chosen[name] = indices
    return chosen


def _balanced(labels, indices, per_class: int, classes, of: str) -> np.ndarray:
    keep = []
    for label, name in enumerate(classes):
        of_class = indices[labels[indices] == label]
        if len(of_class) < per_class:
            raise DataError(
                f"data.balanced.per_class: {per_class} asked for, but the training split{of} has {len(of_class)} "
                f"images of class {name!r}; lower it"
            )
        keep.append(of_class[:per_class])
    return np.sort(np.concatenate(keep))


def _distilled(labels, indices, distilled, per_class: int) -> np.ndarray:
    first, last = distilled.keep
    if not 0 <= first < last <= per_class:
        raise DataError(
            f"data.distilled.keep: found [{first}, {last}], expected 0 <= first < last <= {per_class} (per_class)"
        )
    covered, entropy = read_entropies(distilled.entropies)
    if not np.array_equal(covered, indices):
        raise DataError(
            f"{distilled.entropies}: it covers {len(covered)} images, expected exactly the {len(indices)} balanced "
            f"training images of this data ({len(np.intersect1d(covered, indices))} in common); train that run in "
            "mode 'balanced' on the same data with train.save_entropies: true"
        )
    keep = []
    for label in np.unique(labels[indices]):
        of_class = np.flatnonzero(labels[indices] == label)
        keep.append(indices[of_class[np.argsort(entropy[of_class], kind="stable")[first:last]]])
    return np.sort(np.concatenate(keep))


def with_shares(
    shares: Sequence[float],
    labels: np.ndarray,
    patients: np.ndarray | None,
    splits: dict[str, np.ndarray],
    classes: Sequence[str],
) -> dict[str, np.ndarray]:
    """The splits and, after each training split, its shares: "train@0.1" holds a tenth of its patients.

    A share holds that part of each class's patients (of its images where `patients` is None), all their images with
    them; a patient seen under several classes counts to the one with most of the images. The patients of a class are
    lined up once a seed and a share takes them from the front, so that a smaller share lies inside every larger one,
    and is the same whatever other shares are asked for.

    Raises:
        DataError: a share rounds to no patient of a class.
    """
    made = {}
    for name, indices in splits.items():
        made[name] = indices
        seed, _, part = name.rpartition("/")
        if part == "train":
            owners = indices if patients is None else patients[indices]
            position = _positions(labels[indices], owners, int(seed or 0), len(classes))
            for share in shares:
                chosen = position < share
                missing = np.setdiff1d(np.arange(len(classes)), labels[indices[chosen]])
                if len(missing):
                    raise DataError(
                        f"data.shares: {share:g} of the training {'images' if patients is None else 'patients'}"
                        f"{f' of seed {seed}' if seed else ''} holds none of class "
                        f"{', '.join(classes[label] for label in missing)}; ask for a larger share"
                    )
                made[name.removesuffix("train") + train_split({"share": share})] = indices[chosen]
    return made


def _positions(labels: np.ndarray, owners: np.ndarray, seed: int, n_classes: int) -> np.ndarray:
    """Where the owner of each image stands in the line of its class, float64 (N,): (k + 1/2) / n for the k-th of n.

    So the share s of a line is its n * s first ones, rounded.
    """
    names, owner = np.unique(owners, return_inverse=True)
    images = np.zeros((len(names), n_classes), np.int64)
    np.add.at(images, (owner, labels), 1)
    class_of_owner = images.argmax(1)
    position = np.empty(len(names))
    for label in range(n_classes):
        line = np.random.default_rng([seed, label]).permutation(np.flatnonzero(class_of_owner == label))
        position[line] = (np.arange(len(line)) + 0.5) / max(len(line), 1)
    return position[owner]


def entropies_digest(path: Path) -> str:
    """SHA-256 of the file; raises DataError where it is not there."""
    if not path.is_file():
        raise DataError(f"data.distilled.entropies: {path}: no such file; {ENTROPIES_FROM}")
    return records.sha256_file(path)


def read_entropies(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read `entropies.npz` of a run: sorted indices int64 (M,) into images.npy, and their entropies float64 (M,).

    Raises:
        DataError: not an npz, other keys, or entropies that are not finite, one an image.
    """
    try:
        indices, entropy = arrays.read_npz(path, {"indices": "i n", "entropy": "f n"}).values()
    except arrays.ArrayError as error:
        raise DataError(f"{path}: not a readable npz file ({error}); {ENTROPIES_FROM}") from None
    if not np.isfinite(entropy).all():
        raise DataError(f"{path}: {np.sum(~np.isfinite(entropy))} entropies are not finite; did that run diverge?")
    order = np.argsort(indices, kind="stable")
    return indices[order], entropy[order]
