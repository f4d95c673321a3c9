"""Pictures kept for the report: explain.npz, Grad-CAM maps of a few methods on a few images, and hard_scans.npz."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.files import arrays
from report.reading.problems import ReportError

_NAMES = ("images", "indices", "labels", "shows", "methods", "predicted", "probability", "classes", "seed", "pool")


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
        ReportError: the file is malformed, or shows a method that the results do not have.
    """
    if not path.is_file():
        return None
    again = "run `python -m pipelines.explain` again"
    try:
        found = arrays.read_npz(path)
        if not found:
            return None
        named = {name: found[name] for name in _NAMES}
        maps = [found[f"maps{number}"] for number in range(len(named["methods"]))]
        _check(named, maps)
    except (arrays.ArrayError, KeyError, ValueError, TypeError) as error:
        raise ReportError(f"{path}: not what that stage writes ({error}); {again}") from None
    if strangers := sorted(set(named["methods"].tolist()) - set(methods)):
        raise ReportError(f"{path}: shows {', '.join(strangers)}, which the results do not have; {again}")
    return Explained(**{**named, "seed": int(named["seed"]), "pool": int(named["pool"])}, maps=maps)


def _check(found: dict, maps: list) -> None:
    m, a = len(found["indices"]), len(found["methods"])
    expected = {"labels": (m,), "shows": (m,), "predicted": (a, m), "probability": (a, m), "seed": (), "pool": ()}
    wrong = [name for name, shape in expected.items() if found[name].shape != shape]
    wrong += [f"maps{place}" for place, of in enumerate(maps) if of.ndim != 3 or len(of) != m]
    highest = max(found["labels"].max(), found["predicted"].max())
    if wrong or found["images"].ndim not in (3, 4) or len(found["images"]) != m or highest >= len(found["classes"]):
        raise ValueError(f"arrays do not fit each other: {', '.join(wrong) or 'images, or classes'}")


def read_scans(path: Path) -> dict[int, np.ndarray]:
    """hard_scans.npz: pixels (H, W) or (H, W, 3) uint8 by the image's number; empty where the file is not there.

    Raises:
        ReportError: the file is malformed.
    """
    if not path.is_file():
        return {}
    try:
        found = arrays.read_npz(path)
        numbers, pixels = found["image"], found["pixels"]
        if numbers.ndim != 1 or pixels.ndim not in (3, 4) or len(pixels) != len(numbers) or pixels.dtype != np.uint8:
            raise ValueError(f"image {numbers.shape} and pixels {pixels.shape} do not fit each other")
    except (arrays.ArrayError, KeyError, ValueError) as error:
        raise ReportError(f"{path}: not what `python -m pipelines.explain` writes ({error}); run it again") from None
    return dict(zip(numbers.tolist(), pixels, strict=True))
