"""Class folders of images: FOLDER/CLASS/NAME.jpeg, the patient read from NAME; or FOLDER/train/CLASS/NAME.jpeg and the
same for val and test, where the splits are given."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.data import labelled, pictures
from pipelines.data.errors import DataError
from pipelines.data.labelled import Listing
from pipelines.data.sources import SPLITS, Allocate, Dataset


def read(data, seeds: Sequence[int], allocate: Allocate) -> Dataset:
    """Every image of `data.folder.path`, in its own splits or in `data.folder.folds` folds by patient.

    Classes are the sorted names of the subfolders; images are in the order of class, then name, split by split. Raises
    as `listing` and `labelled.read`.
    """
    return labelled.read(_listing(data.folder), data, seeds, allocate)


def inputs(data) -> dict[str, str]:
    return {"folder": _listing(data.folder).digest()}


def _listing(section) -> Listing:
    return listing(section.path, section.pattern, section.follow_links)


def listing(
    path: Path, pattern: str | None, follow_links: bool = False, key: str = "data.folder.path", split: bool = True
) -> Listing:
    """The images in a folder of class folders, or of train, val and test with class folders in each (where `split`).

    What is hidden, has no image suffix or lies deeper is left out and counted.

    Args:
        pattern: reads the patient from a name (`labelled.patients_in`), or None where names tell none.
        key: of the path, for errors.

    Raises:
        DataError: no such folder, fewer than two classes, an empty class, a link that leaves the folder, a name that
            is not plain text, or that gives no patient.
    """
    root = path.expanduser()
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DataError(f"{key}: {root}: expected a folder with one subfolder a class, found {found}; set the key")
    left_out = defaultdict(list)
    parts = {"": _subfolders(root, left_out)}
    names = list(parts[""])
    if split and set(names) & set(SPLITS):
        if set(names) != set(SPLITS):
            raise DataError(f"{key}: {root}: found {labelled.some(names)}; expected train, val and test, or classes")
        parts = {part: _subfolders(root / part, left_out, part) for part in SPLITS}
        names = list(parts["train"])
        for part, there in parts.items():
            if list(there) != names:
                raise DataError(
                    f"{root / part}: its classes are {labelled.some(list(there))}, those of train "
                    f"{labelled.some(names)}; give each split a folder for every class"
                )
    if len(names) < 2:
        raise DataError(f"{key}: {root}: expected at least two class subfolders, found {len(names)}")
    placed = [
        (file, label, part)
        for part, folders in parts.items()
        for label, folder in enumerate(folders.values())
        for file in _images(folder, root, follow_links, left_out)
    ]
    files, labels, owners = zip(*placed)
    of = [names[label] for label in labels]
    ids = None if pattern is None else labelled.patients_in(files, of, pattern, "data.folder.pattern")
    given = None if "" in parts else {part: np.flatnonzero(np.array(owners) == part) for part in SPLITS}
    relative = [file.relative_to(root).as_posix() for file in files]
    return Listing(root, relative, np.array(labels, np.int64), names, ids, given, left_out)


def _subfolders(folder: Path, left_out, prefix: str = "") -> dict[str, Path]:
    found: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            name = labelled.plain_name(entry.name, folder)
            if found.setdefault(name, entry) != entry:
                raise DataError(f"{folder}: two folders are called {name}, in two Unicode forms; put them into one")
        elif entry.is_dir() or entry.suffix.lower() in pictures.SUFFIXES:
            left_out["hidden folders" if entry.is_dir() else "images outside of class folders"].append(
                ascii(f"{prefix}/{entry.name}".lstrip("/"))[1:-1]
            )
    return dict(sorted(found.items()))


def _images(folder: Path, root: Path, follow_links: bool, left_out) -> list[Path]:
    found = []
    for entry in sorted(folder.iterdir()):
        name = entry.relative_to(root).as_posix()
        if entry.name.startswith("."):
            left_out["hidden"].append(ascii(name)[1:-1])
        elif entry.suffix.lower() in pictures.SUFFIXES:
            labelled.check_place(entry, root, follow_links)
            labelled.plain_name(name, root)
            found.append(entry)
        else:
            kind = "subfolders of classes" if entry.is_dir() else f"files ending in {entry.suffix.lower() or 'nothing'}"
            left_out[ascii(kind)[1:-1]].append(ascii(name)[1:-1])
    if not found:
        raise DataError(
            f"{folder}: the class is empty: no file ends in {', '.join(sorted(pictures.SUFFIXES))}; images must lie "
            f"directly in it; add some or remove the folder ({pictures.VOLUMES})"
        )
    return found
