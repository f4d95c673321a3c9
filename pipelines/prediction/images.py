"""Image files as arrays in batches, decoded by threads ahead of the network that sees them."""

import functools
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.data import pictures
from pipelines.data.errors import DataError
from pipelines.data.pictures import SUFFIXES
from pipelines.data.preprocessing import Preprocessing
from pipelines.files.errors import UserError

AHEAD = 3  # batches that are decoded before they are asked for


@dataclass(frozen=True)
class Batch:
    """Some of the files, in their order. places: of those that could be read, int64 (B,). images: uint8 (B, H, W) or
    (B, H, W, 3). brightest: the highest value of 16-bit ones, 0 without any. damaged: a message for each of the others.
    """

    places: np.ndarray
    images: np.ndarray
    brightest: int
    damaged: list[str]


def find(places: Sequence[Path]) -> list[Path]:
    """The image files named, and those in the folders named, at any depth, in the order of their names.

    Hidden files and those without an image's suffix are passed over in folders; a file that is named is always read.
    Links to folders are not followed, and told on stderr.

    Raises:
        UserError: a place is not there, a folder holds no image, or one cannot be read.
    """
    found = []
    for place in places:
        if not place.exists():
            raise UserError(f"{place}: no such file or folder; name image files, or folders of them")
        own = [place] if not place.is_dir() else sorted(_searched(place))
        if not own:
            raise UserError(f"{place}: no image in it; expected files ending in {', '.join(sorted(SUFFIXES))}")
        found += own
    return list(dict.fromkeys(found))


def batches(files: Sequence[Path], preprocessing: Preprocessing, size: int) -> Iterator[Batch]:
    """The files as batches of at most `size`; those that cannot be read are told in theirs."""
    decoded, waiting = functools.partial(_decoded, preprocessing), deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), size):
            waiting.append((start, pool.map(decoded, files[start : start + size])))
            if len(waiting) > AHEAD:
                yield _gathered(*waiting.popleft())
        for left in waiting:
            yield _gathered(*left)


def _gathered(start: int, results: Iterable[tuple[np.ndarray, int] | str]) -> Batch:
    numbered = list(enumerate(results, start))
    decoded = {place: result for place, result in numbered if not isinstance(result, str)}
    damaged = [result for _, result in numbered if isinstance(result, str)]
    images, bright = zip(*decoded.values(), strict=True) if decoded else ((), ())
    return Batch(np.array(list(decoded), np.int64), np.array(images, np.uint8), max(bright, default=0), damaged)


def _decoded(preprocessing: Preprocessing, file: Path) -> tuple[np.ndarray, int] | str:
    try:
        *_, brightest = pictures.survey(file)
        return preprocessing.load(file), brightest or 0
    except DataError as error:
        return str(error)


def _searched(root: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(root, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for folder in (Path(place, name) for name in folders):
            if folder.is_symlink():
                print(f"{folder}: a link to a folder, not searched; name it on the command line", file=sys.stderr)
        files = (Path(place, name) for name in names if not name.startswith("."))
        yield from (file for file in files if file.suffix.lower() in SUFFIXES and file.is_file())


def _refuse(error: OSError):
    raise UserError(f"{error.filename}: cannot be searched ({error.strerror}); allow reading it, or name other folders")
