"""Train the cells of an arm, one a seed, at the learning rate that `pipelines.tune` chose or the profile states.

A cell whose record already carries the right fingerprint is left as it is, so this is safe to repeat, and cells
may come from elsewhere. Run `python -m pipelines.train --arm NAME [--seed N]`.
"""

import argparse
import csv
import io
import sys
import time
from pathlib import Path

from pipelines import parameters, records, tune
from pipelines.params import Params, ParamsError, load


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.train", description=__doc__)
    parser.add_argument("--arm", required=True, help="an arm of the profile")
    parser.add_argument(
        "--seed", type=int, action="append", help="a seed (may be repeated); default: all seeds of the profile"
    )
    parser.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N; default: the GPU if there is one")
    args = parser.parse_args(argv)
    try:
        params = load(args.profile_file)
        return run(params, args.arm, args.seed or params.seeds, args.device)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {args.arm}: {error}", file=sys.stderr)
        return 1


def run(params: Params, arm: str, seeds: list[int], device: str | None = None) -> int:
    """Train the missing or stale cells of one arm; 1 if any failed and the profile allows no holes, else 0."""
    unknown = [seed for seed in seeds if seed not in params.seeds]
    if unknown:
        raise ParamsError(
            f"seed {unknown[0]} is not one of profile {params.profile!r}: {params.seeds}; add it to `seeds`"
        )
    settings = params.settings(arm)
    if params.tuned(arm):
        settings["train"]["lr"] = tune.chosen_lr(params, arm)
    failed = 0
    for seed in seeds:
        folder = params.cell_dir(arm, seed)
        fingerprint = records.fingerprint(settings, seed, records.data_identity(params.data_dir, seed))
        if records.is_complete(folder, fingerprint):
            print(f"{arm} seed {seed}: complete, kept")
            continue
        record = train_cell(params, arm, seed, settings, fingerprint, device)
        if record["status"] == "complete":
            test = record["metrics"]["test"]
            print(
                f"{arm} seed {seed}: accuracy {test['acc']:.4f}, AUC {test['auc']:.4f}, "
                f"best epoch {record['metrics']['best_epoch']}, {record['timings']['total_s']:.0f} s",
                flush=True,
            )
        else:
            failed += 1
            print(f"error: {arm} seed {seed}: {record['failure']}", file=sys.stderr)
    return 1 if failed and not params.allow_missing else 0


def train_cell(
    params: Params, arm: str, seed: int, settings: dict, fingerprint: str, device: str | None = None
) -> dict:
    """Train one cell and write its folder; the record is written last. Returns the record."""
    from tqdm import tqdm

    from pipelines import loop

    start = time.perf_counter()
    folder = params.cell_dir(arm, seed)
    train = settings["train"]
    device, data, model = set_up(params, arm, seed, settings, device)
    record = {
        "profile": params.profile, "arm": arm, "seed": seed, "status": "failed", "failure": None,
        "fingerprint": fingerprint, "settings": records.described(settings), "metrics": None,
        "parameters": parameters.count_arm(
            arm, settings, num_classes=len(data.classes), image_size=data.image_size
        ),
        "data": {**{name: len(indices) for name, indices in data.splits.items()}, "classes": data.classes},
    }  # fmt: skip
    checkpoint = Path("checkpoints") / params.profile / arm / f"{seed}.pt"
    with tqdm(total=train["epochs"], desc=f"{arm} seed {seed}", unit="epoch", disable=None, leave=False) as bar:

        def on_epoch(row):
            bar.n = row["epoch"]
            bar.set_postfix(loss=f"{row['train_loss']:.3f}", val=f"{row['val_acc']:.3f}")

        try:
            fit = loop.fit(
                model,
                data,
                train,
                seed=seed,
                device=device,
                checkpoint=checkpoint,
                identity=fingerprint,
                on_epoch=on_epoch,
            )
            # The test split is touched here and nowhere else, with the epoch already chosen.
            model.load_state_dict(fit.best_state)
            test = loop.evaluate_split(model, data, "test", train, device)
            seen = loop.evaluate_split(model, data, "train", train, device) if train["save_entropies"] else None
        except loop.Diverged as error:
            record |= {"failure": str(error), "environment": records.environment(settings["family"])}
            records.write_json(folder / "record.json", record)
            return record
    best = fit.curves[fit.best_epoch - 1]
    record |= {
        "status": "complete",
        "metrics": {
            "best_epoch": fit.best_epoch,
            "val": {name: best[f"val_{name}"] for name in ("acc", "auc", "loss")},
            "test": test.scores(),
        },
        "timings": {
            "epoch_s": median([row["epoch_s"] for row in fit.curves[1:]]),
            "total_s": time.perf_counter() - start,
        },
        "environment": records.environment(settings["family"]),
    }
    write_curves(folder / "curves.csv", fit.curves)
    write_arrays(
        folder / "predictions.npz", indices=data.splits["test"], labels=test.labels, probabilities=test.probabilities
    )
    if seen:
        write_arrays(folder / "entropies.npz", indices=data.splits["train"], entropy=entropy(seen.probabilities))
    records.write_json(folder / "record.json", record)
    checkpoint.unlink(missing_ok=True)
    return record


def set_up(params: Params, arm: str, seed: int, settings: dict, device: str | None = None):
    """`loop.set_up`, with an option of the wrong type or a missing one as an error that names the arm."""
    from pipelines import loop

    try:
        return loop.set_up(params, arm, seed, settings, device)
    except TypeError as error:
        raise ParamsError(f"arm.{arm}: an option is missing or of the wrong type: {error}") from error


def entropy(probabilities):
    """Predictive entropy in nats, -sum_c p_c log p_c, of probabilities (N, C)."""
    import numpy as np

    p = np.asarray(probabilities, dtype=np.float64)
    return -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=1)


def median(values: list[float]) -> float | None:
    import statistics

    return statistics.median(values) if values else None


def write_curves(path: Path, rows: list[dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    records.write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def write_arrays(path: Path, **arrays) -> None:
    import numpy as np

    records.write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


if __name__ == "__main__":
    sys.exit(main())
