"""Read back what `pipelines.training.probe` left in the runs' folders; imports no torch."""

from pathlib import Path

import numpy as np

from pipelines.files import arrays
from pipelines.files.errors import UserError
from pipelines.profile import Params


class Probed:
    """The archives of one name in the probed runs of a profile, checked against the runs' tests and each other."""

    def __init__(self, params: Params, name: str, forms: dict[str, str]):
        """`forms`: of the arrays of the archive beside its indices (n,), see `arrays.check_forms`."""
        self.params, self.name, self.forms = params, name, {"indices": "iu n", **forms}
        self.first: dict[str, tuple[Path, np.ndarray]] = {}

    def read(self, run: dict) -> dict[str, np.ndarray] | None:
        """The arrays of a run (see `read_runs`) with "places" (n,): of its images in the run's test.

        None for a run that is not to be probed, and where `allow_missing` lets the file be missing.

        Raises:
            UserError: the file is missing or malformed, or its images are not of the run's test, or not those of
                other methods with the same seed.
        """
        path = self.path(run)
        if not self.params.probed(run["method"], run["seed"]) or (self.params.allow_missing and not path.is_file()):
            return None
        if not path.is_file():
            raise self.error(run, "no such file, which `probe` asks for (`allow_missing: true` would make it a hole)")
        try:
            found = arrays.read_npz(path, self.forms)
        except arrays.ArrayError as error:
            raise self.error(run, f"not readable as an archive of {', '.join(self.forms)} ({error})") from None
        indices = found["indices"]
        if not len(indices) or len(np.unique(indices)) < len(indices) or not np.isin(indices, run["indices"]).all():
            raise self.error(run, "its images are not test images of predictions.npz, each once: not one run")
        self.same(run, f"images of seed {run['seed']}", indices)
        return {**found, "places": np.searchsorted(run["indices"], indices)}

    def same(self, run: dict, what: str, value: np.ndarray) -> None:
        """Remember what the first run has, and raise UserError where another has something else."""
        path, expected = self.first.setdefault(what, (self.path(run), value))
        if not np.array_equal(expected, value):
            raise self.error(run, f"the {what} differ from those in {path}, so the methods cannot be compared")

    def error(self, run: dict, what: str) -> UserError:
        """An error that names the file, and how to make it again."""
        again = f"python -m pipelines.train --method {run['method']} --seed {run['seed']}"
        return UserError(f"{self.path(run)}: {what}; remove its folder and rerun: {again}")

    def path(self, run: dict) -> Path:
        return self.params.run_dir(run["method"], run["seed"]) / self.name
