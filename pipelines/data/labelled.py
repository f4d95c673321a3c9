"""Labelled image files as a data set: what the sources of files share, and what external data are read by."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.data import pictures, splits
from pipelines.data.errors import DataError
from pipelines.data.preprocessing import Preprocessing
from pipelines.data.sources import Allocate, Dataset
from pipelines.files.records import sha256_file

NOTE = 2**16  # bytes read of a README
SHOWN = 3  # names in a message
SMALL, LONG = 16, 10  # pixels of a side below which, and proportions above which, a scan is unlikely


@dataclass(frozen=True)
class Listing:
    """Image files and what is known of them before any is opened.

    root: the folder they lie in. files: sorted. names: of the files within the folder. labels: int64 (N,).
    patients: (N,) str, or None. splits: given ones, or None where folds are to be made. left_out: files that are no
    images, and the like, by kind.
    """

    root: Path
    files: list[Path]
    names: list[str]
    labels: np.ndarray
    classes: list[str]
    patients: np.ndarray | None
    splits: dict[str, np.ndarray] | None = None
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def digest(self) -> str:
        """One digest of the files' names and contents."""
        listed = "".join(f"{name}\0{sha256_file(file)}\n" for name, file in zip(self.names, self.files))
        return hashlib.sha256(listed.encode()).hexdigest()


def read(listing: Listing, data, section, seeds: Sequence[int], allocate: Allocate) -> Dataset:
    """The listed images at `data.image_size`, in the splits given or in `section.folds` folds by patient.

    Grey where every pixel of every image is grey, RGB otherwise. The brightest value of all 16-bit grey files becomes
    white, so that 12-bit scans keep their range.

    Raises:
        DataError: an image that cannot be read, too few patients for the folds, or a patient in two given splits.
    """
    made, folds = listing.splits, None
    if made is None:
        folds = section.folds
        made = splits.patient_folds(
            listing.labels, listing.patients, seeds, folds, section.val_share, listing.classes, f"data.{data.source}"
        )
    else:
        splits.keep_apart(listing.patients, made)
    shapes = [pictures.survey(file) for file in listing.files]
    white = brightest(listing, shapes)
    images, coloured = _fill(listing.files, data.image_size, data.fit, white or pictures.WHITE, allocate)
    channels = 1 if images.ndim == 3 else 3
    warned = [*odd_shapes(listing, shapes), *_few_coloured(listing, coloured)]
    if listing.patients is None:
        warned.append(
            "no patients are named: images are split one by one, so scans of one patient may stand on both sides"
        )
    return Dataset(
        images, listing.labels, listing.classes, made,
        Preprocessing(size=data.image_size, fit=data.fit, channels=channels, white=white or pictures.WHITE),
        listing.patients, folds, listing.names,
        {**describe(listing), "preparation": _preparation(data.fit, white)},
        warned,
    )  # fmt: skip


def describe(listing: Listing) -> dict:
    """Facts about the files for the data card."""
    text = note(listing.root)
    found = {
        "source": f"folder of images ({listing.root.resolve().name})",
        "licence": "see the note" if text else "not stated in the folder",
        "note": text,
    }
    if listing.left_out:
        found["left out"] = "; ".join(
            f"{len(names):,} {kind} ({some(names)})" for kind, names in sorted(listing.left_out.items())
        )
    return found


def some(names: Sequence[str]) -> str:
    """A few names for a message."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


def check_place(file: Path, root: Path, follow_links: bool) -> None:
    """A link may point anywhere on the machine; what is read must be a file in the folder that was named.

    Raises:
        DataError: it lies elsewhere and `follow_links` is not set, or is no file.
    """
    try:
        place = file.resolve()
    except (OSError, RuntimeError):  # RuntimeError: a link to itself, before Python 3.13
        place = file.parent.resolve() / file.name
    if not follow_links and not place.is_relative_to(root.resolve()):
        raise DataError(
            f"{file}: a link to {place}, outside {root}; copy it into the folder, or set follow_links: true "
            "(--follow-links of evaluate)"
        )
    if not place.is_file():
        raise DataError(f"{file}: expected an image file, found a folder, a device or a link to nothing; remove it")


def plain_name(name: str, where) -> str:
    """The name, where it can be shown.

    Raises:
        DataError: it holds control characters or the like.
    """
    if not name.isprintable():
        raise DataError(f"{where}: the name {name!r} is not plain text; rename it")
    return name


def brightest(listing: Listing, shapes) -> int | None:
    """The highest value of all 16-bit grey images, or None where there are none; `shapes` as for `odd_shapes`."""
    deep = [file for file, (_, _, is_deep) in zip(listing.files, shapes) if is_deep]
    return max(1, *map(pictures.brightest, deep)) if deep else None


def _fill(files: Sequence[Path], size: int, fit: str, white: int, allocate: Allocate):
    """Decode into one array: grey until the first coloured image, which starts it again as RGB.

    Returns:
        the array, and the positions of the coloured images.
    """
    images = allocate((len(files), size, size))
    for position, file in enumerate(files):
        image = pictures.load_image(file, size, fit, white)
        if image.ndim == 3:
            break
        images[position] = image
    else:
        return images, []
    images, coloured = allocate((len(files), size, size, 3)), []
    for position, file in enumerate(files):
        image = pictures.load_image(file, size, fit, white)
        if image.ndim == 3:
            coloured.append(position)
        images[position] = image if image.ndim == 3 else image[..., None]
    return images, coloured


def odd_shapes(listing: Listing, shapes) -> list[str]:
    """Warnings of images that are hardly scans; `shapes` as `pictures.survey` gives them."""
    sides = [(min(width, height), max(width, height)) for width, height, _ in shapes]
    small = [name for name, (short, _) in zip(listing.names, sides) if short < SMALL]
    long = [name for name, (short, side) in zip(listing.names, sides) if side > LONG * short]
    return [
        *([f"{len(small):,} images have a side of fewer than {SMALL} pixels: {some(small)}"] if small else []),
        *([f"{len(long):,} images are more than {LONG} times as long as wide: {some(long)}"] if long else []),
    ]


def _few_coloured(listing: Listing, coloured) -> list[str]:
    if 0 < len(coloured) < len(listing.files) / 2:
        names = [listing.names[position] for position in coloured]
        return [
            f"{len(names):,} of {len(listing.files):,} images are coloured, so all are stored as RGB: {some(names)}"
        ]
    return []


def _preparation(fit: str, white: int | None) -> str:
    how = {
        "crop": "centre crop to the short side",
        "pad": "padded with black to the long side",
        "stretch": "stretched to a square",
    }[fit]
    return f"{how}, bicubic resize" + ("" if white is None else f"; 16-bit grey up to {white:,} is shown as 0 to 255")


def note(root: Path) -> str:
    """The first paragraph of the folder's README, which is where public data states its origin and licence."""
    for name in ("README.md", "README.txt", "README"):
        if os.path.isfile(root / name):
            check_place(root / name, root, False)
            with open(root / name, "rb") as file:
                text = file.read(NOTE).decode("utf-8", errors="replace")
            paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", text)]
            return next((p[:1000] for p in paragraphs if p and not p.startswith("#")), "")
    return ""
