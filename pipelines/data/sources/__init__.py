"""Where images come from. Each source is one module with functions of `data` (`pipelines.profile.data.Data`):

`read(data, seeds, allocate) -> Dataset`; and, where it reads a user's files, `inputs(data) -> dict`, digests of them,
so that data are prepared anew when these change.

To add one: write that module, name it under `source` in `pipelines.profile.data.Data`, and give it a section there.
"""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.errors import DataError
from pipelines.data.preprocessing import Preprocessing

__all__ = ["SPLITS", "Allocate", "DataError", "Dataset", "downloading", "inputs", "read", "settings"]

SPLITS = ("train", "val", "test")

# Given a shape, returns a zeroed, writable uint8 array of it (on disk in `prepare`, in memory in tests).
Allocate = Callable[[tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class Dataset:
    """What a source hands over.

    images: uint8, (N, H, W) when grey, (N, H, W, 3) when RGB; what `allocate` returned.
    labels: int64 (N,), an index into `classes`.
    splits: sorted int64 indices into `images`, under "train", "val", "test" or, with folds, "SEED/train" and so on.
    preprocessing: what makes any other image file like these.
    patients: one id an image, (N,) str, or None where the source names none.
    folds: number of test folds the seeds walk through, or None for fixed splits.
    files: the name of each image's file within its folder, or None where images are no files.
    origin: facts for the data card (source, licence, how images were made); JSON-ready.
    warnings: what a user should look at, a sentence each.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: list[str]
    splits: dict[str, np.ndarray]
    preprocessing: Preprocessing
    patients: np.ndarray | None = None
    folds: int | None = None
    files: list[str] | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read(data, seeds: Sequence[int], allocate: Allocate = lambda shape: np.zeros(shape, np.uint8)) -> Dataset:
    """Read the source that `data` names; raises DataError where it is missing, damaged, or cannot be split as asked."""
    return _source(data).read(data, seeds, allocate)


def settings(data) -> dict:
    """What `data` asks for, without paths: equal settings and inputs, equal arrays. JSON-ready.

    The external data have settings of their own.
    """
    found = {key: getattr(data, key) for key in ("source", "image_size", "fit", "mode")}
    section = getattr(data, data.source)
    found[data.source] = section.model_dump(mode="json", exclude={"cache"})
    if hasattr(section, "path"):
        found[data.source]["path"] = section.path.name
    if data.mode != "full":
        found["balanced"] = data.balanced.model_dump(mode="json")
    if data.mode == "distilled":
        found["distilled"] = data.distilled.model_dump(mode="json", exclude={"entropies"})
    if data.shares:
        found["shares"] = data.shares
    return found


def inputs(data) -> dict[str, str]:
    """Digests of a user's files that the source reads; raises DataError where they are not there."""
    source = _source(data)
    return source.inputs(data) if hasattr(source, "inputs") else {}


@contextmanager
def downloading(url: str, file: Path, md5: str, key: str):
    """What may go wrong with a download of torchvision's, which compares `md5`; `key` says where `file` lies."""
    manual = f"or fetch {url} elsewhere and place it at {file}"
    try:
        yield
    except RuntimeError:  # torchvision's word for a wrong checksum
        file.unlink(missing_ok=True)
        raise DataError(f"{file}: checksum mismatch: expected MD5 {md5}; run again, {manual}") from None
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise DataError(f"{key}: {file.parent}: cannot be written ({error}); set another folder") from None
    except OSError as error:  # of the network, urllib's errors included
        from torchvision.datasets.utils import check_md5

        damaged = file.is_file() and not check_md5(file, md5)
        there = f"; the file at {file} has another MD5 than {md5}" if damaged else ""
        raise DataError(f"{url}: download failed ({error}){there}; check the network and run again, {manual}") from None


def _source(data):
    # Imported by name so that a source's own dependencies (medmnist) are needed only by those who use it.
    return import_module(f"{__name__}.{data.source}")
