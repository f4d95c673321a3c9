"""The trials of a method's learning rate: short runs, and the choice by their validation scores over several seeds."""

import math
import statistics
from pathlib import Path

from pipelines.data import prepared
from pipelines.files.errors import UserError
from pipelines.profile import Params, Train, train_split
from pipelines.runs.environment import environment
from pipelines.runs.identity import fingerprint

SCORES = ("val_acc", "val_balanced_acc", "val_auc", "val_loss")


def choose(params: Params, method: str, device: str | None = None) -> dict:
    """Race the rates of `tune.lrs`; returns the record of all trials and of the choice.

    Every rate is tried on the first of `tune.seeds`. Where others' scores (`train.select`) there are within
    `tune.within` of the best, these and the best are tried on the other seeds too, and the best mean over all is chosen
    (ties: the lower loss).
    While the best rate is the lowest or the highest of those tried, one more is tried beyond it, in the steps of the
    grid there (tenfold at most), `tune.widen` times at most.

    Raises:
        UserError: no trial had an end: each diverged or did not fit the memory.
    """
    settings, grid = params.settings(method), params.tune
    select, trials = settings["train"]["select"], []
    epochs = grid.epochs_of(settings["train"]["epochs"])
    left = grid.widen

    def attempt(rates: list[float], seeds: list[int]) -> None:
        for seed in seeds:
            for lr in rates:
                trial = _trial(
                    params, method, seed, {**settings["train"], "epochs": epochs, "lr": lr}, settings, device
                )
                told = trial["failure"] or f"validation accuracy {trial['val_acc']:.4f}"
                print(f"{method} tuning: lr {lr:g}, seed {seed}: {told}", flush=True)
                trials.append(trial)

    def widen(seeds: list[int]) -> None:
        nonlocal left
        while left and (more := beyond(standing(trials), select)) is not None:
            attempt([more], seeds)
            left -= 1

    first, *others = grid.seeds
    attempt(grid.lrs, [first])
    widen([first])
    near = _near(trials, select, grid.within)
    if others and len(near) > 1:
        attempt(near, others)
        widen(grid.seeds)
    chosen = best(standing(trials), select)
    if chosen is None:
        raise UserError(
            f"tune.lrs {grid.lrs}: no trial of {method} came to an end ({trials[0]['failure']}); add smaller rates, or "
            "set train.micro_batch where memory was short"
        )
    return {
        "fingerprint": identity(params, method), "method": method, "seeds": grid.seeds, "epochs": epochs,
        "chosen": chosen["lr"], "trials": trials,
        "environment": environment(device),
    }  # fmt: skip


def standing(trials: list[dict]) -> list[dict]:
    """A row a rate, in the order they were tried: means over its seeds, how many these are, and its first failure."""
    rows = []
    for lr in dict.fromkeys(trial["lr"] for trial in trials):
        own = [trial for trial in trials if trial["lr"] == lr]
        failure = next((trial["failure"] for trial in own if trial["failure"]), None)
        means = {name: None if failure else statistics.mean(trial[name] for trial in own) for name in SCORES}
        rows.append({"lr": lr, **means, "seeds": len(own), "failure": failure})
    return rows


def best(rows: list[dict], select: str) -> dict | None:
    """The best of `standing`'s rates that were tried on most seeds, ties by the lower loss; None if none had an end."""
    done = [row for row in rows if row["failure"] is None]
    most = max((row["seeds"] for row in done), default=0)
    return max((row for row in done if row["seeds"] == most), key=lambda row: _merit(row, select), default=None)


def beyond(rows: list[dict], select: str) -> float | None:
    """The rate to try next where the best one is at an edge of those tried; None where it is not, or is alone."""
    chosen, rates = best(rows, select), sorted(row["lr"] for row in rows)
    if chosen is None or len(rates) < 2 or chosen["lr"] not in (rates[0], rates[-1]):
        return None
    step = min(rates[1] / rates[0] if chosen["lr"] == rates[0] else rates[-1] / rates[-2], 10)
    more = chosen["lr"] / step if chosen["lr"] == rates[0] else chosen["lr"] * step
    return float(f"{more:.3g}") if math.isfinite(more) and more > 0 else None


def _merit(row: dict, select: str) -> tuple[float, ...]:
    return (-row["val_loss"],) if select == "loss" else (row[f"val_{select}"], -row["val_loss"])


def _near(trials: list[dict], select: str, within: float) -> list[float]:
    """The rates whose score is at most so much worse than the best one; rounding does not count."""
    scores = {trial["lr"]: _merit(trial, select)[0] for trial in trials if trial["failure"] is None}
    return [lr for lr, score in scores.items() if score >= max(scores.values()) - within - 1e-9]


def identity(params: Params, method: str) -> str:
    """The fingerprint of a method's trials: settings, grid, data and code, this file included."""
    settings, grid = params.settings(method), params.tune
    split = train_split(settings["train"])
    race = [grid.lrs, grid.widen, grid.seeds, grid.within]
    settings["train"] |= {"epochs": grid.epochs_of(settings["train"]["epochs"]), "lr": race}
    data = {str(seed): prepared.identity(params.data_dir, seed, split) for seed in grid.seeds}
    return fingerprint(settings, grid.seeds[0], data, Path(__file__).resolve())


def _trial(params: Params, method: str, seed: int, train: dict, settings: dict, device: str | None) -> dict:
    import torch

    from pipelines.training import loop
    from pipelines.training.loaders import make_loaders
    from pipelines.training.starting import set_up

    recipe = Train.model_validate(train)
    trial = {"lr": recipe.lr, "seed": seed, **dict.fromkeys((*SCORES, "best_epoch")), "failure": None}
    try:
        device, data, _, model = set_up(params, method, seed, settings, device)
        fit = loop.fit(model, make_loaders(model, data, recipe, device), recipe, seed=seed, device=device)
    except loop.Diverged as error:
        return {**trial, "failure": str(error)}
    except torch.OutOfMemoryError as error:
        return {**trial, "failure": f"out of memory ({str(error).splitlines()[0]})"}
    row = fit.curves[fit.best_epoch - 1]
    return {**trial, **{name: row[name] for name in SCORES}, "best_epoch": fit.best_epoch}
