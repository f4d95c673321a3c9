"""Pictures kept for the report: explain.npz, Grad-CAM maps of a few methods on a few images, and hard_scans.npz."""

from collections.abc import Collection
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.files import arrays
from pipelines.files.errors import UserError

AGAIN = "run `python -m pipelines.explain` again"
FORMS = {
    "indices": "iu n", "labels": "iu n", "shows": "U n", "methods": "U m", "predicted": "iu m n",
    "probability": "f m n", "classes": "U c", "seed": "iu", "pool": "iu",
}  # fmt: skip


@dataclass(frozen=True)
class Explained:
    """M images seen by A methods: the content of explain.npz, see `pipelines.evidence.explaining.explain`.

    maps: A arrays (M, h, w) uint8, 255 at the strongest evidence of an image.
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
    with _reading(path) as found:
        if not found:
            return None
        names, images = found["methods"].tolist(), found["images"]
        maps = {f"maps{place}": f"u n h{place} w{place}" for place in range(len(names))}
        arrays.check_forms(found, {**FORMS, **maps, "images": _pixels(images)})
        highest = max(found["labels"].max(initial=0), found["predicted"].max(initial=0))
        if highest >= len(found["classes"]):
            raise arrays.ArrayError(f"class {highest} of {len(found['classes'])}")
    if strangers := sorted(set(names) - set(methods)):
        raise UserError(f"{path}: shows {', '.join(strangers)}, which the results do not have; {AGAIN}")
    told = {name: found[name] for name in FORMS} | {"seed": int(found["seed"]), "pool": int(found["pool"])}
    return Explained(**told, images=images, maps=[found[name] for name in maps])


def read_scans(path: Path) -> dict[int, np.ndarray]:
    """hard_scans.npz: pixels (H, W) or (H, W, 3) uint8 by the image's number; empty where the file is not there.

    Raises:
        UserError: the file is damaged.
    """
    with _reading(path) as found:
        if not found:
            return {}
        arrays.check_forms(found, {"image": "iu n", "pixels": _pixels(found["pixels"])})
        return dict(zip(found["image"].tolist(), found["pixels"], strict=True))


def _pixels(images: np.ndarray) -> str:
    """The form of grey images, or of coloured ones."""
    return "u n h w 3" if images.ndim == 4 else "u n h w"


@contextmanager
def _reading(path: Path):
    try:
        yield arrays.read_npz(path) if path.is_file() else {}
    except (arrays.ArrayError, KeyError) as error:  # KeyError: an array that is not there
        raise UserError(f"{path}: not what that stage writes ({error}); {AGAIN}") from None
