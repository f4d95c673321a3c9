"""Pictures kept for the report: explain.npz, Grad-CAM maps of a few methods on a few images, and hard_scans.npz."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.files import arrays
from pipelines.files.errors import UserError

AGAIN = "run `python -m pipelines.explain` again"


@dataclass(frozen=True)
class Explained:
    """M images seen by A methods (see `pipelines.evidence.explaining.explain`).

    images: (M, H, W) or (M, H, W, 3) uint8. indices, labels: (M,). shows: (M,) 'agreement' or 'disagreement'.
    methods: (A,). predicted: (A, M) class numbers. probability: (A, M), of the class named. classes: names.
    maps: A arrays (M, h, w) uint8, 255 at the strongest evidence of an image. seed: of the runs shown. pool: how many
    test images were chosen from.
    """

    images: np.ndarray
    indices: np.ndarray
    labels: np.ndarray
    shows: np.ndarray
    methods: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    classes: np.ndarray
    seed: int
    pool: int
    maps: list[np.ndarray]


def read_explained(path: Path, methods: Collection[str]) -> Explained | None:
    """The file's content; None where it is not there or empty.

    Raises:
        UserError: the file is damaged, or shows a method that the results do not have.
    """
    found = _read(path)
    if not found:
        return None
    names = found["methods"].tolist()
    if strangers := sorted(set(names) - set(methods)):
        raise UserError(f"{path}: shows {', '.join(strangers)}, which the results do not have; {AGAIN}")
    maps = [found.pop(f"maps{number}") for number in range(len(names))]
    return Explained(**{**found, "seed": int(found["seed"]), "pool": int(found["pool"])}, maps=maps)


def read_scans(path: Path) -> dict[int, np.ndarray]:
    """hard_scans.npz: pixels (H, W) or (H, W, 3) uint8 by the image's number; empty where the file is not there.

    Raises:
        UserError: the file is damaged.
    """
    found = _read(path)
    return dict(zip(found["image"].tolist(), found["pixels"], strict=True)) if found else {}


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        return arrays.read_npz(path) if path.is_file() else {}
    except arrays.ArrayError as error:
        raise UserError(f"{path}: {error}; {AGAIN}") from None
