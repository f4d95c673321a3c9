"""Labelled image files as a data set: what the sources of files share, and what external data are read by."""

import hashlib
import os
import re
import unicodedata
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
TIMEOUT = 1.0  # seconds a name: a thousandth is plenty; some patterns take longer than anybody lives
PREPARATION = {
    "crop": "centre crop to the short side, bicubic resize",
    "pad": "padded with black to the long side, bicubic resize",
    "stretch": "stretched to a square, bicubic resize",
}


@dataclass(frozen=True)
class Listing:
    """Image files and what is known of them before any is opened.

    root: the folder they lie in. names: of the files within it. labels: int64 (N,). patients: (N,) str, or None.
    splits: given ones, or None where folds are to be made. left_out: files that are no images, and the like, by kind.
    """

    root: Path
    names: list[str]
    labels: np.ndarray
    classes: list[str]
    patients: np.ndarray | None
    splits: dict[str, np.ndarray] | None = None
    left_out: dict[str, list[str]] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        return [self.root / name for name in self.names]

    def digest(self) -> str:
        """One digest of the files' names and contents, and of the names of what was left out."""
        listed = "".join(f"{name}\0{sha256_file(file)}\n" for name, file in zip(self.names, self.files))
        listed += "".join(f"{kind}\0{name}\n" for kind, names in self.left_out.items() for name in names)
        return hashlib.sha256(listed.encode()).hexdigest()


def read(listing: Listing, data, seeds: Sequence[int], allocate: Allocate) -> Dataset:
    """The listed images at `data.image_size`, in the splits given or in folds by patient, as `data` asks for them.

    Grey where every pixel of every image is grey, RGB otherwise. The brightest value of all 16-bit grey files becomes
    white, so that 12-bit scans keep their range.

    Raises:
        DataError: an image that cannot be read, too few patients for the folds, or a patient in two given splits.
    """
    made, folds = listing.splits, None
    if made is None:
        section = getattr(data, data.source)
        folds, key = section.folds, f"data.{data.source}"
        made = splits.patient_folds(
            listing.labels, listing.patients, seeds, folds, section.val_share, listing.classes, key
        )
    else:
        splits.keep_apart(listing.patients, made)
    warned, white = survey(listing)
    preprocessing = Preprocessing(size=data.image_size, fit=data.fit, white=white or pictures.WHITE)
    images = _grey(listing.files, preprocessing, allocate)
    if images is None:
        preprocessing = preprocessing.model_copy(update={"channels": 3})
        images = decoded(listing.files, preprocessing, allocate)
        coloured = [number for number, image in enumerate(images) if (image != image[..., :1]).any()]
        if len(coloured) < len(images) / 2:
            warned.append(
                f"{len(coloured):,} of {len(images):,} images are coloured, so all are stored as RGB: "
                + numbered(coloured)
            )
    if listing.patients is None:
        warned.append(
            "no patients are named: images are split one by one, so scans of one patient may stand on both sides"
        )
    origin = {**describe(listing), "preparation": PREPARATION[data.fit]}
    if white is not None:
        origin["preparation"] += f"; 16-bit grey up to {white:,} is shown as 0 to 255"
    return Dataset(
        images, listing.labels, listing.classes, made, preprocessing, listing.patients, folds, listing.names, origin,
        warned,
    )  # fmt: skip


def _grey(files: Sequence[Path], preprocessing: Preprocessing, allocate: Allocate):
    """All images in one array, or None where one is coloured."""
    images = allocate((len(files), preprocessing.size, preprocessing.size))
    for position, file in enumerate(files):
        image = pictures.load_image(file, preprocessing.size, preprocessing.fit, preprocessing.white)
        if image.ndim == 3:
            return None
        images[position] = image
    return images


def decoded(files: Sequence[Path], preprocessing: Preprocessing, allocate: Allocate):
    """All images in one array, (N, size, size) or (N, size, size, 3)."""
    colours = () if preprocessing.channels == 1 else (3,)
    images = allocate((len(files), preprocessing.size, preprocessing.size, *colours))
    for position, file in enumerate(files):
        images[position] = preprocessing.load(file)
    return images


def survey(listing: Listing) -> tuple[list[str], int | None]:
    """Warnings of images that are hardly scans, and the highest value of all 16-bit grey ones (None without any)."""
    shapes = [pictures.survey(file) for file in listing.files]
    sides = [sorted(shape[:2]) for shape in shapes]
    small = [number for number, (short, _) in enumerate(sides) if short < SMALL]
    long = [number for number, (short, side) in enumerate(sides) if side > LONG * short]
    warned = []
    if small:
        warned.append(f"{len(small):,} images have a side of fewer than {SMALL} pixels: {numbered(small)}")
    if long:
        warned.append(f"{len(long):,} images are more than {LONG} times as long as wide: {numbered(long)}")
    brightest = [value for *_, value in shapes if value is not None]
    return warned, max(1, *brightest) if brightest else None


def describe(listing: Listing) -> dict:
    """Facts about the files for the data card; of what was left out a few names too, for the terminal alone."""
    text = note(listing.root)
    found = {
        "source": f"folder of images ({listing.root.resolve().name})",
        "licence": "see the note" if text else "not stated in the folder",
        "note": text,
    }
    if listing.left_out:
        found["left out"] = {f"{len(names):,} {kind}": some(names) for kind, names in sorted(listing.left_out.items())}
    return found


def some(names: Sequence[str]) -> str:
    """A few names for a message."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


def numbered(numbers: Sequence[int]) -> str:
    """A few images by number, for what goes to the data card: names may tell who is who."""
    return some([f"image {number}" for number in numbers])


def check_place(file: Path, root: Path, follow_links: bool) -> None:
    """A link may point anywhere on the machine; what is read must be a file in the folder that was named.

    Raises:
        DataError: it lies elsewhere and `follow_links` is not set, or is no file.
    """
    place = Path(os.path.realpath(file))  # which takes a link to itself, too
    if not follow_links and not place.is_relative_to(root.resolve()):
        raise DataError(
            f"{file}: leads to {place}, outside {root}; copy it into the folder, or set follow_links: true "
            "(--follow-links of evaluate)"
        )
    if not place.is_file():
        raise DataError(f"{file}: expected an image file, found a folder, a device or a link to nothing; remove it")


def plain_name(name: str, where) -> str:
    """The name, `composed`; raises DataError where it holds control characters or the like."""
    if not name.isprintable():
        raise DataError(f"{where}: the name {name!r} is not plain text; rename it")
    return composed(name)


def composed(name: str) -> str:
    """The name in Unicode's form NFC: systems write one name in several, and it must stay one class or one patient."""
    return unicodedata.normalize("NFC", name)


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


def patients_in(files: Sequence[Path], classes: Sequence[str], pattern: str, key: str) -> np.ndarray:
    """The patient of each file, (N,) str: group `patient` of `pattern`, a regular expression that is searched for in
    the name without suffix, `composed`. A group `label` in it must be the file's class, of `classes` (N,). `key` names
    the pattern.

    Raises:
        DataError: no regular expression, no such group, a name without a patient or that takes too long, or a name
            that says another class.
    """
    import regex

    key = f"{key} {pattern!r}"
    try:
        compiled = regex.compile(composed(pattern))
    except regex.error as error:
        raise DataError(f"{key}: not a regular expression: {error}") from None
    if "patient" not in compiled.groupindex:
        raise DataError(f"{key}: it has no group (?P<patient>...), which says whose image it is")
    try:
        matches = [compiled.search(composed(file.stem), timeout=TIMEOUT) for file in files]
    except TimeoutError:
        raise DataError(
            f"{key}: it takes more than {TIMEOUT:g} s for one name; it repeats a repetition, as (a+)+ does: write it "
            "so that each character can be matched in one way"
        ) from None
    missed = [number for number, match in enumerate(matches) if match is None or not match["patient"]]
    if missed:
        found = sorted(set(range(len(files))) - set(missed))
        how_many = f"{len(found)} of {len(files)} file names, not to all" if found else "no file name"
        shown = (missed[: SHOWN - 1] + found[:1] + missed[SHOWN - 1 :])[:SHOWN]
        raise DataError(
            f"{key}: it gives a patient to {how_many}: "
            f"{'; '.join(_caught(files[number].stem, matches[number]) for number in shown)}; change the pattern or the "
            "names, or leave it out (null, --pattern '') where names tell no patient"
        )
    for file, match, label in zip(files, matches, classes):
        if "label" in compiled.groupindex and match["label"] not in (None, label):
            raise DataError(
                f"{file}: its name says {match['label']!r} but its class is {label!r}; move it, or leave the group "
                f"`label` out of {key.split()[0]} when names carry no class"
            )
    return np.array([match["patient"] for match in matches])


def _caught(name: str, match) -> str:
    if match is None:
        return f"{name!r} no match"
    groups = ", ".join(f"{group} {value!r}" for group, value in match.groupdict().items())
    return f"{name!r} {groups}"
