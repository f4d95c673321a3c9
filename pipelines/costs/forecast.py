"""Plan a profile's GPU hours from measured step times: what every method takes, and when so many GPUs have done all.

A run has a GPU to itself for its steps, a validation pass an epoch and a test pass. A method's tuning trials come
before its runs, one after the other. What should end last goes first, as in `pipelines.launch`: at most 4/3 - 1/(3n)
times the shortest possible on n GPUs where nothing is tuned, else at most 2 - 1/n times (Graham, SIAM J. Appl. Math.
17, 416, 1969).
"""

import heapq
import math
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from pipelines.costs.costing import GROWTH
from pipelines.evidence import schemas
from pipelines.files import records
from pipelines.files.errors import UserError
from pipelines.profile import Params, train_split

COLUMNS = [
    "method", "batch_size", "step_ms", "step_ms_lo", "step_ms_hi", "epochs", "epoch_min", "run_h", "tuning_h", "seeds",
    "total_h",
]  # fmt: skip
AGAIN = (
    "with the profile active (`python -m pipelines.params NAME`), run `python -m pipelines.cost --again` on the GPU it "
    "is for"
)


@dataclass(frozen=True)
class Work:
    """A method's hours on one GPU: of its trials, which come first, and of each run. `row` is its line of the table."""

    method: str
    tuning: float
    runs: tuple[float, ...]
    row: dict = field(default_factory=dict, repr=False)

    @property
    def chain(self) -> float:
        """Hours that no number of GPUs makes fewer: the trials and the longest run."""
        return self.tuning + max(self.runs)


def forecast(params: Params, *, gpus: list[int], out: Path | None) -> None:
    """Print what every method takes and when so many GPUs have done all; with `out` write the two tables too.

    Raises:
        UserError: step times or numbers of images are not there.
    """
    rows, sizes = step_times(params), split_sizes(params)
    works = [work(params, row, sizes) for row in rows]
    methods = pd.DataFrame([own.row for own in works])
    schedule = pd.DataFrame([planned(works, count) for count in dict.fromkeys(gpus)])
    _show(params, works, methods, schedule)
    if out:
        records.write_csv(out, methods[COLUMNS])
        records.write_csv(out.with_name(f"{out.stem}_gpus.csv"), schedule)


def step_times(params: Params) -> list[dict]:
    """Every method's row of cost.csv at its own backbone, image size, batch size and precision.

    Of the methods in `cost.methods`, where the profile names some. `image_s` joins it: seconds that evaluation takes
    for an image, by the larger requests; 0 where not measured.

    Raises:
        UserError: no such file, or none of `pipelines.cost`, or without a row for some methods, which are named, or
            with times that are no numbers above 0.
    """
    path = params.results_dir / "cost.csv"
    rows = schemas.read(params.results_dir, "cost").query("role == 'method'")
    rows = rows.assign(image_s=(rows.inference_batch_ms / 1000 / rows.inference_batch).fillna(0.0)).to_dict("records")
    left_out = _cost_json(params).get("left_out", {})
    found, missing = [], []
    methods = (params.cost and params.cost.methods) or list(params.method)
    for method in methods:
        settings = params.settings(method)
        wanted = _point({**settings, **settings["train"], "image_size": params.data.image_size})
        own = {_point(row): row for row in rows if row["method"] == method}
        if wanted in own:
            found.append(own[wanted])
            continue
        missing.append(f"\n  {method}: expected {wanted}; found {' / '.join(own) or 'no row'}")
        for label, reasons in left_out.items():
            if label != GROWTH and method in reasons:
                missing.append(f"; left out at {label}: {reasons[method]}")
    if missing:
        raise UserError(
            f"{path}: no step times of {len(methods) - len(found)} of {len(methods)} methods; {AGAIN}, with their "
            f"batch sizes in cost.batch_sizes:{''.join(missing)}"
        )
    for row in found:
        if not (0 < row["step_ms"] < math.inf and 0 <= row["image_s"] < math.inf):
            told = ", ".join(f"{name} {row[name]}" for name in ("step_ms", "inference_batch_ms", "inference_batch"))
            raise UserError(f"{path}: method {row['method']} has {told}, expected numbers above 0; {AGAIN}")
    return found


def _cost_json(params: Params) -> dict:
    path = params.results_dir / "cost.json"
    return records.read_json(path, AGAIN) if path.is_file() else {}


def _point(settings: dict) -> str:
    point = "{backbone} at {image_size} px, batch {batch_size}, {precision}".format(**settings)
    return point + ", compiled" * (str(settings["compile"]) == "True")  # as CSV has it


def split_sizes(params: Params) -> dict[int, dict[str, int]]:
    """{seed: {split: images}}: the data card's, or without one `cost.images` to train on.

    Raises:
        UserError: there is no data card, or it lacks a seed or a split.
    """
    path = params.results_dir / "data" / "card.json"
    again = "run `python -m pipelines.prepare`, or state `cost.images`"
    if not path.is_file() and params.cost and params.cost.images:
        return dict.fromkeys(params.all_seeds, {"train": params.cost.images, "val": 0, "test": 0})
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
    method, tune, seeds = row["method"], params.tune, params.seeds_of(row["method"])
    train = params.settings(method)["train"]

    def images(seed: int) -> int:
        return sizes[seed].get(train_split(train), round(sizes[seed]["train"] * train["share"]))

    def epoch_s(seed: int) -> float:
        steps = math.ceil(images(seed) / train["batch_size"])
        return steps * row["step_ms"] / 1000 + sizes[seed]["val"] * row["image_s"]

    def run_h(seed: int) -> float:
        passed = sizes[seed]["test"] + images(seed) * train["save_entropies"]
        return (train["epochs"] * epoch_s(seed) + passed * row["image_s"]) / 3600

    runs, tuning = tuple(map(run_h, seeds)), 0.0
    if params.tuned(method):
        tuning = tune.expected_trials * tune.epochs_of(train["epochs"]) * epoch_s(tune.seeds[0]) / 3600
    line = {
        **row, "epochs": train["epochs"], "epoch_min": statistics.mean(map(epoch_s, seeds)) / 60,
        "run_h": statistics.mean(runs), "tuning_h": tuning, "seeds": len(runs), "total_h": tuning + sum(runs),
        "evaluated": row["image_s"] > 0 and all(own["val"] and own["test"] for own in sizes.values()),
    }  # fmt: skip
    return Work(method, tuning, runs, line)


def makespan(works: list[Work], gpus: int) -> float:
    """Hours until all is done: whenever a GPU is free it takes, of what may start, that which should end last."""
    ready = []  # (-hours until its method's end, place of the method, own hours, runs that wait for it)
    for place, own in enumerate(works):
        runs = [(-run, place, run, ()) for run in own.runs]
        ready += [(-own.chain, place, own.tuning, own.runs)] if own.tuning else runs
    heapq.heapify(ready)
    now, running = 0.0, []
    while ready or running:
        while ready and len(running) < gpus:
            _, place, hours, waiting = heapq.heappop(ready)
            heapq.heappush(running, (now + hours, place, waiting))
        now = running[0][0]
        while running and running[0][0] == now:
            _, place, waiting = heapq.heappop(running)
            for run in waiting:
                heapq.heappush(ready, (-run, place, run, ()))
    return now


def planned(works: list[Work], gpus: int) -> dict:
    """A row of the schedule: hours, the two bounds that they cannot be below, used share of the GPUs' time (`busy`),
    and which bound is the larger.
    """
    last, hours = max(works, key=lambda own: own.chain), makespan(works, gpus)
    evenly = sum(own.tuning + sum(own.runs) for own in works) / gpus
    chain = f"{'tuning and ' * bool(last.tuning)}one run of {last.method}"
    return {
        "gpus": gpus, "hours": hours, "work_h": evenly, "chain_h": last.chain, "busy": evenly / hours,
        "bounded_by": "all work" if evenly >= last.chain else chain,
    }  # fmt: skip


def most_gpus(works: list[Work]) -> int:
    """The fewest GPUs on which all takes no longer than the longest chain: more of them do not help."""
    one = planned(works, 1)
    gpus = max(1, int(one["work_h"] / one["chain_h"]))
    while makespan(works, gpus) > one["chain_h"] * (1 + 1e-9):
        gpus += 1
    return gpus


def _show(params: Params, works: list[Work], methods: pd.DataFrame, schedule: pd.DataFrame) -> None:
    machine = _cost_json(params).get("environment") or {}
    device = "GPU" if machine.get("gpu") else "device"
    where = f"a machine that {params.results_dir / 'cost.json'} does not name"
    if machine:
        where = machine.get("gpu") or f"{machine.get('cpu')} ({machine.get('threads')} threads, no GPU)"
        where += f", torch {machine.get('torch')}, {machine.get('date')}"
    print(f"profile {params.profile}, {len(works)} methods, seeds {', '.join(map(str, params.all_seeds))}")
    print(f"step times: {params.results_dir / 'cost.csv'}, measured on {where}\n")
    print(_text(methods[COLUMNS]))
    print(f"\n{methods.total_h.sum():,.3f} {device} hours in all, a run at a time on each of\n")
    print(_text(schedule.rename(columns={"gpus": f"{device}s"})))
    blind = list(methods.method[~methods.evaluated])
    some = "" if len(blind) == len(works) else f" of {', '.join(blind)}"
    left = [f"validation and test passes{some}"] * bool(blind) + ["probing"] * bool(params.probe)
    left += ["pretraining"] * bool(params.pretrain) + ["loading and augmenting images", "start-up", "checkpoints"]
    if more := len(params.method) - len(works):
        left.append(f"{more} methods that cost.methods leaves out")
    counted = ["steps"] + ["validation and test passes"] * (len(blind) < len(works))
    counted += ["tuning trials"] * any(own.tuning for own in works)
    print(f"\nMore than {most_gpus(works)} {device}s do not help.")
    print(f"Counted: {', '.join(counted)}. Not counted: {', '.join(left)}.")
    print("Frozen layers in front are counted in every pass, though training may compute them once: at most so much.")


def _text(frame: pd.DataFrame) -> str:
    return frame.to_string(index=False, float_format=lambda x: f"{x:,.3f}" if x >= 1 else f"{x:.3g}", na_rep="-")
