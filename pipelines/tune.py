"""Choose an arm's learning rate on the validation split: the same grid, epochs and seed for every arm.

Every trial is recorded in `results/<profile>/tune/<arm>.json`. The tuning seed's test images are never looked at; where
the data have folds only that seed's are unseen, for other seeds' test images are among those tuned on. An arm that
states its rate, or a profile without a `tune` section, is recorded as such. Run `python -m pipelines.tune --arm NAME`.
"""

import argparse
import sys
from pathlib import Path

from pipelines import records
from pipelines.params import Params, ParamsError, load


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.tune", description=__doc__)
    parser.add_argument("--arm", required=True, help="an arm of the profile")
    parser.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N; default: the GPU if there is one")
    args = parser.parse_args(argv)
    try:
        run(load(args.profile_file), args.arm, args.device)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {args.arm}: {error}", file=sys.stderr)
        return 1
    return 0


def run(params: Params, arm: str, device: str | None = None) -> dict:
    """Train the arm's trials unless they are recorded, and record the choice; returns the record.

    The rate chosen has the best validation accuracy (ties: the lower loss).

    Raises:
        ValueError: training diverged at every rate.
        ParamsError: the arm's section is wrong.
    """
    settings = params.settings(arm)
    path = params.tune_file(arm)
    if not params.tuned(arm):
        stated = {"fingerprint": None, "arm": arm, "seed": None, "epochs": None, "chosen": None, "trials": []}
        records.write_json(path, stated)
        print(f"{arm}: learning rate {settings['train']['lr']:g}, as the profile states")
        return stated
    grid, identity = params.tune, _identity(params, arm)
    stored = _read(path)
    if stored and stored.get("fingerprint") == identity:
        print(f"{arm}: tuned, kept")
        return stored
    trials = []
    for lr in grid.lrs:
        trial = _trial(params, arm, {**settings["train"], "epochs": grid.epochs, "lr": lr}, settings, device)
        result = trial["failure"] or f"validation accuracy {trial['val_acc']:.4f}"
        print(f"{arm} tuning: lr {lr:g}: {result}", flush=True)
        trials.append(trial)
    done = [trial for trial in trials if trial["failure"] is None]
    if not done:
        raise ValueError(f"training diverged at every learning rate of tune.lrs {grid.lrs}; add smaller ones")
    record = {
        "fingerprint": identity, "arm": arm, "seed": grid.seed, "epochs": grid.epochs,
        "chosen": max(done, key=lambda t: (t["val_acc"], -t["val_loss"]))["lr"],
        "trials": trials, "environment": records.environment(settings["family"]),
    }  # fmt: skip
    records.write_json(path, record)
    return record


def chosen_lr(params: Params, arm: str) -> float:
    """The recorded choice for a tuned arm.

    Raises:
        ParamsError: none is recorded for these settings, data and code.
    """
    path = params.tune_file(arm)
    stored = _read(path)
    if not stored or stored.get("fingerprint") != _identity(params, arm):
        found = "was made with other settings, data or code" if stored else "is not there"
        raise ParamsError(f"{path} {found}; run `python -m pipelines.tune --arm {arm}` first")
    return stored["chosen"]


def _read(path: Path) -> dict | None:
    return records.read_json(path, "delete it and tune again") if path.exists() else None


def _identity(params: Params, arm: str) -> str:
    settings, grid = params.settings(arm), params.tune
    settings["train"] |= {"epochs": grid.epochs, "lr": grid.lrs}
    data = records.data_identity(params.data_dir, grid.seed)
    return records.fingerprint(settings, grid.seed, data, Path(__file__).resolve())


def _trial(params, arm, train, settings, device) -> dict:
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


if __name__ == "__main__":
    sys.exit(main())
