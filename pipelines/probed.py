"""Read back what `pipelines.probe` left in the cells' folders; imports no torch."""

from pathlib import Path

import numpy as np

from pipelines import arrays
from pipelines.cells import SummaryError
from pipelines.params import Params


class Probed:
    """The archives of one name in the probed cells of a profile, checked against the cells' tests and each other."""

    def __init__(self, params: Params, name: str, keys: tuple[str, ...]):
        """`keys`: the arrays of the archive; the first is "indices"."""
        self.params, self.name, self.keys = params, name, keys
        self.first: dict[str, tuple[Path, np.ndarray]] = {}

    def read(self, cell: dict) -> dict[str, np.ndarray] | None:
        """The arrays of a cell (see `pipelines.cells.read_cells`) with "places" (n,): of its images in the cell's test.

        None for a cell that is not to be probed, and where `allow_missing` lets the file be missing.

        Raises:
            SummaryError: the file is missing or malformed, or its images are not of the cell's test, or not those of
                other arms with the same seed.
        """
        path = self.path(cell)
        if not self.params.probed(cell["seed"]) or (self.params.allow_missing and not path.is_file()):
            return None
        if not path.is_file():
            raise self.error(cell, "no such file, which `probe` asks for (`allow_missing: true` would make it a hole)")
        try:
            found = arrays.read_npz(path, self.keys)
        except arrays.ArrayError as error:
            raise self.error(cell, f"not readable as an archive of {', '.join(self.keys)} ({error})") from None
        indices = found["indices"]
        if indices.ndim != 1 or not len(indices) or indices.dtype.kind not in "iu":
            raise self.error(cell, f"indices should be integers (n,), found {indices.dtype} {indices.shape}")
        if len(np.unique(indices)) < len(indices) or not np.isin(indices, cell["indices"]).all():
            raise self.error(cell, "its images are not test images of predictions.npz, each once: not one run")
        self.same(cell, f"images of seed {cell['seed']}", indices)
        return {**found, "places": np.searchsorted(cell["indices"], indices)}

    def same(self, cell: dict, what: str, value: np.ndarray) -> None:
        """Remember what the first cell has, and raise SummaryError where another has something else."""
        path, expected = self.first.setdefault(what, (self.path(cell), value))
        if not np.array_equal(expected, value):
            raise self.error(cell, f"the {what} differ from those in {path}, so the arms cannot be compared")

    def error(self, cell: dict, what: str) -> SummaryError:
        """An error that names the file, and how to make it again."""
        again = f"python -m pipelines.train --arm {cell['arm']} --seed {cell['seed']}"
        return SummaryError(f"{self.path(cell)}: {what}; remove its folder and rerun: {again}")

    def path(self, cell: dict) -> Path:
        return self.params.cell_dir(cell["arm"], cell["seed"]) / self.name
