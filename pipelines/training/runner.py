"""Train the runs of a method, one a seed, at the learning rate that `pipelines.tune` chose or the profile states.

A run whose record already carries the right fingerprint is left as it is, so this is safe to repeat, and runs
may come from elsewhere. Run `python -m pipelines.train --method NAME [--seed N]`, under torchrun for several GPUs.
"""

import argparse
import csv
import io
import os
import sys
import time
from pathlib import Path

from pipelines.data import prepared
from pipelines.files import records
from pipelines.profile import Params, ParamsError, load, train_split
from pipelines.runs import record as run_record
from pipelines.runs.code import probe_files
from pipelines.runs.environment import environment
from pipelines.runs.identity import described, fingerprint
from pipelines.training import counting, tuning

PROBE_FILES = ("corruptions.npz", "gradcam.npz")  # as `pipelines.probe` writes them


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.train", description=__doc__)
    parser.add_argument("--method", required=True, help="a method of the profile")
    parser.add_argument(
        "--seed", type=int, action="append", help="a seed (may be repeated); default: all seeds of the profile"
    )
    parser.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N; default: the GPU if there is one")
    args = parser.parse_args(argv)
    try:
        params = load(args.profile_file)
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:  # torchrun's; else torch is imported only where a run is missing
            from pipelines.training import parallel

            with parallel.group(), open(os.devnull, "w") as nowhere:
                if parallel.rank() > 0:
                    sys.stdout = nowhere
                return run(params, args.method, params.seeds if args.seed is None else args.seed, args.device)
        return run(params, args.method, params.seeds if args.seed is None else args.seed, args.device)
    except (ValueError, OSError) as error:
        print(f"error: {args.method}: {error}", file=sys.stderr)
        return 1


def run(params: Params, method: str, seeds: list[int], device: str | None = None) -> int:
    """Train the missing or stale runs of one method; 1 if any failed and the profile allows no holes, else 0."""
    unknown = [seed for seed in seeds if seed not in params.seeds]
    if unknown:
        raise ParamsError(
            f"seed {unknown[0]} is not one of profile {params.profile!r}: {params.seeds}; add it to `seeds`"
        )
    settings = params.settings(method)
    if params.tuned(method):
        settings["train"]["lr"] = tuning.chosen_lr(params, method)
    failed = 0
    for seed in seeds:
        fingerprint = identity(params, settings, seed)
        if is_complete(params, method, seed, fingerprint):
            print(f"{method} seed {seed}: complete, kept")
            continue
        record = train_run(params, method, seed, settings, fingerprint, device)
        if record["status"] == "complete":
            test = record["metrics"]["test"]
            print(
                f"{method} seed {seed}: accuracy {test['acc']:.4f}, AUC {test['auc']:.4f}, "
                f"best epoch {record['metrics']['best_epoch']}, {record['timings']['total_s']:.0f} s",
                flush=True,
            )
        else:
            failed += 1
            print(f"error: {method} seed {seed}: {record['failure']}", file=sys.stderr)
    return 1 if failed and not params.allow_missing else 0


def identity(params: Params, settings: dict, seed: int) -> str:
    """The fingerprint of a run, from its method's settings with the learning rate that it trains at."""
    data = prepared.identity(params.data_dir, seed, train_split(settings["train"]), params.data.external_names)
    if not params.probed(seed):
        return fingerprint(settings, seed, data)
    return fingerprint({**settings, "probe": {"images": params.probe.images}}, seed, data, *probe_files())


def is_complete(params: Params, method: str, seed: int, fingerprint: str) -> bool:
    """Whether the run with this fingerprint is there with all its files."""
    return run_record.is_complete(
        params.run_dir(method, seed), fingerprint, *(PROBE_FILES if params.probed(seed) else ())
    )


def train_run(
    params: Params, method: str, seed: int, settings: dict, fingerprint: str, device: str | None = None
) -> dict:
    """Train one run and write its folder; the record is written last. Returns the record.

    Raises:
        ParamsError: a batch does not fit the GPU's memory.
    """
    from tqdm import tqdm

    from pipelines.training import loop, parallel

    start = time.perf_counter()
    folder = params.run_dir(method, seed)
    train = settings["train"]
    device, data, model = set_up(params, method, seed, settings, device)
    if params.probed(seed):
        from pipelines.training import gradcam

        gradcam.last_map(model)  # there is one, or nothing trains
    record = {
        "profile": params.profile, "method": method, "seed": seed, "status": "failed", "failure": None,
        "fingerprint": fingerprint, "settings": described(settings), "metrics": None,
        "parameters": counting.count_method(
            method, settings, num_classes=len(data.classes), image_size=data.image_size
        ),
        "data": {
            **{name: len(data.splits[split])
               for name, split in (("train", train_split(train)), ("val", "val"), ("test", "test"))},
            "classes": data.classes,
        },
    }  # fmt: skip
    checkpoint = Path("checkpoints") / params.profile / method / f"{seed}.pt"
    with tqdm(total=train["epochs"], desc=f"{method} seed {seed}", unit="epoch", disable=None, leave=False) as bar:

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
            test = loop.test(model, fit, data, train, device)
        except loop.Diverged as error:
            record |= {"failure": str(error), "environment": environment(settings["family"])}
            if parallel.rank() == 0:
                records.write_json(folder / "record.json", record)
            return record
        except loop.OutOfMemoryError as error:
            raise ParamsError(
                f"out of memory on {device} with train.batch_size {train['batch_size']}, eval_batch_size "
                f"{train['eval_batch_size']} ({str(error).splitlines()[0]}); set train.micro_batch, which keeps the "
                "batch and, up to rounding, the numbers, or a smaller train.eval_batch_size"
            ) from error
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
        "environment": {**environment(settings["family"]), "processes": parallel.size()},
    }
    if parallel.rank() > 0:
        return record
    write_curves(folder / "curves.csv", fit.curves)
    records.write_arrays(
        folder / "predictions.npz", indices=data.splits["test"], labels=test.labels, probabilities=test.probabilities
    )
    if train["save_entropies"]:
        seen = loop.evaluate_split(model, data, train_split(train), train, device)
        records.write_arrays(
            folder / "entropies.npz", indices=data.splits[train_split(train)], entropy=entropy(seen.probabilities)
        )
    if params.probed(seed):
        from pipelines.training import probe

        probe.run(model, data, train, device, folder, images=params.probe.images)
    records.write_json(folder / "record.json", record)
    checkpoint.unlink(missing_ok=True)
    return record


def set_up(params: Params, method: str, seed: int, settings: dict, device: str | None = None):
    """`loop.set_up` on data that are whole; an option of the wrong type or a missing one is an error naming the method."""
    from pipelines.data import preparation
    from pipelines.training import loop

    preparation.verify(params)

    try:
        return loop.set_up(params, method, seed, settings, device)
    except TypeError as error:
        raise ParamsError(f"method.{method}: an option is missing or of the wrong type: {error}") from error


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


if __name__ == "__main__":
    sys.exit(main())
