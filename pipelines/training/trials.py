"""The trials of a method's learning rate: short runs on one seed, and the choice by their validation score."""

import math
from pathlib import Path

from pipelines.data import prepared
from pipelines.files.errors import UserError
from pipelines.profile import Params, Train, train_split
from pipelines.runs.environment import environment
from pipelines.runs.identity import fingerprint


def choose(params: Params, method: str, device: str | None = None) -> dict:
    """Train a trial at every rate of `tune.lrs`; returns the record of them and of the choice.

    The rate chosen has the best validation score (`train.select`; ties: the lower loss). While it is the lowest or the
    highest of those tried, one more is tried beyond it, in the steps of the grid there (tenfold at most),
    `tune.widen` times at most.

    Raises:
        UserError: no trial had an end: each diverged or did not fit the memory.
    """
    settings, grid = params.settings(method), params.tune
    select, trials = settings["train"]["select"], []
    epochs = grid.epochs_of(settings["train"]["epochs"])
    waiting, widened = list(grid.lrs), 0
    while waiting:
        lr = waiting.pop(0)
        trial = _trial(params, method, {**settings["train"], "epochs": epochs, "lr": lr}, settings, device)
        told = trial["failure"] or f"validation accuracy {trial['val_acc']:.4f}"
        print(f"{method} tuning: lr {lr:g}: {told}", flush=True)
        trials.append(trial)
        if not waiting and widened < grid.widen and (more := beyond(trials, select)) is not None:
            waiting.append(more)
            widened += 1
    done = [trial for trial in trials if trial["failure"] is None]
    if not done:
        raise UserError(
            f"tune.lrs {grid.lrs}: no trial of {method} came to an end ({trials[0]['failure']}); add smaller rates, or "
            "set train.micro_batch where memory was short"
        )
    return {
        "fingerprint": identity(params, method), "method": method, "seed": grid.seed, "epochs": epochs,
        "chosen": best(trials, select)["lr"], "trials": trials,
        "environment": environment(device),
    }  # fmt: skip


def best(trials: list[dict], select: str) -> dict | None:
    """The trial of best validation score, ties by the lower loss; None where none had an end."""

    def merit(trial):
        return (-trial["val_loss"],) if select == "loss" else (trial[f"val_{select}"], -trial["val_loss"])

    return max((trial for trial in trials if trial["failure"] is None), key=merit, default=None)


def beyond(trials: list[dict], select: str) -> float | None:
    """The rate to try next where the best one is at an edge of those tried; None where it is not, or is alone."""
    chosen, rates = best(trials, select), sorted(trial["lr"] for trial in trials)
    if chosen is None or len(rates) < 2 or chosen["lr"] not in (rates[0], rates[-1]):
        return None
    step = min(rates[1] / rates[0] if chosen["lr"] == rates[0] else rates[-1] / rates[-2], 10)
    more = chosen["lr"] / step if chosen["lr"] == rates[0] else chosen["lr"] * step
    return float(f"{more:.3g}") if math.isfinite(more) and more > 0 else None


def identity(params: Params, method: str) -> str:
    """The fingerprint of a method's trials: settings, grid, data and code, this file included."""
    settings, grid = params.settings(method), params.tune
    settings["train"] |= {"epochs": grid.epochs_of(settings["train"]["epochs"]), "lr": [grid.lrs, grid.widen]}
    data = prepared.identity(params.data_dir, grid.seed, train_split(settings["train"]))
    return fingerprint(settings, grid.seed, data, Path(__file__).resolve())


def _trial(params: Params, method: str, train: dict, settings: dict, device: str | None) -> dict:
    import torch

    from pipelines.training import loop
    from pipelines.training.loaders import make_loaders
    from pipelines.training.starting import set_up

    seed, recipe = params.tune.seed, Train.model_validate(train)
    names = ("val_acc", "val_balanced_acc", "val_auc", "val_loss", "best_epoch")
    trial = {"lr": recipe.lr, **dict.fromkeys(names), "failure": None}
    try:
        device, data, _, model = set_up(params, method, seed, settings, device)
        fit = loop.fit(model, make_loaders(model, data, recipe, device), recipe, seed=seed, device=device)
    except loop.Diverged as error:
        return {**trial, "failure": str(error)}
    except torch.OutOfMemoryError as error:
        return {**trial, "failure": f"out of memory ({str(error).splitlines()[0]})"}
    row = fit.curves[fit.best_epoch - 1]
    return {**trial, **{name: row[name] for name in names[:-1]}, "best_epoch": fit.best_epoch}
