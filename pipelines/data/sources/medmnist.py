"""The 2-D MedMNIST sets (Yang et al., Scientific Data 10, 41, 2023) with their own splits, download and checksums.

The archives are read member by member straight into `images.npy`: OCTMNIST at 224 px is over 5 GB and is never held in
memory.
"""

import difflib
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pipelines.data.preprocessing import Preprocessing
from pipelines.data.sources import SPLITS, Allocate, DataError, Dataset
from pipelines.files import arrays

SIZES = (28, 64, 128, 224)
TASKS = ("multi-class", "binary-class", "ordinal-regression")


def read(data, seeds: Sequence[int], allocate: Allocate) -> Dataset:
    """The set `data.medmnist.dataset` at `data.image_size` px, in the order train, val, test; the same for all `seeds`.

    Downloads into `data.medmnist.cache` what is not there yet.

    Raises:
        DataError: unknown set or size, a set with several labels an image, no network, a file that fails its checksum,
            or an archive whose members, shapes, types or labels are not what the set's description says.
    """
    info = describe(data.medmnist.dataset, data.image_size)
    path = fetch(data.medmnist.dataset, info, data.image_size, data.medmnist.cache.expanduser())
    classes = [info["label"][key] for key in sorted(info["label"], key=int)]
    images, labels, splits = read_archive(path, data.image_size, info["n_channels"], len(classes), allocate)
    origin = {
        "source": f"MedMNIST, {data.medmnist.dataset}, {data.image_size} px ({info['url']})",
        "licence": info["license"],
        "note": info["description"],
        "preparation": "as published by MedMNIST (centre crop, resized); its own splits; it names no patients",
        "md5": info["md5"],
    }
    if info["task"] == "ordinal-regression":
        origin["preparation"] += "; the grades are ordered, here they are treated as classes"
    preprocessing = Preprocessing(size=data.image_size, fit=data.fit, channels=info["n_channels"])
    return Dataset(images, labels, classes, splits, preprocessing, origin=origin)


def settings(data) -> dict:
    return data.medmnist.model_dump(mode="json", exclude={"cache"})


def inputs(data) -> dict[str, str]:
    return {}  # the archive is known by name and size, and checked against its published MD5 when it is read


def describe(dataset: str, size: int) -> dict:
    """MedMNIST's own description of a set, with `url` and `md5` of the archive at this size.

    Raises:
        DataError: medmnist is not installed, or it has no such set or size, or the set is not one label an image.
    """
    try:
        from medmnist import INFO
    except ImportError as error:
        raise DataError(
            f"data.source: 'medmnist' needs the package medmnist ({error}); install it with the extra [suite]"
        ) from None
    flat = [name for name in INFO if not name.endswith("3d")]
    if dataset not in flat:
        near = difflib.get_close_matches(dataset, flat, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise DataError(f"data.medmnist.dataset: no 2-D set {dataset!r}; {hint}sets: {', '.join(flat)}")
    info = INFO[dataset]
    if info["task"] not in TASKS:
        raise DataError(
            f"data.medmnist.dataset: {dataset} is a {info['task']} task, expected one label an image; choose another"
        )
    suffix = "" if size == 28 else f"_{size}"
    if size not in SIZES or f"url{suffix}" not in info:
        raise DataError(
            f"data.image_size: {size}, but MedMNIST has {', '.join(map(str, SIZES))} px; choose one of these"
        )
    return {**info, "url": info[f"url{suffix}"], "md5": info[f"MD5{suffix}"], "suffix": suffix}


def fetch(dataset: str, info: dict, size: int, cache: Path) -> Path:
    """The checked archive in `cache`, downloaded by medmnist if it is not there.

    Raises:
        DataError: the file there fails its checksum, or the download fails.
    """
    path = cache / f"{dataset}{info['suffix']}.npz"
    if path.is_file():
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != info["md5"]:
            raise DataError(
                f"{path}: checksum mismatch: MD5 {found}, expected {info['md5']} ({path.stat().st_size:,} bytes); it "
                "is damaged or was not fully downloaded: delete it and run again"
            )
        return path
    manual = f"or fetch {info['url']} elsewhere and place it at {path}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # Beside its final place, so that a killed download leaves no file that looks like an archive.
        with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
            _download(dataset, info, size, folder)
            os.replace(Path(folder) / path.name, path)
    except OSError as error:
        raise DataError(f"data.medmnist.cache: {cache}: cannot be written ({error}); set another folder") from None
    except RuntimeError as error:
        # medmnist hides every reason, an interrupt included, behind one RuntimeError with advice.
        reason = error.__context__
        if isinstance(reason, KeyboardInterrupt):
            raise reason from None
        if isinstance(reason, RuntimeError) and "corrupted" in str(reason):
            raise DataError(
                f"{info['url']}: checksum mismatch: the download's MD5 is not {info['md5']}; run again, {manual}"
            ) from None
        raise DataError(
            f"{info['url']}: download failed ({reason or error}); check the network and run again, {manual}"
        ) from None
    return path


def _download(dataset: str, info: dict, size: int, folder: str) -> None:
    import medmnist

    # The constructor would go on to load a whole split into memory; only its checked download is wanted.
    blank = object.__new__(getattr(medmnist, info["python_class"]))
    blank.info, blank.root, blank.size, blank.size_flag = medmnist.INFO[dataset], folder, size, info["suffix"]
    blank.download()


def read_archive(path: Path, size: int, channels: int, classes: int, allocate: Allocate):
    """Copy a MedMNIST archive into one array.

    Returns:
        images uint8 (N, size, size) for 1 channel or (N, size, size, 3), labels int64 (N,),
        splits {"train", "val", "test": indices}.

    Raises:
        DataError: not a zip archive, damaged or cut short, a member missing, or a shape, type or label that does not
            fit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = arrays.members(archive)
            if missing := sorted({f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")} - set(found)):
                raise DataError(
                    f"{path}: lacks {', '.join(missing)}, found {sorted(found)[:20]}; is it a 2-D MedMNIST archive?"
                )
            # All headers come before the array is made, whose size they decide.
            counts = [_count(path, archive, found, f"{split}_labels") for split in SPLITS]
            shape = (size, size) + ((3,) if channels == 3 else ())
            for split, count in zip(SPLITS, counts):
                _check(path, archive, found, f"{split}_images", (count, *shape))
            images, labels = allocate((sum(counts), *shape)), []
            stops = np.cumsum(counts)
            splits = {s: np.arange(stop - n, stop, dtype=np.int64) for s, n, stop in zip(SPLITS, counts, stops)}
            for split, count, stop in zip(SPLITS, counts, stops):
                labels.append(_labels(path, archive, found, f"{split}_labels", classes))
                with _member(path, archive, found, f"{split}_images") as (file, _, _):
                    arrays.fill(file, images[stop - count : stop])
    except (DataError, MemoryError):
        raise
    except Exception as error:  # zipfile raises many types for damaged archives
        raise DataError(f"{path}: damaged or truncated archive ({error}); delete it and run again") from None
    return images, np.concatenate(labels), splits


@contextmanager
def _member(path: Path, archive: zipfile.ZipFile, found: dict[str, zipfile.ZipInfo], name: str):
    """A member at its data, its shape and its type, once its header is known to fit its size."""
    try:
        with archive.open(found[name]) as file:
            shape, dtype, fortran = arrays.header(file, found[name].file_size)
            if fortran and any(n > 1 for n in shape[1:]):
                raise arrays.ArrayError(f"found {dtype} {shape} in Fortran order, expected C order")
            yield file, shape, dtype
    except arrays.ArrayError as error:
        raise DataError(f"{path}: {name}: {error}; delete it and run again") from None


def _count(path, archive, found, name) -> int:
    with _member(path, archive, found, name) as (_, shape, dtype):
        if dtype.kind not in "iu" or len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
            raise DataError(f"{path}: {name}: found {dtype} {shape}, expected integers of shape (N,) or (N, 1)")
        return shape[0]


def _check(path, archive, found, name, expected) -> None:
    with _member(path, archive, found, name) as (_, shape, dtype):
        if dtype != np.uint8 or shape != expected:
            raise DataError(
                f"{path}: {name}: found {dtype} {shape}, expected uint8 {expected} as its labels and size say"
            )


def _labels(path, archive, found, name, classes) -> np.ndarray:
    with _member(path, archive, found, name) as (file, shape, dtype):
        labels = np.empty(shape[:1], dtype)
        arrays.fill(file, labels)
    labels = labels.astype(np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(f"{path}: {name}: labels from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}")
    return labels
