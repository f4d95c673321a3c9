"""Plan a profile's GPU hours from measured step times: what every method takes, and when so many GPUs have done all.

Reads what `python -m pipelines.cost` measured on the GPU, and trains nothing. A run has a GPU to itself for its steps,
a validation pass an epoch and a test pass. A method's tuning trials come before its runs, one after the other.
"""

import csv
import math
import statistics
from pathlib import Path

from pipelines.costs import costing
from pipelines.costs.schedule import SCHEDULE_COLUMNS, Work, most_gpus, planned
from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.profile import Params, train_split

POINT = ("backbone", "image_size", "batch_size", "precision", "compile")
COLUMNS = [
    "method", "batch_size", "step_ms", "step_ms_lo", "step_ms_hi", "epochs", "epoch_min", "run_h", "tuning_h", "seeds",
    "total_h",
]  # fmt: skip
AGAIN = "run `python -m pipelines.cost` on the GPU that the plan is for"


def forecast(params: Params, *, cost: Path | None, images: list[int] | None, gpus: list[int], out: Path | None) -> None:
    """Print what every method takes and when so many GPUs have done all; with `out` write the two tables too.

    Raises:
        UserError: step times or numbers of images are not there.
    """
    path = cost or params.results_dir / "cost.csv"
    rows, sizes = step_times(params, path), split_sizes(params, images)
    works = [work(params, row, sizes) for row in rows]
    schedule = [planned(works, count) for count in dict.fromkeys(gpus)]
    _show(params, path, works, schedule)
    if out:
        costing.write_csv(out, COLUMNS, [own.row for own in works])
        costing.write_csv(out.with_name(f"{out.stem}_gpus.csv"), SCHEDULE_COLUMNS, schedule)


def step_times(params: Params, path: Path) -> list[dict]:
    """Every method's row of cost.csv at its own backbone, image size, batch size and precision, `step_ms` as a number.

    Of the methods in `cost.methods`, where the profile names some. `image_s` joins it: seconds that evaluation takes
    for an image, by the larger requests; 0 where not measured.

    Raises:
        UserError: no such file, or none of `pipelines.cost`, or without a row for some methods, which are named.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file, so no step times; {AGAIN}, or name another file with --cost")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("role") == "method"]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as CSV ({error}); {AGAIN}") from None
    found, missing, left_out = [], [], _left_out(path)
    methods = (params.cost and params.cost.methods) or list(params.method)
    for method in methods:
        settings = {**params.settings(method), "image_size": params.data.image_size}
        wanted = _point({**settings, **settings["train"]})
        own = {_point(row): row for row in rows if row.get("method") == method}
        if wanted in own:
            found.append({**own[wanted], **_times(path, own[wanted])})
        else:
            reasons = "".join(f"; left out at {label}: {reason}" for label, reason in left_out.get(method, {}).items())
            missing.append(f"\n  {method}: expected {wanted}; found {' / '.join(own) or 'no row'}{reasons}")
    if missing:
        raise UserError(
            f"{path}: no step times of {len(missing)} of {len(methods)} methods; {AGAIN}, with their batch "
            "sizes in "
            f"cost.batch_sizes:{''.join(missing)}"
        )
    return found


def _left_out(path: Path) -> dict[str, dict[str, str]]:
    """{method: {label: why it was not measured there}} of the cost.json beside; growth sweeps do not count."""
    source, reasons = path.with_suffix(".json"), {}
    found = records.read_json(source, AGAIN).get("left_out", {}) if source.is_file() else {}
    try:
        for label, names in found.items():
            for method, reason in names.items() if label != costing.GROWTH else ():
                reasons.setdefault(method, {})[label] = reason
    except AttributeError:
        raise UserError(
            f"{source}: left_out: found {found!r}, expected reasons by method by setting; {AGAIN}"
        ) from None
    return reasons


def _point(settings: dict) -> str:
    words = "{} at {} px, batch {}, {}".format(*map(settings.get, POINT[:-1]))
    return words + ", compiled" * (str(settings.get("compile")) == "True")  # as CSV has it


def _times(path: Path, row: dict) -> dict[str, float]:
    try:
        step_ms, request_ms = float(row["step_ms"]), float(row.get("inference_batch_ms") or 0)
        image_s = request_ms / 1000 / int(row["inference_batch"]) if request_ms else 0.0
        if not (0 < step_ms < math.inf and 0 <= image_s < math.inf):
            raise ValueError
    except (ValueError, TypeError, KeyError, ZeroDivisionError):
        found = ", ".join(f"{name} {row.get(name)!r}" for name in ("step_ms", "inference_batch_ms", "inference_batch"))
        raise UserError(f"{path}: method {row['method']} has {found}, expected numbers above 0; {AGAIN}") from None
    return {"step_ms": step_ms, "image_s": image_s}


def split_sizes(params: Params, images: list[int] | None = None) -> dict[int, dict[str, int]]:
    """{seed: {split: images}}: `images` (training, or training, validation and test) where given, else the data card's,
    else `cost.images` to train on.

    Raises:
        UserError: there is no data card, or it lacks a seed or a split.
    """
    path, again = params.results_dir / "data" / "card.json", "run `python -m pipelines.prepare`, or give --images"
    if not images and not path.is_file() and params.cost and params.cost.images:
        images = [params.cost.images]
    if images:
        return dict.fromkeys(params.all_seeds, dict(zip(("train", "val", "test"), [*images, 0, 0])))
    if not path.is_file():
        raise UserError(f"{path}: no such file, so no numbers of images; {again}")
    card, sizes = records.read_json(path, again), {}
    for seed in params.all_seeds:
        try:
            counts = (card["seeds"].get(str(seed)) or card["seeds"]["all"])["counts"]
            sizes[seed] = {split: sum(counts[split].values()) for split in {"train", "val", "test", *counts}}
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{path}: no numbers of the images of seed {seed}; {again}") from None
    return sizes


def work(params: Params, row: dict, sizes: dict[int, dict[str, int]]) -> Work:
    """What a method takes by its row of `step_times` and the seeds' `split_sizes`.

    An epoch is its steps, the last one taken to be as long as the others, and the validation pass. In the table's line,
    `epoch_min` and `run_h` are means over the seeds.
    """
    method, tune = row["method"], params.tune
    train, epoch_s, runs = params.settings(method)["train"], {}, []
    for seed in params.seeds_of(method):
        own = sizes[seed]
        images = own.get(train_split(train), round(own["train"] * train["share"]))
        steps = math.ceil(images / train["batch_size"])
        epoch_s[seed] = steps * row["step_ms"] / 1000 + own["val"] * row["image_s"]
        passed = own["test"] + images * train["save_entropies"]
        runs.append((train["epochs"] * epoch_s[seed] + passed * row["image_s"]) / 3600)
    tuning = (
        len(tune.lrs) * tune.epochs_of(train["epochs"]) * epoch_s[tune.seed] / 3600 if params.tuned(method) else 0.0
    )
    line = {
        **row, "epochs": train["epochs"], "epoch_min": statistics.mean(epoch_s.values()) / 60,
        "run_h": statistics.mean(runs), "tuning_h": tuning, "seeds": len(runs), "total_h": tuning + sum(runs),
        "evaluated": row["image_s"] > 0 and all(own["val"] and own["test"] for own in sizes.values()),
    }  # fmt: skip
    return Work(method, tuning, tuple(runs), line)


def _show(params: Params, path: Path, works: list[Work], schedule: list[dict]) -> None:
    source = path.with_suffix(".json")
    machine = records.read_json(source, AGAIN).get("environment") if source.is_file() else None
    machine, where = (machine, "") if isinstance(machine, dict) else ({}, f"a machine that {source} does not name")
    device = "GPU" if machine.get("gpu") else "device"
    if machine:
        where = machine.get("gpu") or f"{machine.get('cpu')} ({machine.get('threads')} threads, no GPU)"
        where += f", torch {machine.get('torch')}, {machine.get('date')}"
    print(f"profile {params.profile}, {len(works)} methods, seeds {', '.join(map(str, params.all_seeds))}")
    print(f"step times: {path}, measured on {where}\n")
    _table(COLUMNS, [own.row for own in works])
    print(f"\n{sum(own.row['total_h'] for own in works):,.3f} {device} hours in all, a run at a time on each of\n")
    _table([f"{device}s", *SCHEDULE_COLUMNS[1:]], [{f"{device}s": row["gpus"], **row} for row in schedule])
    blind = [own.method for own in works if not own.row["evaluated"]]
    some = "" if len(blind) == len(works) else f" of {', '.join(blind)}"
    left = [f"validation and test passes{some}"] * bool(blind) + ["probing"] * bool(params.probe)
    left += ["pretraining"] * bool(params.pretrain) + ["loading and augmenting images", "start-up", "checkpoints"]
    counted = ["steps"] + ["validation and test passes"] * bool(len(blind) < len(works))
    counted += ["tuning trials"] * any(own.tuning for own in works)
    print(f"\nMore than {most_gpus(works)} {device}s do not help.")
    left += [f"{len(params.method) - len(works)} methods that cost.methods leaves out"] * (
        len(works) < len(params.method)
    )
    print(f"Counted: {', '.join(counted)}. Not counted: {', '.join(left)}.")
    print("Frozen layers in front are counted in every pass, though training may compute them once: at most so much.")


def _table(columns: list[str], rows: list[dict]) -> None:
    """Print rows under their columns, words to the left and numbers to the right."""

    def text(value):
        if isinstance(value, float):
            return f"{value:,.3f}" if value >= 1 else f"{value:.3g}"
        return "-" if value in (None, "") else str(value)

    grid = [columns, *([text(row.get(name)) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*grid)]
    for line in grid:
        runs = zip(columns, line, widths)
        print(
            "  ".join(f"{v:<{w}}" if name in ("method", "bounded_by") else f"{v:>{w}}" for name, v, w in runs).rstrip()
        )
