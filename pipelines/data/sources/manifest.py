"""A CSV file that lists images: image, label, and where known patient and split."""

import csv
import os
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
    path = path.expanduser()
    if not path.is_file():
        raise DataError(f"{key}: {path}: no such file; expected a CSV file with columns image,label[,patient,split]")
    table = _table(path)
    for name in table:
        if len(empty := table.index[table[name] == ""]):
            if name in COLUMNS[2:] and len(empty) == len(table):
                table = table.drop(columns=name)
                continue
            optional = ", or leave the column out" if name in COLUMNS[2:] else ""
            raise DataError(f"{path}: line {empty[0]} has no {name}; fill it in{optional}")
    places = table["image"].map(lambda name: os.path.realpath(path.parent / name))
    first = dict(zip(places[::-1], table.index[::-1]))
    if twice := [f"{table['image'][n]} (lines {first[places[n]]} and {n})" for n in table.index[places.duplicated()]]:
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
        file = path.parent / name
        labelled.plain_name(name, path)
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


def _table(path: Path):
    """The columns that are read, as a data frame of words by line number; labels and patients are `composed`."""
    import pandas as pd

    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            head = next(reader, [])
            lines = [(reader.line_num, line) for line in reader if any(map(str.strip, line))]
    except (ValueError, OSError, csv.Error) as error:  # ValueError: no UTF-8
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error})") from None
    for name in COLUMNS:
        if name in COLUMNS[:2] and name not in head or head.count(name) > 1:
            found = ", ".join(map(repr, head)) or "nothing"
            raise DataError(f"{path}: expected one column {name!r} in the first line, found {found}; mend that line")
    for number, line in lines:
        if len(line) > len(head):
            raise DataError(
                f"{path}: line {number} has {len(line)} values, the first line names {len(head)}; put a value that "
                "holds a comma in quotes, and take away a comma at the end"
            )
    read = [name for name in COLUMNS if name in head]
    rows = [dict.fromkeys(read, "") | dict(zip(head, map(str.strip, line))) for _, line in lines]
    table = pd.DataFrame(rows, index=[number for number, _ in lines], columns=read, dtype=str)
    return table.assign(**{name: table[name].map(labelled.composed) for name in read[1:]})
