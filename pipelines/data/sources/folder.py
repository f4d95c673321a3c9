"""Class folders of images: FOLDER/CLASS/NAME.jpeg, the patient read from NAME.

Images are cropped to the centre square of the short side and resized bicubically, as MedMNIST prepared
OCTMNIST (Yang et al., Scientific Data 10, 41, 2023).
"""

import hashlib
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pipelines.data.sources import Allocate, DataError, Dataset
from pipelines.data.splits import patient_folds

SUFFIXES = {".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff"}
# Whatever the name says, Pillow would go by the content and try all it knows, one of them (EPS) by another program.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
NOTE = 2**16  # bytes read of a README
MAX_PIXELS = 64_000_000  # far above any scan; above it a small file that unpacks to gigabytes is likelier
GREY_MODES = {"1", "L", "LA"}
COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}


def read(data, seeds: Sequence[int], allocate: Allocate) -> Dataset:
    """Read every image of `data.folder.path` and split it by patients into `data.folder.folds` folds.

    Classes are the sorted names of the subfolders; images are in the order of class, then name. When every pixel of
    every image is grey the array is (N, H, W), else (N, H, W, 3). Alpha is dropped; 16-bit grey is scaled to 8 bits.

    Raises:
        DataError: no such folder, an empty class, an image that cannot be read or is too large, a name without a
            patient, a link that leaves the folder, or too few patients for the folds.
    """
    root = data.folder.path.expanduser()
    classes, files = scan(root)
    patients = patient_ids(files, data.folder.pattern)
    labels = np.array([classes.index(file.parent.name) for file in files], np.int64)
    splits = patient_folds(labels, patients, seeds, data.folder.folds, data.folder.val_share, classes)
    images = _fill(files, data.image_size, allocate)
    origin = {
        "source": f"folder of images ({root.resolve().name})",
        "licence": "see the note" if (note := _note(root)) else "not stated in the folder",
        "note": note,
        "preparation": "centre crop to the short side, bicubic resize",
    }
    return Dataset(images, labels, classes, splits, patients, data.folder.folds, origin)


def listing(root: Path) -> str | None:
    """SHA-256 over the names and sizes of the images, to notice a changed folder cheaply; None where it is missing.

    Raises:
        DataError: as `scan`.
    """
    root = root.expanduser()
    if not root.is_dir():
        return None
    digest = hashlib.sha256()
    for file in scan(root)[1]:
        digest.update(f"{file.parent.name}/{file.name}\0{file.stat().st_size}\n".encode())
    return digest.hexdigest()


def scan(root: Path) -> tuple[list[str], list[Path]]:
    """The class names, sorted, and the image files, sorted by class and name.

    Files without an image suffix and hidden ones are left out.

    Raises:
        DataError: missing folder, fewer than two classes, a class without images, a link that leaves the folder.
    """
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DataError(
            f"data.folder.path: {root}: expected a folder with one subfolder a class, found {found}; set the key"
        )
    inside = root.resolve()
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) < 2:
        raise DataError(f"data.folder.path: {root}: expected at least two class subfolders, found {len(classes)}")
    files = []
    for name in classes:
        found = sorted(
            e for e in (root / name).iterdir() if e.suffix.lower() in SUFFIXES and not e.name.startswith(".")
        )
        for file in found:
            _check_place(file, inside, root)
            if not f"{name}/{file.name}".isprintable():
                raise DataError(f"{root}: the name {f'{name}/{file.name}'!r} is not plain text; rename it")
        if not found:
            raise DataError(
                f"{root / name}: the class is empty: no file ends in {', '.join(sorted(SUFFIXES))}; images must lie "
                "directly in it; add some or remove the folder"
            )
        files += found
    return classes, files


def _check_place(file: Path, inside: Path, root: Path) -> None:
    """A link may point anywhere on the machine; what is read must be a file in the folder that was named."""
    try:
        place = file.resolve()
    except (OSError, RuntimeError):  # RuntimeError: a link to itself, before Python 3.13
        place = file.parent.resolve() / file.name
    if not place.is_relative_to(inside):
        raise DataError(f"{file}: a link to {place}, outside {root}; copy it into the folder")
    if not place.is_file():
        raise DataError(f"{file}: expected an image file, found a folder, a device or a link to nothing; remove it")


def patient_ids(files: Sequence[Path], pattern: str) -> np.ndarray:
    """The patient of each file, (N,) str: group `patient` of `pattern`, which must match the whole name without suffix.

    Raises:
        DataError: the pattern is no regular expression, has no such group, or does not match a name; or its group
            `label` differs from the folder the file is in.
    """
    key = f"data.folder.pattern {pattern!r}"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"{key}: not a regular expression: {error}") from None
    if "patient" not in compiled.groupindex:
        raise DataError(f"{key}: it has no group (?P<patient>...), which says whose image it is")
    matches = [compiled.fullmatch(file.stem) for file in files]
    missed = [file for file, match in zip(files, matches) if match is None]
    if missed:
        how_many = "no file name" if len(missed) == len(files) else f"not {len(missed)} of {len(files)} file names"
        raise DataError(
            f"{key}: it matches {how_many}, for instance {missed[0].stem!r}; change the pattern or the names"
        )
    for file, match in zip(files, matches):
        if not match["patient"]:
            raise DataError(f"{key}: it reads an empty patient id from {file.stem!r}")
        label = match["label"] if "label" in compiled.groupindex else None
        if label is not None and label != file.parent.name:
            raise DataError(
                f"{file}: its name says {label!r} but it lies in {file.parent.name!r}; move it, or leave the group "
                "`label` out of data.folder.pattern when names carry no class"
            )
    return np.array([match["patient"] for match in matches])


def load_image(file: Path, size: int) -> np.ndarray:
    """One image, uint8, (size, size) when it is grey and (size, size, 3) otherwise.

    Raises:
        DataError: empty, not an image, damaged, several frames, or more than MAX_PIXELS.
    """
    try:
        empty = file.stat().st_size == 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own, lower limit follows
            image = None if empty else Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        raise DataError(f"{file}: more than {MAX_PIXELS:,} pixels; shrink it or remove it") from None
    except Exception as error:  # decoders raise many types; each means the same here
        raise DataError(f"{file}: not a readable image ({error}); fetch it again or remove it") from None
    if empty:
        raise DataError(f"{file}: the file is empty (0 bytes); fetch it again or remove it")
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:  # known from the header, before anything is decoded
            raise DataError(f"{file}: {width} x {height} is more than {MAX_PIXELS:,} pixels; shrink it or remove it")
        if image.mode not in GREY_MODES | COLOUR_MODES and not image.mode.startswith("I;16"):
            raise DataError(
                f"{file}: pixel mode {image.mode!r} is not supported; save it as 8- or 16-bit grey or as RGB"
            )
        try:
            frames = getattr(image, "n_frames", 1)  # for which a TIFF is searched to its end
            array = _square(ImageOps.exif_transpose(image), size) if frames == 1 else None
        except Exception as error:
            raise DataError(f"{file}: the image cannot be decoded ({error}); fetch it again or remove it") from None
    if frames != 1:
        raise DataError(f"{file}: it holds {frames} frames, expected one; save the frames as single images")
    return array


def _square(image: Image.Image, size: int) -> np.ndarray:
    if image.mode.startswith("I;16"):
        # Pillow clips at 255 when it converts; scale instead so that white stays white.
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    image = image.convert("L" if image.mode in GREY_MODES else "RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Taking the square as a box lets the filter read the scan beyond its edge, where there is one: without the made-up
    # border a separate crop would give, the outermost two pixels differ from one by under a grey level on average.
    box = (left, top, left + side, top + side)
    array = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    if array.ndim == 3 and (array == array[..., :1]).all():
        return array[..., 0]
    return array


def _fill(files: Sequence[Path], size: int, allocate: Allocate) -> np.ndarray:
    """Decode into one array: grey until the first coloured image, which starts it again as RGB."""
    images = allocate((len(files), size, size))
    for position, file in enumerate(files):
        image = load_image(file, size)
        if image.ndim == 3:
            break
        images[position] = image
    else:
        return images
    images = allocate((len(files), size, size, 3))
    for position, file in enumerate(files):
        image = load_image(file, size)
        images[position] = image if image.ndim == 3 else image[..., None]
    return images


def _note(root: Path) -> str:
    """The first paragraph of the folder's README, which is where public data states its origin and licence."""
    for name in ("README.md", "README.txt", "README"):
        if os.path.isfile(root / name):
            _check_place(root / name, root.resolve(), root)
            with open(root / name, "rb") as file:
                text = file.read(NOTE).decode("utf-8", errors="replace")
            paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", text)]
            return next((p[:1000] for p in paragraphs if p and not p.startswith("#")), "")
    return ""
