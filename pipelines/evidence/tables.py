"""What the runs recorded, as tables: rows of runs.csv, curves.csv, tuning.csv and confusion.csv."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from pipelines.evidence import outcomes as tests
from pipelines.evidence.outcomes import Outcome
from pipelines.files.errors import UserError
from pipelines.files.records import read_json
from pipelines.profile import Params
from pipelines.runs.reading import get
from pipelines.training import trials

ENVIRONMENT = (
    "python", "torch", "torchvision", "platform", "cpu", "threads", "gpu", "driver", "cuda", "commit", "dirty", "date",
)  # fmt: skip
EVERY_RUN = {
    **{name: name for name in ("method", "seed", "fingerprint")},
    **{name: f"settings.{name}" for name in ("family", "backbone", "weights", "weights_sha256")},
    "lr": "settings.train.lr",
    "epochs": "settings.train.epochs",
    "best_epoch": "metrics.best_epoch",
    **{f"{split}_{name}": f"metrics.{split}.{name}" for split in ("val", "test") for name in ("acc", "auc", "loss")},
    **{name: f"parameters.{name}" for name in ("trainable", "total", "flops")},
    **{name: f"timings.{name}" for name in ("epoch_s", "total_s")},
    **{f"n_{split}": f"data.{split}" for split in ("train", "val", "test")},
    **{name: f"environment.{name}" for name in ENVIRONMENT},
}


def run_rows(params: Params, runs: dict, holes: dict, test: dict[str, list[Outcome]]) -> list[dict]:
    """Rows of runs.csv, in the order of the profile."""
    found = []
    for method in params.method:
        outcomes = {own.seed: own for own in test[method]}
        for seed in sorted(seed for name, seed in {**runs, **holes} if name == method):
            if (method, seed) in runs:
                found.append(_run_row(runs[method, seed], outcomes[seed]))
            else:
                about = {"method": method, "seed": seed, **holes[method, seed]}
                found.append(_hole_row(params.settings(method), about))
    return found


def _run_row(run: dict, outcome: Outcome) -> dict:
    row = {name: get(run, key) for name, key in EVERY_RUN.items()}
    return row | {
        "status": "complete", "train_acc": train_accuracy([run]), "n_test_patients": tests.count_patients([outcome]),
        "test_auc": outcome.figure("auc")[0],  # from the predictions, as in summary.json
    }  # fmt: skip


def _hole_row(settings: dict, hole: dict) -> dict:
    row = hole | {name: settings.get(name) for name in ("family", "backbone", "weights")}
    if row["weights"]:  # as in the records; a hole's settings still say where on this machine the file lies
        row["weights"] = Path(row["weights"]).name
    row["failure"] = row["failure"].splitlines()[0]  # of several lines the first says what happened
    return row


def curves(runs: dict) -> pd.DataFrame:
    """Rows of curves.csv: every run's learning curve."""
    parts = [run["curves"].assign(method=method, seed=seed) for (method, seed), run in runs.items()]
    return pd.concat(parts) if parts else pd.DataFrame()


def tuning(params: Params) -> list[dict]:
    """The rates that `pipelines.tune` tried; none where the profile does not tune or a method states its rate."""
    rows = []
    for method in filter(params.tuned, params.method):
        path = params.tune_file(method)
        command = f"`python -m pipelines.tune --method {method}`"
        if not path.exists():
            if params.allow_missing:
                continue
            raise UserError(f"{path}: no such file; run {command}")
        tuned = read_json(path, f"delete it and run {command}")
        try:
            if tuned["trials"] and tuned["seeds"] != params.tune.seeds:
                raise UserError(
                    f"{path}: tuned on seeds {tuned['seeds']}, where tune.seeds has {params.tune.seeds}; run {command}"
                )
            rates = trials.standing(tuned["trials"])
            rows += [{"method": method, "chosen": rate["lr"] == tuned["chosen"], **rate} for rate in rates]
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not a tuning record ({error!r}); delete it and run {command}") from None
    return rows


def confusion(test: dict[str, list[Outcome]], classes: list[str]) -> list[dict]:
    """Rows of confusion.csv: test images by true and predicted class, summed over runs."""
    rows = []
    for method, outcomes in test.items():
        if outcomes:
            every = range(len(classes))
            table = sum(confusion_matrix(own.labels, own.probabilities.argmax(1), labels=every) for own in outcomes)
            rows += [
                {"method": method, "true": classes[i], "predicted": classes[j], "count": int(count)}
                for (i, j), count in np.ndenumerate(table)
            ]
    return rows


def train_accuracy(runs: list[dict]) -> float:
    """Training accuracy in the tested epoch, mean over runs."""
    return float(np.mean([run["curves"].train_acc[run["metrics"]["best_epoch"] - 1] for run in runs]))
