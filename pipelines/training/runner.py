"""One run, from its settings to its record; and the runs of a method, of which finished ones are kept."""

import os
import shutil
import statistics
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path

from pipelines.data import prepared
from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.files.locks import locked
from pipelines.profile import Params, ParamsError, Train, train_split
from pipelines.runs import identity as identities
from pipelines.runs import record as run_record
from pipelines.runs.code import probe_files
from pipelines.runs.environment import environment
from pipelines.runs.record import Record
from pipelines.training import checking, counting, tuning
from pipelines.training.progress import curves, epoch_log
from pipelines.training.starting import set_up

PROBE_FILES = ("corruptions.npz", "gradcam.npz")  # as `pipelines.training.probe` writes them


def run_method(params: Params, method: str, seeds: list[int] | None = None, device: str | None = None) -> int:
    """Train the missing or stale runs of one method, by default all its seeds; 1 if any failed and the profile
    allows no holes, else 0.
    """
    settings, failed = final_settings(params, method), 0
    own = params.seeds_of(method)
    if unknown := [seed for seed in seeds or [] if seed not in own]:
        raise ParamsError(f"seed {unknown[0]} is not one of {method}'s: {own}; add it to `seeds`")
    # An output of the train stage, though the runs be from elsewhere or keep nothing.
    params.model_dir(method, own[0]).parent.mkdir(parents=True, exist_ok=True)
    for seed in own if seeds is None else seeds:
        fingerprint = identity(params, method, settings, seed)
        # Of torchrun's processes, the one that writes holds the lock.
        free = is_complete(params, method, seed, fingerprint) or os.environ.get("RANK", "0") != "0"
        with nullcontext() if free else locked(Path("checkpoints", params.profile, method, f"{seed}.lock")):
            if is_complete(params, method, seed, fingerprint):  # by now
                print(f"{method} seed {seed}: complete, kept")
                continue
            record = train_run(params, method, seed, settings, fingerprint, device)
        if record.status == "complete":
            test = record.metrics.test
            print(
                f"{method} seed {seed}: accuracy {test.acc:.4f}, AUC {test.auc or float('nan'):.4f}, "
                f"best epoch {record.metrics.best_epoch}, {record.timings.total_s:.0f} s",
                flush=True,
            )
        else:
            failed += 1
            print(f"error: {method} seed {seed}: {record.failure}", file=sys.stderr)
    return 1 if failed and not params.allow_missing else 0


def final_settings(params: Params, method: str) -> dict:
    """The method's settings with the learning rate that it trains at.

    Raises:
        ParamsError: the rate is to be tuned and is not, for these settings, data and code.
    """
    settings = params.settings(method)
    if params.tuned(method):
        settings["train"]["lr"] = tuning.chosen_lr(params, method)
    return settings


def identity(params: Params, method: str, settings: dict, seed: int) -> str:
    """The fingerprint of a run, from its method's settings with the learning rate that it trains at."""
    data = prepared.identity(params.data_dir, seed, train_split(settings["train"]), params.data.external_names)
    if not params.probed(method, seed):
        return identities.fingerprint(settings, seed, data)
    probe = {"images": params.probe.images}
    return identities.fingerprint({**settings, "probe": probe}, seed, data, *probe_files())


def is_complete(params: Params, method: str, seed: int, fingerprint: str) -> bool:
    """Whether the run with this fingerprint is there with all its files, and its weights, if any are kept, say how
    images are prepared now: where all are square, another `data.fit` leaves the arrays and so the fingerprint alone.
    """
    files = [f"external-{name}.npz" for name in params.data.external_names]
    files += PROBE_FILES if params.probed(method, seed) else ()
    manifest = prepared.read_manifest(params.data_dir)
    with suppress(records.RecordError):  # no weights, or damaged ones, which those who use them are told
        card = records.read_json(params.model_dir(method, seed) / "model.json", "")
        prepares_as = manifest.preprocessing.model_dump(mode="json")
        if card.get("fingerprint") == fingerprint and card.get("preprocessing") != prepares_as:
            return False
    return run_record.is_complete(params.run_dir(method, seed), fingerprint, *files, classes=manifest.classes)


def train_run(
    params: Params, method: str, seed: int, settings: dict, fingerprint: str, device: str | None = None
) -> Record:
    """Train one run and write its folder; the record is written last. Returns the record.

    Raises:
        UserError: a batch does not fit the GPU's memory, or the method cannot be built.
    """
    import torch

    from pipelines.training import loop, parallel, saved
    from pipelines.training.loaders import make_loaders

    start = time.perf_counter()
    folder, recipe = params.run_dir(method, seed), Train.model_validate(settings["train"])
    device, data, external, model = set_up(params, method, seed, settings, device)
    split, counts = train_split(recipe), {"num_classes": len(data.classes), "image_size": data.image_size}
    facts = {
        "profile": params.profile,
        "method": method,
        "seed": seed,
        "fingerprint": fingerprint,
        "settings": identities.described(settings),
        "parameters": counting.count_method(method, settings, **counts),
        "data": {
            "train": len(data.splits[split]), "val": len(data.splits["val"]), "test": len(data.splits["test"]),
            "classes": data.classes,
        },
        "environment": {**environment(str(device)), "processes": parallel.size()},
    }  # fmt: skip
    writes = parallel.rank() == 0
    checkpoint = Path("checkpoints") / params.profile / method / f"{seed}.pt"
    try:
        loaders = make_loaders(model, data, recipe, device, external)
        log = epoch_log(params, f"{method} seed {seed}", checkpoint.with_suffix(".csv"), recipe.epochs)
        with log if writes else nullcontext(lambda row: None) as on_epoch:
            fit = loop.fit(
                model, loaders, recipe, seed=seed, device=device, checkpoint=checkpoint, identity=fingerprint,
                on_epoch=on_epoch,
            )  # fmt: skip
        model.load_state_dict(fit.best_state)  # and only now the test images
        test = loop.evaluate(model, loaders.test, recipe, device)
        outside = {name: loop.evaluate(model, batches, recipe, device) for name, batches in loaders.external.items()}
    except loop.Diverged as error:
        record = Record(**facts, status="failed", failure=str(error))
        if writes:
            shutil.rmtree(params.model_dir(method, seed), ignore_errors=True)  # of an earlier run
            run_record.write_record(folder, record)
        return record
    except (MemoryError, torch.OutOfMemoryError) as error:
        smaller = "train.micro_batch, which keeps the batch and, up to rounding, the numbers"
        if checking.updates_statistics(model.train()):
            smaller = "a smaller train.batch_size"
        raise UserError(
            f"out of memory on {device} with train.batch_size {recipe.batch_size}, eval_batch_size "
            f"{recipe.eval_batch_size} ({(str(error) or 'no more is said').splitlines()[0]}); set {smaller}, or a "
            "smaller train.eval_batch_size"
        ) from error
    best = fit.curves[fit.best_epoch - 1]
    record = Record(
        **facts,
        status="complete",
        metrics={
            "best_epoch": fit.best_epoch,
            "val": _finite({name: best[f"val_{name}"] for name in ("acc", "balanced_acc", "auc", "loss")}),
            "test": _finite(test.scores()),
            "external": {name: _finite(seen.scores()) for name, seen in outside.items()},
        },
        timings={
            "epoch_s": statistics.median(row["epoch_s"] for row in fit.curves[1:] or fit.curves),
            "total_s": fit.earlier_s + time.perf_counter() - start,
        },
    )
    if not writes:
        return record
    (folder / "record.json").unlink(missing_ok=True)  # of an earlier run, whose other files now go
    write_curves(folder / "curves.csv", fit.curves)
    _write_predictions(folder / "predictions.npz", data.splits["test"], test)
    for name, seen in outside.items():
        _write_predictions(folder / f"external-{name}.npz", external[name].splits["test"], seen)
    if recipe.save_entropies:
        from scipy.special import entr

        seen = loop.evaluate(model, loaders.seen, recipe, device)
        nats = entr(seen.probabilities.astype("float64")).sum(axis=1)
        records.write_arrays(folder / "entropies.npz", indices=data.splits[split], entropy=nats)
    if params.probed(method, seed):
        from pipelines.training import probe

        probe.run(model, data, recipe, device, folder, images=params.probe.images)
    saved.save(params, record, recipe, model, data)
    run_record.write_record(folder, record)
    checkpoint.unlink(missing_ok=True)
    checkpoint.with_suffix(".csv").unlink(missing_ok=True)
    return record


def write_curves(path: Path, rows: list[dict]) -> None:
    records.write_atomically(path, lambda file: file.write(curves(rows).encode()))


def _write_predictions(path: Path, indices, seen) -> None:
    records.write_arrays(path, indices=indices, labels=seen.labels, probabilities=seen.probabilities)


def _finite(scores: dict) -> dict:
    """AUC is not defined where a class has no image."""
    return {name: None if value != value else value for name, value in scores.items()}
