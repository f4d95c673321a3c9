"""What `pipelines.summarise` writes of a profile's cells, which that module lists file by file."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipelines import comparisons, robustness, scores, shares, stability
from pipelines.cells import (
    CURVE_COLUMNS,
    SummaryError,
    add_units,
    check_same_settings,
    common_classes,
    get,
    read_cells,
)
from pipelines.params import Params
from pipelines.records import read_json, write_atomically, write_json

ENVIRONMENT = (
    "python", "torch", "torchvision", "platform", "cpu", "threads", "gpu", "driver", "cuda", "commit",
    "dirty", "date",
)  # fmt: skip


def summarise(params: Params) -> dict[str, dict]:
    """Read every cell of the profile, write the summary files, return the content of summary.json.

    Raises:
        SummaryError: a cell is missing, failed or malformed and `allow_missing` is off; seeds of one arm were run
            with different settings; or arms to be compared were tested on different images.
    """
    cells, holes = read_cells(params)
    comparisons.measure(cells, add_units(params, cells))
    rows = [
        _row(params, arm, seed, cells.get((arm, seed)), holes.get((arm, seed)))
        for arm in params.arm
        for seed in params.seeds
    ]
    by_arm = {arm: [cells[arm, seed] for seed in params.seeds if (arm, seed) in cells] for arm in params.arm}
    for arm, own in by_arm.items():
        check_same_settings(arm, own)
    classes = common_classes(cells)
    summary = {arm: arm_summary(own) for arm, own in by_arm.items()}
    compared, mcnemar = comparisons.compare(params, by_arm)
    ranked = comparisons.of_largest_share({arm: shares.settings_of(params, arm) for arm in by_arm})
    frames = {
        "cells": pd.DataFrame(rows).astype({name: "Int64" for name in _INTEGERS}),
        "curves": pd.concat([cell["curves"].assign(arm=arm, seed=seed) for (arm, seed), cell in cells.items()])[
            ["arm", "seed", *CURVE_COLUMNS]
        ]
        if cells
        else pd.DataFrame(columns=["arm", "seed", *CURVE_COLUMNS]),
        "confusion": pd.DataFrame(_confusion(by_arm, classes), columns=["arm", "true", "predicted", "count"]),
        "tuning": pd.DataFrame(_tuning(params), columns=["arm", "lr", "val_acc", "val_loss", "chosen", "failure"]),
        "comparisons": pd.DataFrame(compared, columns=comparisons.COLUMNS).astype({"mcnemar_seeds": "Int64"}),
        "mcnemar": pd.DataFrame(mcnemar, columns=comparisons.MCNEMAR_COLUMNS),
        "ranks": pd.DataFrame(comparisons.rank({arm: by_arm[arm] for arm in ranked}), columns=comparisons.RANK_COLUMNS),
        "labels": shares.frame(params, by_arm, summary),
        "scores": scores.frame(cells),
        "class_scores": scores.class_frame(cells, classes),
        "reliability": scores.reliability_frame(cells),
        "stability": stability.frame(cells),
        "robustness": robustness.frame(params, cells),
    }
    for name, frame in frames.items():
        text = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomically(params.results_dir / f"{name}.csv", lambda file, text=text: file.write(text.encode()))
    write_json(params.results_dir / "summary.json", summary)
    print(f"{len(cells)} of {len(rows)} cells summarised in {params.results_dir}")
    if holes:
        print(
            "holes (reasons in cells.csv): "
            + ", ".join(f"{arm} seed {seed} {why['status']}" for (arm, seed), why in holes.items())
        )
    return summary


def _tuning(params: Params) -> list[dict]:
    """The trials that `pipelines.tune` recorded; none where the profile does not tune or an arm states its rate."""
    rows = []
    for arm in filter(params.tuned, params.arm):
        path = params.tune_file(arm)
        command = f"`python -m pipelines.tune --arm {arm}`"
        if not path.exists():
            if params.allow_missing:
                continue
            raise SummaryError(f"{path}: no such file; run {command}")
        tuned = read_json(path, f"delete it and run {command}")
        try:
            trials = [
                {name: trial[name] for name in ("lr", "val_acc", "val_loss", "failure")} for trial in tuned["trials"]
            ]
            rows += [{"arm": arm, "chosen": trial["lr"] == tuned["chosen"], **trial} for trial in trials]
        except (KeyError, TypeError) as error:
            raise SummaryError(f"{path}: not a tuning record ({error!r}); delete it and run {command}") from None
    return rows


def arm_summary(cells: list[dict]) -> dict:
    """One arm's figures over its seeds: means, sample standard deviations, 95 % intervals (see `stats`), costs."""
    if not cells:
        return {**dict.fromkeys(_SUMMARY), "seeds": 0}
    acc, auc = (np.array([cell["figures"][metric][0] for cell in cells]) for metric in ("accuracy", "macro_auc"))
    found = comparisons.estimate(cells, "accuracy")
    acc_lo, acc_hi = found.share_interval(counted=True)
    auc_lo, auc_hi = comparisons.estimate(cells, "macro_auc").share_interval()
    epoch_s = [s for cell in cells if (s := get(cell, "timings.epoch_s")) is not None]
    several = len(cells) > 1
    values = {
        "acc_mean": acc.mean(),
        "acc_sd": acc.std(ddof=1) if several else None,
        "acc_lo": acc_lo,
        "acc_hi": acc_hi,
        "acc_se_images": found.unit_var**0.5,
        "acc_max": acc.max(),
        "auc_mean": auc.mean(),
        "auc_sd": auc.std(ddof=1) if several else None,
        "auc_lo": auc_lo,
        "auc_hi": auc_hi,
        "trainable": cells[0]["parameters"]["trainable"],
        "total": cells[0]["parameters"]["total"],
        "flops": next((n for cell in cells if (n := get(cell, "parameters.flops")) is not None), None),
        "epoch_s": np.median(epoch_s) if epoch_s else None,
        "best_epoch_mean": np.mean([cell["metrics"]["best_epoch"] for cell in cells]),
        "lr": get(cells[0], "settings.train.lr"),
        "seeds": len(cells),
    }
    return {name: _plain(values[name]) for name in (*_SUMMARY, "seeds")}


_SUMMARY = (
    "acc_mean",
    "acc_sd",
    "acc_lo",
    "acc_hi",
    "acc_se_images",
    "acc_max",
    "auc_mean",
    "auc_sd",
    "auc_lo",
    "auc_hi",
    "trainable",
    "total",
    "flops",
    "epoch_s",
    "best_epoch_mean",
    "lr",
)


def _confusion(by_arm: dict[str, list[dict]], classes: list[str]) -> list[tuple]:
    rows = []
    for arm, cells in by_arm.items():
        table = np.zeros((len(classes), len(classes)), np.int64)
        for cell in cells:
            np.add.at(table, (cell["labels"], cell["probabilities"].argmax(1)), 1)
        if cells:
            rows += [(arm, classes[i], classes[j], int(n)) for (i, j), n in np.ndenumerate(table)]
    return rows


_CELL_COLUMNS = {
    "weights_sha256": "settings.weights_sha256",
    "lr": "settings.train.lr",
    "epochs": "settings.train.epochs",
    "best_epoch": "metrics.best_epoch",
    **{f"{split}_{name}": f"metrics.{split}.{name}" for split in ("val", "test") for name in ("acc", "auc", "loss")},
    "trainable": "parameters.trainable",
    "total": "parameters.total",
    "flops": "parameters.flops",
    "epoch_s": "timings.epoch_s",
    "total_s": "timings.total_s",
    "n_train": "data.train",
    "n_val": "data.val",
    "n_test": "data.test",
    "fingerprint": "fingerprint",
}
_INTEGERS = (
    "epochs", "best_epoch", "trainable", "total", "flops", "n_train", "n_val", "n_test", "n_test_patients", "threads",
)  # fmt: skip


def _row(params: Params, arm: str, seed: int, cell: dict | None, hole: dict | None) -> dict:
    settings = cell["settings"] if cell else params.settings(arm)
    row = {
        "arm": arm,
        "seed": seed,
        "status": "complete" if cell else hole["status"],
        **{key: settings.get(key) for key in ("family", "backbone")},
        # As in the records: a hole's settings still say where on this machine the file lies.
        "weights": Path(settings["weights"]).name if settings.get("weights") else None,
    }
    row |= {name: get(cell, key) if cell else None for name, key in _CELL_COLUMNS.items()}
    row["n_test_patients"] = cell["patients"] if cell else None
    if cell:
        row["test_auc"] = cell["test_auc"]  # from the predictions, as in summary.json
    row |= {name: cell["environment"].get(name) if cell else None for name in ENVIRONMENT}
    # Of a message over several lines the first says what happened.
    return row | {"failure": hole["failure"].splitlines()[0] if hole and hole["failure"] else None}


def _plain(value):
    """A JSON value with six significant digits; NaN, which JSON lacks, becomes null."""
    if value is None or isinstance(value, int):
        return value
    return None if np.isnan(value) else float(f"{value:.6g}")
