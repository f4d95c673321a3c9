"""Choose an arm's learning rate on the validation split: the same grid, epochs and seed for every arm.

All trials are recorded in `results/<profile>/runs/<arm>/tune.json`. The tuning seed's test images are never looked at.
Where the data have folds, only that seed's are unseen: other seeds' test images are among those tuned on. An arm whose
own section sets `train.lr` is not tuned.
"""

from pipelines import records
from pipelines.params import Params


def tuned_lr(params: Params, arm: str, settings: dict, device: str | None = None) -> float:
    """The learning rate with the best validation accuracy (ties: lower loss); trains the trials that are missing."""
    grid = params.tune
    path = params.results_dir / "runs" / arm / "tune.json"
    settings = {**settings, "train": {**settings["train"], "epochs": grid.epochs, "lr": grid.lrs}}
    identity = records.fingerprint(settings, grid.seed, records.data_identity(params.data_dir, grid.seed))
    stored = records.read_json(path, "delete it and tune again") if path.exists() else None
    if not stored or stored.get("fingerprint") != identity:
        trials = []
        for lr in grid.lrs:
            trial = _trial(params, arm, {**settings["train"], "lr": lr}, settings, device)
            print(
                f"{arm} tuning: lr {lr:g}: "
                + (f"validation accuracy {trial['val_acc']:.4f}" if trial["val_acc"] is not None else trial["failure"]),
                flush=True,
            )
            trials.append(trial)
        done = [t for t in trials if t["failure"] is None]
        if not done:
            raise ValueError(
                f"arm {arm!r}: training diverged at every learning rate of tune.lrs {grid.lrs}; add smaller ones"
            )
        chosen = max(done, key=lambda t: (t["val_acc"], -t["val_loss"]))["lr"]
        stored = {
            "fingerprint": identity, "arm": arm, "seed": grid.seed, "epochs": grid.epochs, "chosen": chosen,
            "trials": trials, "environment": records.environment(settings["family"]),
        }  # fmt: skip
        records.write_json(path, stored)
    return stored["chosen"]


def _trial(params, arm, train, settings, device):
    from pipelines import loop
    from pipelines.train import set_up

    seed = params.tune.seed
    device, data, model = set_up(params, arm, seed, settings, device)
    trial = {"lr": train["lr"], "val_acc": None, "val_loss": None, "best_epoch": None, "failure": None}
    try:
        fit = loop.fit(model, data, train, seed=seed, device=device)
    except loop.Diverged as error:
        return {**trial, "failure": str(error)}
    best = fit.curves[fit.best_epoch - 1]
    return {**trial, "val_acc": best["val_acc"], "val_loss": best["val_loss"], "best_epoch": fit.best_epoch}
