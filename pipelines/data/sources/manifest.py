"""A CSV file that lists images: image, label, and where known patient and split."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.data import labelled, pictures
from pipelines.data.errors import DataError
from pipelines.data.labelled import Listing
from pipelines.data.sources import SPLITS, Allocate, Dataset
from pipelines.files.records import sha256_file

COLUMNS = ("image", "label", "patient", "split")


def read(data, seeds: Sequence[int], allocate: Allocate) -> Dataset:
    """Every image listed in `data.manifest.path`, in its own splits or in `data.manifest.folds` folds by patient.

    Raises as `listing` and `labelled.read`.
    """
    return labelled.read(_listing(data.manifest), data, seeds, allocate)


def inputs(data) -> dict[str, str]:
    images = _listing(data.manifest).digest()  # first: it says what is wrong with the file
    return {"manifest": sha256_file(data.manifest.path.expanduser()), "images": images}


def _listing(section) -> Listing:
    return listing(section.path, section.follow_links)


def listing(path: Path, follow_links: bool = False, key: str = "data.manifest.path", split: bool = True) -> Listing:
    """The images named in a CSV file with a header: `image` (a path from the file's own folder), `label`, and where
    they are known `patient` and `split` (train, val or test; read where `split`). Other columns are left alone.

    Raises:
        DataError: no such file, no CSV, a column missing, a value missing, an image that is not there, is named twice,
            or lies outside of the folder, an unknown split, or fewer than two classes.
    """
    import pandas as pd

    path = path.expanduser()
    if not path.is_file():
        raise DataError(f"{key}: {path}: no such file; expected a CSV file with columns image,label[,patient,split]")
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # a line with too many values
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except (ValueError, OSError, Warning) as error:  # ValueError: pandas' parser errors, or no UTF-8
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error})") from None
    if missing := [name for name in COLUMNS[:2] if name not in table]:
        raise DataError(
            f"{path}: no column {missing[0]!r}, found {', '.join(map(repr, table))}; add it to the first line"
        )
    table = table[[name for name in COLUMNS if name in table]].apply(lambda column: column.str.strip())
    for name in table:
        if empty := (table[name] == "").to_numpy().nonzero()[0].tolist():
            if name in COLUMNS[2:] and len(empty) == len(table):
                table = table.drop(columns=name)
                continue
            optional = ", or leave the column out" if name in COLUMNS[2:] else ""
            raise DataError(f"{path}: line {empty[0] + 2} has no {name}; fill it in{optional}")
    if twice := sorted(set(table["image"][table["image"].map(os.path.normpath).duplicated()])):
        raise DataError(f"{path}: names {len(twice)} images more than once: {labelled.some(twice)}; remove the others")
    if not split:
        table = table.drop(columns="split", errors="ignore")
    if "split" in table:
        if set(table["split"]) != set(SPLITS):
            raise DataError(
                f"{path}: column split holds {labelled.some(sorted(set(table['split'])))}; expected train, val and "
                "test, each of them, or leave the column out for folds"
            )
        table = table.sort_values("split", key=lambda column: column.map(SPLITS.index), kind="stable")
    classes = sorted(labelled.plain_name(name, path) for name in set(table["label"]))
    if len(classes) < 2:
        raise DataError(f"{path}: expected at least two labels, found {len(classes)}")
    for name in table["image"]:
        file = path.parent / labelled.plain_name(name, path)
        if file.suffix.lower() not in pictures.SUFFIXES:
            raise DataError(f"{path}: {name}: expected an image, {', '.join(sorted(pictures.SUFFIXES))}")
        if not file.is_file():
            raise DataError(f"{path}: {name}: no such file in {path.parent}; paths start at the CSV file's own folder")
        labelled.check_place(file, path.parent, follow_links)
    labels = np.array([classes.index(name) for name in table["label"]], np.int64)
    patients = table["patient"].to_numpy(str) if "patient" in table else None
    given = None
    if "split" in table:
        given = {name: np.flatnonzero((table["split"] == name).to_numpy()) for name in SPLITS}
    return Listing(path.parent, list(table["image"]), labels, classes, patients, given)
