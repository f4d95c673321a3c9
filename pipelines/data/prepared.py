"""The prepared data set, data/PROFILE/: this module alone reads its files, and `writing` alone writes them.

images.npy     uint8 (N, H, W) grey or (N, H, W, 3) RGB; opens memory-mapped
labels.npy     int64 (N,)
splits.npz     sorted int64 indices: train, val, test; or SEED/train, ... where the data has folds; train@0.1 or
               SEED/train@0.1 for each share of the training patients asked for; test alone for external data
files.csv      image,file,patient where the source has files; the source's own names and ids, so never in Git
manifest.json  written last: without it, or with other checksums, the rest is not trusted
external/NAME/ the same again for each set of `data.external`
"""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.data.errors import DataError
from pipelines.data.preprocessing import Preprocessing
from pipelines.files import records
from pipelines.profile.base import explain

ARRAYS = ("images.npy", "labels.npy", "splits.npz")
FILES = "files.csv"
MANIFEST = "manifest.json"
AGAIN = "run `python -m pipelines.prepare`, which builds it again"


class Manifest(BaseModel):
    """What the files of a prepared data set hold, and what they were made from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2] = 2  # of the manifest and files; raise it when either changes, so that older data is built again
    made_from: dict[str, Any] | None = None  # equal facts, equal arrays; no paths. None for arrays made by hand
    seeds: list[int] | None = None  # that folds were made for; None where all seeds share the splits
    folds: int | None = None
    classes: list[str]
    count: int
    image_size: int
    channels: Literal[1, 3]
    preprocessing: Preprocessing  # what makes any other image file like these
    files: dict[str, str]  # SHA-256 by name
    splits: dict[str, str]  # SHA-256 of each split's indices: a run depends on its own seed's, not on other seeds
    patients: int | None = None
    patient_of_image: list[int] | None = None  # numbers, not ids: enough to see that no patient crosses splits
    origin: dict[str, Any] = {}
    warnings: list[str] = []


@dataclass(frozen=True)
class Prepared:
    """A prepared data set as torch tensors: `images` uint8 (N, H, W) or (N, H, W, 3), `labels` int64 (N,), and sorted
    indices of the splits."""

    images: Any
    labels: Any
    splits: dict[str, Any]
    classes: list[str]

    @property
    def image_size(self) -> int:
        return self.images.shape[1]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the data prepared in `folder`.

    Raises:
        DataError: nothing is prepared there, or it is damaged or of another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{path}: no prepared data; run `python -m pipelines.prepare` first")
    try:
        return Manifest.model_validate(records.read_json(path, AGAIN))
    except records.RecordError as error:
        raise DataError(str(error)) from None
    except ValidationError as error:
        raise DataError(f"{explain(error, path, Manifest)}; {AGAIN}") from None


def identity(folder: Path, seed: int, train_split: str = "train", external: Sequence[str] = ()) -> dict:
    """Checksums of what a seed's runs see: images, labels, its own splits, and the external data named.

    Raises:
        DataError: nothing is prepared there, or not for this seed, or not the external data; or a manifest is damaged.
    """
    manifest = read_manifest(folder)
    files = ("images.npy", "labels.npy")
    found = {name: manifest.files[name] for name in files}
    parts = _parts(manifest, seed, train_split, folder / MANIFEST, manifest.splits)
    found |= {"train": parts.pop(train_split), **parts}
    if external:
        others = {name: read_manifest(external_dir(folder, name)) for name in external}
        found["external"] = {name: {file: other.files[file] for file in files} for name, other in others.items()}
    return found


def external_dir(folder: Path, name: str) -> Path:
    """Where the external data `name` of the data in `folder` are."""
    return folder / "external" / name


def files(folder: Path) -> list[Path]:
    """All files of the prepared data, external data included: what another machine needs to train on them."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def open_images(folder: Path):
    """The images, mapped and not read, and the labels, as NumPy arrays.

    Raises:
        DataError: a file is missing, or no array.
    """
    import numpy as np

    try:
        # Mode "c" maps the file without reading it; copy-on-write keeps torch from warning about read-only memory.
        images = np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{folder}: images.npy or labels.npy is not readable ({error}); {AGAIN}") from None
    if images.dtype != np.uint8 or images.shape[3:] not in ((), (3,)) or labels.shape != images.shape[:1]:
        raise DataError(
            f"{folder}: images are {images.dtype} {images.shape}, labels {labels.shape}; expected uint8 (N, H, W) or "
            f"(N, H, W, 3) and (N,); {AGAIN}"
        )
    return images, labels


def image_digests(images) -> list[bytes]:
    """SHA-256 of each image's own bytes: equal where images are equal byte for byte."""
    return [hashlib.sha256(image.tobytes()).digest() for image in images]


def open_splits(folder: Path) -> dict:
    """All stored splits, each a sorted int64 array of indices."""
    import numpy as np

    with np.load(folder / "splits.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def split_digests(splits: dict) -> dict[str, str]:
    """SHA-256 of the indices of each split."""
    return {name: hashlib.sha256(indices.tobytes()).hexdigest() for name, indices in splits.items()}


def open_prepared(folder: Path, seed: int, device, train_split: str = "train") -> Prepared:
    """The data with the splits of one seed: val, test, and the one to train on; on a GPU where they fit half of it.

    Raises:
        DataError: not prepared yet, or the seed has no such splits there; says what to run.
    """
    manifest = read_manifest(folder)
    parts = _parts(manifest, seed, train_split, folder / "splits.npz", open_splits(folder))
    return _on(device, folder, manifest.classes, parts)


def open_external(folder: Path, names: Sequence[str], device) -> dict[str, Prepared]:
    """The external data of the data in `folder`, by name; each has one split, "test", that holds all its images.

    Raises:
        DataError: one is not prepared; says what to run.
    """
    places = {name: external_dir(folder, name) for name in names}
    return {
        name: _on(device, place, read_manifest(place).classes, open_splits(place)) for name, place in places.items()
    }


def _on(device, folder: Path, classes: list[str], splits: dict) -> Prepared:
    import torch

    images, labels = map(torch.from_numpy, open_images(folder))
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if images.nbytes < free / 2:
            images, labels = images.to(device), labels.to(device)
    return Prepared(images, labels, splits, classes)


def _parts(manifest: Manifest, seed: int, train_split: str, path: Path, there: dict) -> dict:
    """What `there`, of the file `path`, holds for the parts of a seed's data."""
    home = "" if manifest.folds is None else f"{seed}/"
    stored = {part: home + part for part in (train_split, "val", "test")}
    if missing := [name for name in stored.values() if name not in there]:
        raise DataError(
            f"{path}: no split {missing[0]!r}; add seed {seed} to `seeds`, or a share of the training patients to "
            "`data.shares`, and run `python -m pipelines.prepare` again"
        )
    return {part: there[name] for part, name in stored.items()}


def read_files(folder: Path):
    """files.csv as a data frame of words: image, file, patient ("" where the source names none)."""
    import pandas as pd

    return pd.read_csv(folder / FILES, dtype={"image": int, "file": str, "patient": str}, keep_default_na=False)


def finished(folder: Path, made_from: dict, seeds: Sequence[int]) -> Manifest | None:
    """The manifest in `folder` if it says that the data were made from these facts, and the files are as it says."""
    with suppress(OSError, DataError):  # missing or damaged: build it again
        manifest = read_manifest(folder)
        as_asked = manifest.made_from == made_from and manifest.seeds in (None, list(seeds))
        if as_asked and {name: records.sha256_file(folder / name) for name in manifest.files} == manifest.files:
            return manifest
    return None


def check_settings(params) -> None:
    """Make sure that a profile's prepared data are those that it asks for, by what their manifest says.

    Raises:
        DataError: nothing is prepared, or with other settings.
    """
    from pipelines.data import sources

    folder = params.data_dir
    made_from, asked = read_manifest(folder).made_from, sources.settings(params.data)
    # Data made by hand may state no settings; then there is nothing to compare.
    if made_from and json.dumps(made_from["settings"], sort_keys=True) != json.dumps(asked, sort_keys=True):
        raise DataError(f"{folder}: prepared with other settings than the profile has now; {AGAIN}")


def verify(params) -> None:
    """Make sure that a profile's prepared data, and its external data, are whole and what the profile asks for, by
    reading every byte of them, once in a process.

    Raises:
        DataError: nothing is prepared, or it is damaged, changed, or of other settings.
    """
    check_settings(params)
    folder = params.data_dir
    for place in (folder, *(external_dir(folder, name) for name in params.data.external_names)):
        paths = [place / name for name in (MANIFEST, *ARRAYS)]
        if missing := [path for path in paths if not path.is_file()]:
            raise DataError(f"{missing[0]}: no prepared data; run `python -m pipelines.prepare` first")
        _verify(place, tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in map(os.stat, paths)))


@functools.lru_cache(maxsize=16)
def _verify(folder: Path, _stamps) -> None:
    manifest = read_manifest(folder)
    for name in ARRAYS:
        found, expected = records.sha256_file(folder / name), manifest.files.get(name, "nothing")
        if found != expected:
            raise DataError(f"{folder / name}: SHA-256 {found[:12]}..., its manifest says {expected[:12]}...; {AGAIN}")
    if split_digests(open_splits(folder)) != manifest.splits:
        raise DataError(f"{folder / MANIFEST}: its splits are not those of splits.npz; {AGAIN}")
