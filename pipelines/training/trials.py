"""The trials of a method's learning rate: short runs on one seed, and the choice by their validation accuracy."""

from pathlib import Path

from pipelines.data import prepared
from pipelines.profile import Params, train_split
from pipelines.runs.environment import environment
from pipelines.runs.identity import fingerprint


def choose(params: Params, method: str, device: str | None = None) -> dict:
    """Train a trial at every rate of `tune.lrs`; returns the record of them and of the choice.

    The rate chosen has the best validation accuracy (ties: the lower loss).

    Raises:
        ValueError: training diverged at every rate.
    """
    settings, grid = params.settings(method), params.tune
    trials = []
    for lr in grid.lrs:
        trial = _trial(params, method, {**settings["train"], "epochs": grid.epochs, "lr": lr}, settings, device)
        result = trial["failure"] or f"validation accuracy {trial['val_acc']:.4f}"
        print(f"{method} tuning: lr {lr:g}: {result}", flush=True)
        trials.append(trial)
    done = [trial for trial in trials if trial["failure"] is None]
    if not done:
        raise ValueError(f"training diverged at every learning rate of tune.lrs {grid.lrs}; add smaller ones")
    return {
        "fingerprint": identity(params, method), "method": method, "seed": grid.seed, "epochs": grid.epochs,
        "chosen": max(done, key=lambda t: (t["val_acc"], -t["val_loss"]))["lr"],
        "trials": trials, "environment": environment(settings["family"]),
    }  # fmt: skip


def identity(params: Params, method: str) -> str:
    """The fingerprint of a method's trials: settings, grid, data and code, this file included."""
    settings, grid = params.settings(method), params.tune
    settings["train"] |= {"epochs": grid.epochs, "lr": grid.lrs}
    data = prepared.identity(params.data_dir, grid.seed, train_split(settings["train"]))
    return fingerprint(settings, grid.seed, data, Path(__file__).resolve())


def _trial(params, method, train, settings, device) -> dict:
    from pipelines.training import loop
    from pipelines.training.runner import set_up

    seed = params.tune.seed
    device, data, model = set_up(params, method, seed, settings, device)
    trial = {"lr": train["lr"], "val_acc": None, "val_loss": None, "best_epoch": None, "failure": None}
    try:
        fit = loop.fit(model, data, train, seed=seed, device=device)
    except loop.Diverged as error:
        return {**trial, "failure": str(error)}
    best = fit.curves[fit.best_epoch - 1]
    return {**trial, "val_acc": best["val_acc"], "val_loss": best["val_loss"], "best_epoch": fit.best_epoch}
