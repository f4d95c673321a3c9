"""Read the finished runs of a profile back, and refuse what is not one whole and consistent run."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipelines.files import arrays
from pipelines.files.errors import UserError
from pipelines.profile import Params
from pipelines.profile.base import short
from pipelines.runs import metrics
from pipelines.runs.record import read_record

FLOATS = ("lr", "train_loss", "train_acc", "val_loss", "val_acc", "val_balanced_acc", "val_auc", "epoch_s")
CURVE_COLUMNS = {"epoch": "int64", **dict.fromkeys(FLOATS, "float64")}


def read_runs(params: Params) -> tuple[dict, dict]:
    """Every run of the profile, checked: ({(method, seed): run}, {(method, seed): {"status", "failure"}}).

    A run is its record with "curves" (a frame), "labels" (N,), "probabilities" (N, C) and "indices" (N,) added, the
    last three in ascending order of indices.

    Raises:
        UserError: unless `allow_missing`, the runs that cannot be used, all of them at once.
    """
    runs, holes = {}, {}
    for method in params.method:
        for seed in params.seeds_of(method):
            folder = params.run_dir(method, seed)
            try:
                record = read_record(folder)
                if record is None:
                    holes[method, seed] = {"status": "missing", "failure": f"{folder / 'record.json'} is not there"}
                elif record.status == "failed":
                    holes[method, seed] = {"status": "failed", "failure": record.failure or "it says no more"}
                else:
                    runs[method, seed] = _read_run(folder, record.model_dump(), params, method, seed)
            except UserError as error:
                holes[method, seed] = {"status": "malformed", "failure": str(error)}
    if holes and not params.allow_missing:
        shown = [
            f"  method {method}, seed {seed}: {why['status']}: {why['failure']}\n"
            # What has a record of the right fingerprint would else be kept as complete.
            + (f"    delete {params.run_dir(method, seed)}, then\n" if why["status"] == "malformed" else "")
            + f"    rerun: python -m pipelines.train --method {method} --seed {seed}"
            for (method, seed), why in list(holes.items())[:8]
        ]
        more = f"\n  and {len(holes) - 8} more" if len(holes) > 8 else ""
        raise UserError(
            f"profile {params.profile!r}: {len(holes)} of {len(holes) + len(runs)} runs "
            "cannot be used (set `allow_missing: true` to report them as holes)\n" + "\n".join(shown) + more
        )
    return runs, holes


def _read_run(folder: Path, record: dict, params: Params, method: str, seed: int) -> dict:
    path, classes = folder / "record.json", record["data"]["classes"]
    for key, expected in (("profile", params.profile), ("method", method), ("seed", seed)):
        if record[key] != expected:
            raise UserError(f"{path}: {key} should be {expected!r}, as its folder says; found {short(record[key])}")
    predictions = _read_predictions(folder / "predictions.npz", len(classes))
    labels, probabilities = predictions["labels"], predictions["probabilities"]
    if len(labels) != record["data"]["test"]:
        raise UserError(
            f"{folder / 'predictions.npz'}: {len(labels)} images, but the record says data.test = "
            f"{record['data']['test']}"
        )
    recomputed = metrics.accuracy(labels, probabilities)
    if not abs(recomputed - record["metrics"]["test"]["acc"]) <= 1e-6:
        raise UserError(
            f"{path}: metrics.test.acc is {record['metrics']['test']['acc']}, but predictions.npz gives "
            f"{recomputed}; the two are not of one run"
        )
    external = {
        name: _read_predictions(folder / f"external-{name}.npz", len(classes)) for name in params.data.external_names
    }
    recipe = record["settings"]["train"]
    curves = _read_curves(folder / "curves.csv", recipe["epochs"], recipe.get("patience"))
    best, accuracy = record["metrics"]["best_epoch"], record["metrics"]["val"]["acc"]
    if not 1 <= best <= len(curves) or not abs(curves.val_acc[best - 1] - accuracy) <= 1e-4:
        raise UserError(
            f"{path}: best epoch {best} with validation accuracy {accuracy}, but curves.csv has "
            f"{curves.val_acc.get(best - 1, 'no such epoch')}; the two are not of one run"
        )
    return {
        **record,
        "curves": curves,
        **predictions,
        "external": external,
        "test_auc": metrics.macro_auc(labels, probabilities),
    }


def _read_predictions(path: Path, n_classes: int) -> dict[str, np.ndarray]:
    try:
        found = arrays.read_npz(path, {"indices": "i n", "labels": "i n", "probabilities": f"f n {n_classes}"})
    except arrays.ArrayError as error:
        raise UserError(f"{path}: not readable as an archive of indices, labels and probabilities ({error})") from None
    indices, labels, probabilities = found.values()
    if not len(labels):
        raise UserError(f"{path}: no test image")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise UserError(f"{path}: labels run from {labels.min()} to {labels.max()}; expected 0 to {n_classes - 1}")
    if len(np.unique(indices)) != len(indices):
        raise UserError(f"{path}: a test image occurs twice in indices")
    probabilities = probabilities.astype(np.float64)
    worst = np.abs(probabilities.sum(1) - 1).max()
    if not worst < 1e-4 or probabilities.min() < 0:  # `not <` also catches NaN
        raise UserError(
            f"{path}: rows of probabilities should be positive and sum to 1; the sums are off by {worst:.3g}"
        )
    order = np.argsort(indices)
    return {"indices": indices[order], "labels": labels[order], "probabilities": probabilities[order]}


def _read_curves(path: Path, epochs: int, patience: int | None) -> pd.DataFrame:
    try:
        if path.stat().st_size > arrays.LIMIT:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        frame = pd.read_csv(path, usecols=[*CURVE_COLUMNS], dtype=CURVE_COLUMNS)[[*CURVE_COLUMNS]]
    except Exception as error:  # pandas raises many types for text that is no table
        raise UserError(f"{path}: not readable as CSV ({error})") from None
    whole = len(frame) == epochs or patience is not None and 0 < len(frame) < epochs
    if not whole or frame.epoch.tolist() != list(range(1, len(frame) + 1)) or not np.isfinite(frame).all(axis=None):
        raise UserError(
            f"{path}: {len(frame)} rows, expected finite numbers of epochs 1 to {epochs}; it is cut short or of "
            "another run"
        )
    return frame


def check_same_settings(method: str, runs: list[dict]) -> None:
    """Raises UserError when runs of one method were run with different settings: their mean would mean nothing."""
    for run in runs[1:]:
        for key in ("settings", "parameters"):
            old, new = runs[0][key], run[key]
            differing = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
            if differing:
                raise UserError(
                    f"method {method}: seeds {runs[0]['seed']} and {run['seed']} differ in {key}: "
                    f"{', '.join(differing)}; "
                    f"rerun the older one: python -m pipelines.train --method {method} --seed SEED"
                )


def common_classes(runs: dict) -> list[str]:
    """The class names all runs share; raises UserError when they do not."""
    found = {tuple(map(str, run["data"]["classes"])): key for key, run in runs.items()}
    if len(found) > 1:
        raise UserError(
            "runs have different classes: "
            + "; ".join(f"method {method}, seed {seed}: {', '.join(names)}" for names, (method, seed) in found.items())
        )
    return list(next(iter(found), ()))


def get(record: dict, key: str):
    """The value at a dotted key, or None where a step of the way is absent."""
    value: Any = record
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
