"""A method's trained networks on labelled images: accuracy, balanced accuracy and AUC, with intervals."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.data import external
from pipelines.evidence.external import METRICS, figures
from pipelines.evidence.outcomes import Outcome
from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.prediction import ensemble
from pipelines.profile import Params


def evaluate(
    params: Params, method: str, folder: Path, out: Path | None = None, *, pattern: str | None = None,
    follow_links: bool = False, seeds: Sequence[int] | None = None, device: str | None = None, merged: bool = True,
) -> int:  # fmt: skip
    """Print a table, and write it to `out` where one is named: a row a seed and, of several, one of their ensemble.

    Columns: method, network (seed N, or ensemble), images, patients (empty where names tell none), and each of
    `METRICS` with _lo and _hi, a 95 % interval over new patients (`pipelines.evidence.stats`), the network as it is.
    Returns how many files could not be read; each was told on stderr.

    Args:
        folder: class folders, or a CSV file as `data.manifest.path`; the classes must be the networks'.
        pattern: reads patients from file names; by default the profile's, where both are folders; "" reads none, and
            every image counts as a patient. follow_links: whether links may lead out of the folder.

    Raises:
        UserError: the folder cannot be listed, has other classes, or no readable image; or see `ensemble.load`.
    """
    if not folder.expanduser().exists():
        raise UserError(f"--folder: {folder}: no such folder; expected one with a subfolder a class, or a CSV file")
    networks = ensemble.load(params, method, seeds, device, merged=merged)
    listing = external.listed(
        folder, networks.classes, pattern, params.data.pattern, follow_links, "--folder", "--pattern"
    )
    places, each = ensemble.predict(networks, listing.files)
    if not len(places):
        raise UserError(f"--folder: {folder}: none of its {len(listing.files)} images can be read")
    tested = {f"seed {seed}": own for seed, own in zip(networks.seeds, each, strict=True)}
    if len(tested) > 1:
        tested["ensemble"] = each.mean(0)
    known = listing.patients is not None
    owners, units = np.unique(listing.patients[places] if known else places, return_inverse=True)
    table = pd.DataFrame({"method": method, "network": list(tested), "images": len(places)})
    table["patients"] = len(owners) if known else None
    found = [
        Outcome(method, -1, places, listing.labels[places], probabilities, units, len(owners), known, 0)
        for probabilities in tested.values()
    ]
    table = table.join(pd.DataFrame([figures([outcome]) for outcome in found]))
    whose = f"{len(owners)} patients" if known else "patients not known: every image counts as one"
    print(f"{method} on {folder}: {len(places)} images, {whose}; 95 % intervals")
    shown = {metric.replace("_", " "): table.apply(_with_interval, axis=1, metric=metric) for metric in METRICS}
    print(table[["network"]].assign(**shown).to_string(index=False))
    if out is not None:
        records.write_csv(out, table)
    return len(listing.files) - len(places)


def _with_interval(row: pd.Series, metric: str) -> str:
    """An AUC of 1 has no interval."""
    value, lo, hi = row[[metric, f"{metric}_lo", f"{metric}_hi"]]
    return f"{value:.3f}" if np.isnan(lo) else f"{value:.3f} ({lo:.3f} to {hi:.3f})"
