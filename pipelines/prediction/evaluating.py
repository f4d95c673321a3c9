"""A method's trained networks on labelled images: accuracy, balanced accuracy and AUC, with intervals."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.data import external
from pipelines.evidence import outcomes
from pipelines.evidence.external import METRICS, figures
from pipelines.evidence.outcomes import Outcome
from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.prediction import ensemble
from pipelines.profile import Params

ENSEMBLE = "ensemble"


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
        pattern: reads patients from file names; by default the profile's, where its data are a folder; "" reads none,
            and every image counts as a patient. follow_links: whether links may lead out of the folder.

    Raises:
        UserError: the folder cannot be listed, has other classes, or no readable image; or see `ensemble.load`.
    """
    if not folder.expanduser().exists():
        raise UserError(f"--folder: {folder}: no such folder; expected one with a subfolder a class, or a CSV file")
    networks = ensemble.load(params, method, seeds, device, merged=merged)
    if pattern is None and params.data.source == "folder":
        pattern = params.data.folder.pattern
    listing = external.listed(folder, networks.classes, pattern or None, follow_links, "--folder", "--pattern")
    places, each = ensemble.predict(networks, listing.files)
    if not len(places):
        raise UserError(f"--folder: {folder}: none of its {len(listing.files)} images can be read")
    tested = {f"seed {seed}": own for seed, own in zip(networks.seeds, each, strict=True)}
    if len(tested) > 1:
        tested[ENSEMBLE] = each.mean(0)
    owners = places if listing.patients is None else listing.patients[places]
    units = np.unique(owners, return_inverse=True)[1]
    rows = []
    for name, probabilities in tested.items():
        known = listing.patients is not None
        outcome = Outcome(
            method, -1, places, listing.labels[places], probabilities, units, int(units.max()) + 1, known, 0
        )
        row = {"method": method, "network": name, "images": len(places)}
        row["patients"] = outcomes.count_patients([outcome])
        rows.append(row | figures([outcome]))
    _tell(rows, folder)
    if out is not None:
        records.write_csv(out, pd.DataFrame(rows))
    return len(listing.files) - len(places)


def _tell(rows: list[dict], folder: Path) -> None:
    first = rows[0]
    known = first["patients"] is not None
    whose = f"{first['patients']} patients" if known else "patients not known: every image counts as one"
    print(f"{first['method']} on {folder}: {first['images']} images, {whose}; 95 % intervals")
    shown = [
        {"network": row["network"]}
        | {
            metric.replace("_", " "): _with_interval(row[metric], row[f"{metric}_lo"], row[f"{metric}_hi"])
            for metric in METRICS
        }
        for row in rows
    ]
    print(pd.DataFrame(shown).to_string(index=False))


def _with_interval(value: float, lo: float, hi: float) -> str:
    """An AUC of 1 has no interval."""
    return f"{value:.3f}" if np.isnan(lo) else f"{value:.3f} ({lo:.3f} to {hi:.3f})"
