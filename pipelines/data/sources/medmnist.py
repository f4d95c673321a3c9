"""The 2-D MedMNIST sets (Yang et al., Scientific Data 10, 41, 2023) with their own splits, download and checksums.

The archives are read member by member straight into `images.npy`: OCTMNIST at 224 px is over 5 GB and is never held in
memory.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.data.preprocessing import Preprocessing
from pipelines.data.sources import SPLITS, Allocate, DataError, Dataset, downloading
from pipelines.profile.base import near

SIZES = (28, 64, 128, 224)
TASKS = ("multi-class", "binary-class", "ordinal-regression")


def read(data, seeds: Sequence[int], allocate: Allocate) -> Dataset:
    """The set `data.medmnist.dataset` at `data.image_size` px, in the order train, val, test; the same for all `seeds`.

    Downloads into `data.medmnist.cache` what is not there yet.

    Raises:
        DataError: unknown set or size, a set with several labels an image, no network, a file that fails its checksum,
            or images of another shape or type than the set's description says.
    """
    from torchvision.datasets.utils import download_url

    info = describe(data.medmnist.dataset, data.image_size)
    path = data.medmnist.cache.expanduser() / f"{data.medmnist.dataset}{info['suffix']}.npz"
    with downloading(info["url"], path, info["md5"], "data.medmnist.cache"):
        download_url(info["url"], path.parent, path.name, info["md5"])  # unless a file of this MD5 is there
    classes = [info["label"][key] for key in sorted(info["label"], key=int)]
    images, labels, splits = read_archive(path, data.image_size, info["n_channels"], allocate)
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
        raise DataError(f"data.medmnist.dataset: no 2-D set {dataset!r}{near(dataset, flat)}; sets: {', '.join(flat)}")
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


def read_archive(path: Path, size: int, channels: int, allocate: Allocate):
    """Copy a MedMNIST archive, whose checksum is right, into one array.

    Returns:
        images uint8 (N, size, size) for 1 channel or (N, size, size, 3), labels int64 (N,),
        splits {"train", "val", "test": indices}.

    Raises:
        DataError: images of another shape or type than the set's description says.
    """
    with np.load(path, allow_pickle=False) as archive:
        labels = [archive[f"{split}_labels"].ravel().astype(np.int64) for split in SPLITS]
        ends = np.cumsum([len(own) for own in labels])
        splits = dict(zip(SPLITS, np.split(np.arange(ends[-1]), ends[:-1])))
        images = allocate((int(ends[-1]), size, size) + ((3,) if channels == 3 else ()))
        for split, indices in splits.items():
            with archive.zip.open(f"{split}_images.npy") as member:
                np.lib.format.read_magic(member)
                found = np.lib.format.read_array_header_1_0(member)
                expected = (len(indices), *images.shape[1:]), False, np.dtype(np.uint8)
                if found != expected:
                    raise DataError(
                        f"{path}: {split}_images: found {found}, expected {expected} (shape, Fortran, type)"
                    )
                for index in indices:
                    images[index] = np.frombuffer(member.read(images[index].nbytes), np.uint8).reshape(images.shape[1:])
    return images, np.concatenate(labels), splits
