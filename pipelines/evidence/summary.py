"""What `pipelines.summarise` writes of a profile's runs, which that module lists file by file."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.evidence import comparisons, robustness, scores, shares, stability
from pipelines.files.records import read_json, write_atomically, write_json
from pipelines.profile import Params
from pipelines.runs.reading import (
    CURVE_COLUMNS,
    SummaryError,
    add_units,
    check_same_settings,
    common_classes,
    get,
    read_runs,
)

ENVIRONMENT = (
    "python", "torch", "torchvision", "platform", "cpu", "threads", "gpu", "driver", "cuda", "commit",
    "dirty", "date",
)  # fmt: skip


def summarise(params: Params) -> dict[str, dict]:
    """Read every run of the profile, write the summary files, return the content of summary.json.

    Raises:
        SummaryError: a run is missing, failed or malformed and `allow_missing` is off; seeds of one method were run
            with different settings; or methods to be compared were tested on different images.
    """
    runs, holes = read_runs(params)
    comparisons.measure(runs, add_units(params, runs))
    rows = [
        _row(params, method, seed, runs.get((method, seed)), holes.get((method, seed)))
        for method in params.method
        for seed in params.seeds
    ]
    by_method = {
        method: [runs[method, seed] for seed in params.seeds if (method, seed) in runs] for method in params.method
    }
    for method, own in by_method.items():
        check_same_settings(method, own)
    classes = common_classes(runs)
    summary = {method: method_summary(own) for method, own in by_method.items()}
    compared, mcnemar = comparisons.compare(params, by_method)
    ranked = comparisons.of_largest_share({method: shares.settings_of(params, method) for method in by_method})
    frames = {
        "runs": pd.DataFrame(rows).astype({name: "Int64" for name in _INTEGERS}),
        "curves": pd.concat([run["curves"].assign(method=method, seed=seed) for (method, seed), run in runs.items()])[
            ["method", "seed", *CURVE_COLUMNS]
        ]
        if runs
        else pd.DataFrame(columns=["method", "seed", *CURVE_COLUMNS]),
        "confusion": pd.DataFrame(_confusion(by_method, classes), columns=["method", "true", "predicted", "count"]),
        "tuning": pd.DataFrame(_tuning(params), columns=["method", "lr", "val_acc", "val_loss", "chosen", "failure"]),
        "comparisons": pd.DataFrame(compared, columns=comparisons.COLUMNS).astype({"mcnemar_seeds": "Int64"}),
        "mcnemar": pd.DataFrame(mcnemar, columns=comparisons.MCNEMAR_COLUMNS),
        "ranks": pd.DataFrame(
            comparisons.rank({method: by_method[method] for method in ranked}), columns=comparisons.RANK_COLUMNS
        ),
        "labels": shares.frame(params, by_method, summary),
        "scores": scores.frame(runs),
        "class_scores": scores.class_frame(runs, classes),
        "reliability": scores.reliability_frame(runs),
        "stability": stability.frame(runs),
        "robustness": robustness.frame(params, runs),
    }
    for name, frame in frames.items():
        text = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomically(params.results_dir / f"{name}.csv", lambda file, text=text: file.write(text.encode()))
    write_json(params.results_dir / "summary.json", summary)
    print(f"{len(runs)} of {len(rows)} runs summarised in {params.results_dir}")
    if holes:
        print(
            "holes (reasons in runs.csv): "
            + ", ".join(f"{method} seed {seed} {why['status']}" for (method, seed), why in holes.items())
        )
    return summary


def _tuning(params: Params) -> list[dict]:
    """The trials that `pipelines.tune` recorded; none where the profile does not tune or a method states its rate."""
    rows = []
    for method in filter(params.tuned, params.method):
        path = params.tune_file(method)
        command = f"`python -m pipelines.tune --method {method}`"
        if not path.exists():
            if params.allow_missing:
                continue
            raise SummaryError(f"{path}: no such file; run {command}")
        tuned = read_json(path, f"delete it and run {command}")
        try:
            trials = [
                {name: trial[name] for name in ("lr", "val_acc", "val_loss", "failure")} for trial in tuned["trials"]
            ]
            rows += [{"method": method, "chosen": trial["lr"] == tuned["chosen"], **trial} for trial in trials]
        except (KeyError, TypeError) as error:
            raise SummaryError(f"{path}: not a tuning record ({error!r}); delete it and run {command}") from None
    return rows


def method_summary(runs: list[dict]) -> dict:
    """One method's figures over its seeds: means, sample standard deviations, 95 % intervals (see `stats`), costs."""
    if not runs:
        return {**dict.fromkeys(_SUMMARY), "seeds": 0}
    acc, auc = (np.array([run["figures"][metric][0] for run in runs]) for metric in ("accuracy", "macro_auc"))
    found = comparisons.estimate(runs, "accuracy")
    acc_lo, acc_hi = found.share_interval(counted=True)
    auc_lo, auc_hi = comparisons.estimate(runs, "macro_auc").share_interval()
    epoch_s = [s for run in runs if (s := get(run, "timings.epoch_s")) is not None]
    several = len(runs) > 1
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
        "trainable": runs[0]["parameters"]["trainable"],
        "total": runs[0]["parameters"]["total"],
        "flops": next((n for run in runs if (n := get(run, "parameters.flops")) is not None), None),
        "epoch_s": np.median(epoch_s) if epoch_s else None,
        "best_epoch_mean": np.mean([run["metrics"]["best_epoch"] for run in runs]),
        "lr": get(runs[0], "settings.train.lr"),
        "seeds": len(runs),
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


def _confusion(by_method: dict[str, list[dict]], classes: list[str]) -> list[tuple]:
    rows = []
    for method, runs in by_method.items():
        table = np.zeros((len(classes), len(classes)), np.int64)
        for run in runs:
            np.add.at(table, (run["labels"], run["probabilities"].argmax(1)), 1)
        if runs:
            rows += [(method, classes[i], classes[j], int(n)) for (i, j), n in np.ndenumerate(table)]
    return rows


_RUN_COLUMNS = {
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


def _row(params: Params, method: str, seed: int, run: dict | None, hole: dict | None) -> dict:
    settings = run["settings"] if run else params.settings(method)
    row = {
        "method": method,
        "seed": seed,
        "status": "complete" if run else hole["status"],
        **{key: settings.get(key) for key in ("family", "backbone")},
        # As in the records: a hole's settings still say where on this machine the file lies.
        "weights": Path(settings["weights"]).name if settings.get("weights") else None,
    }
    row |= {name: get(run, key) if run else None for name, key in _RUN_COLUMNS.items()}
    row["n_test_patients"] = run["patients"] if run else None
    if run:
        row["test_auc"] = run["test_auc"]  # from the predictions, as in summary.json
    row |= {name: run["environment"].get(name) if run else None for name in ENVIRONMENT}
    # Of a message over several lines the first says what happened.
    return row | {"failure": hole["failure"].splitlines()[0] if hole and hole["failure"] else None}


def _plain(value):
    """A JSON value with six significant digits; NaN, which JSON lacks, becomes null."""
    if value is None or isinstance(value, int):
        return value
    return None if np.isnan(value) else float(f"{value:.6g}")
