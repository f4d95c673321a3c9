"""What the runs recorded, as tables: rows of runs.csv, curves.csv, tuning.csv and confusion.csv."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.evidence import measures
from pipelines.evidence import outcomes as tests
from pipelines.evidence.outcomes import Outcome
from pipelines.files.errors import UserError
from pipelines.files.records import read_json
from pipelines.profile import Params
from pipelines.runs.reading import get
from pipelines.training import trials

EVERY_RUN = {
    "lr": "settings.train.lr",
    "epochs": "settings.train.epochs",
    "weights_sha256": "settings.weights_sha256",
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
ENVIRONMENT = (
    "python", "torch", "torchvision", "platform", "cpu", "threads", "gpu", "driver", "cuda", "commit", "dirty", "date",
)  # fmt: skip


def run_rows(params: Params, runs: dict, holes: dict, test: dict[str, list[Outcome]]) -> list[dict]:
    """Rows of runs.csv, in the order of the profile."""
    found = []
    for method in params.method:
        outcomes = {own.seed: own for own in test[method]}
        for seed in sorted(seed for name, seed in {**runs, **holes} if name == method):
            if (method, seed) in runs:
                found.append(_run_row(runs[method, seed], outcomes[seed]))
            else:
                hole = _hole(params.settings(method), holes[method, seed])
                found.append({"method": method, "seed": seed, **hole})
    return found


def _run_row(run: dict, outcome: Outcome) -> dict:
    row = {"method": run["method"], "seed": run["seed"], "status": "complete"}
    row |= {name: run["settings"].get(name) for name in ("family", "backbone", "weights")}
    row |= {name: get(run, key) for name, key in EVERY_RUN.items()}
    row |= {name: run["environment"].get(name) for name in ENVIRONMENT}
    row["train_acc"] = train_accuracy([run])
    row["test_auc"] = outcome.figure("auc")[0]  # from the predictions, as in summary.json
    return row | {"n_test_patients": tests.count_patients([outcome])}


def _hole(settings: dict, hole: dict) -> dict:
    # As in the records: a hole's settings still say where on this machine the file lies.
    weights = Path(settings["weights"]).name if settings.get("weights") else None
    row = {"status": hole["status"], "family": settings.get("family"), "backbone": settings.get("backbone")}
    # Of a message over several lines the first says what happened.
    return row | {"weights": weights, "failure": hole["failure"].splitlines()[0] if hole["failure"] else None}


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
            table = sum(
                measures.confusion(own.labels, own.probabilities, np.ones((1, len(own.labels))))[0] for own in outcomes
            )
            rows += [
                {"method": method, "true": classes[i], "predicted": classes[j], "count": int(count)}
                for (i, j), count in np.ndenumerate(table)
            ]
    return rows


def train_accuracy(runs: list[dict]) -> float:
    """Training accuracy in the tested epoch, mean over runs."""
    return float(np.mean([run["curves"].train_acc[run["metrics"]["best_epoch"] - 1] for run in runs]))
