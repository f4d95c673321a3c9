"""Whose each test image is: the units that the statistics draw anew."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.files import arrays
from pipelines.files.errors import UserError

AGAIN = "run `python -m pipelines.prepare`"


def read_patients(path: Path) -> pd.Series | None:
    """The patient's number by image index, of a table with columns image and patient; None without the file.

    Raises:
        UserError: it is no such table.
    """
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > arrays.LIMIT:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        patients = pd.read_csv(path, dtype="int64").set_index("image")["patient"]
        if not patients.index.is_unique:
            raise ValueError("an image occurs twice")
        return patients
    except Exception as error:  # pandas raises many types for text that is no table
        raise UserError(f"{path}: not a table of image and patient numbers ({error}); {AGAIN}") from None


def numbered(path: Path, patients: pd.Series | None, images: dict[tuple[str, int], np.ndarray]) -> dict:
    """The units of the images that runs were tested on, {(method, seed): (N,)}, as numbers from 0 that all runs share.

    Args:
        path, patients: the table and what `read_patients` found in it; without patients each image is a unit.
        images: indices (N,) of each run.

    Raises:
        UserError: an image is not in the table.
    """
    found = {}
    for (method, seed), indices in images.items():
        owner = pd.Series(indices) if patients is None else patients.reindex(indices)
        if owner.isna().any():
            raise UserError(
                f"{path}: no patient for {owner.isna().sum()} test images of method {method}, seed {seed}, the first "
                f"being image {owner.index[owner.isna()][0]}; the file and the run are of different data: {AGAIN}, "
                "then the run again"
            )
        found[method, seed] = owner.to_numpy(np.int64)
    known = np.unique(np.concatenate(list(found.values()))) if found else np.empty(0)
    return {run: np.searchsorted(known, owner) for run, owner in found.items()}
