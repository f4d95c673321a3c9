"""Where images come from. Each source is one module with `read(data, seeds, allocate) -> Dataset`.

To add one: write that module, and in `pipelines.profile.Data` name it under `source` and give it a section.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

SPLITS = ("train", "val", "test")

# Given a shape, returns a zeroed, writable uint8 array of it (on disk in `prepare`, in memory in tests).
Allocate = Callable[[tuple[int, ...]], np.ndarray]


class DataError(ValueError):
    """Data that cannot be used; the message names the file or key, what was found, and what to do."""


@dataclass(frozen=True)
class Dataset:
    """What a source hands over.

    images: uint8, (N, H, W) when grey, (N, H, W, 3) when RGB; what `allocate` returned.
    labels: int64 (N,), an index into `classes`.
    splits: sorted int64 indices into `images`, under "train", "val", "test" or, with folds, "SEED/train" and so on.
    patients: one id an image, (N,) str, or None where the source names none.
    folds: number of test folds the seeds walk through, or None for fixed splits.
    origin: facts for the data card (source, licence, how images were made); JSON-ready.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: list[str]
    splits: dict[str, np.ndarray]
    patients: np.ndarray | None = None
    folds: int | None = None
    origin: dict[str, Any] = field(default_factory=dict)


def read(data, seeds: Sequence[int], allocate: Allocate = lambda shape: np.zeros(shape, np.uint8)) -> Dataset:
    """Read the source named by `data.source` (`pipelines.profile.Data`).

    Raises:
        DataError: the source is missing, damaged, or cannot be split as asked.
    """
    # Imported by name so that a source's own dependencies (medmnist) are needed only by those who use it.
    return import_module(f"{__name__}.{data.source}").read(data, seeds, allocate)
