"""What `pipelines.summarise` writes of a profile's runs; `schemas` describes it file by file."""

from collections import Counter
from dataclasses import asdict

import numpy as np
import pandas as pd

from pipelines.evidence import (
    clinical,
    contrasts,
    external,
    hard_scans,
    pairs,
    robustness,
    schemas,
    scores,
    shares,
    stability,
    tables,
)  # fmt: skip
from pipelines.evidence import declared as declarations
from pipelines.evidence import outcomes as tests
from pipelines.evidence.contrasts import Network, Trial
from pipelines.evidence.declared import Chosen, Declared
from pipelines.evidence.outcomes import Outcome
from pipelines.evidence.stats import LEVEL
from pipelines.evidence.tables import train_accuracy
from pipelines.files.errors import UserError
from pipelines.files.records import read_json, write_csv, write_json
from pipelines.profile import Params
from pipelines.runs.reading import check_same_settings, common_classes, get, read_runs

SHOWN = 3  # classes in a warning
SUMMARY = (
    "acc_mean", "acc_sd", "acc_lo", "acc_hi", "acc_max", "balanced_mean", "balanced_lo", "balanced_hi", "auc_mean",
    "auc_sd", "auc_lo", "auc_hi", "train_acc", "learned", "trainable", "total", "flops", "epoch_s", "best_epoch_mean",
    "lr",
)  # fmt: skip


def summarise(params: Params) -> dict[str, dict]:
    """Read every run of the profile, write the summary files, return the content of summary.json.

    Raises:
        UserError: a run is missing, failed or malformed and `allow_missing` is off; seeds of one method were run
            with different settings; or methods to be compared were tested on different images.
    """
    declared = declarations.read()
    runs, holes = read_runs(params)
    outcomes = tests.gather(params, runs)
    by_method = {method: [run for (name, _), run in runs.items() if name == method] for method in params.method}
    for method, own in by_method.items():
        check_same_settings(method, own)
    check_same_weights(runs)
    classes, test = common_classes(runs), outcomes["test"]
    summary = {method: method_summary(by_method[method], test[method]) for method in params.method}
    # What the runs say, where there are any: networks trained from scratch have a backbone of their own there.
    planned = {method: shares.settings_of(params, method) for method in params.method}
    settings = {method: own[0]["settings"] if own else planned[method] for method, own in by_method.items()}
    machines = {method: {run["seed"]: trained_on(run) for run in own} for method, own in by_method.items()}
    chosen = choose(params, declared, outcomes, shares.names_by_share(planned))
    corrupted = robustness.read(params, runs, test)
    shown = declarations.present(params, [method for method, own in test.items() if own])
    wrong = hard_scans.misclassified([own for method in shown for own in test[method]], classes)
    curves = schemas.frame("curves", tables.curves(runs))
    elsewhere = {data: by_name for data, by_name in outcomes.items() if data != "test"}
    known = {method: network(own) for method, own in by_method.items() if own}
    content = {
        "runs": tables.run_rows(params, runs, holes, test),
        "curves": curves,
        "confusion": tables.confusion(test, classes),
        "tuning": tables.tuning(params),
        "contrasts": contrast_rows(declared, chosen, outcomes, known),
        "pairs": [
            row for data in outcomes for row in pairs.rows(data, outcomes[data], settings, chosen.method, machines)
        ],
        "external": [row for data, there in elsewhere.items() for row in external.rows(data, there, test)],
        "labels": shares.rows(params, test, summary),
        "scores": scores.rows(runs),
        "class_scores": scores.class_rows(runs, classes),
        "clinical": clinical.rows(test, classes),
        "roc": clinical.curves({method: test[method] for method in shown}, classes),
        "reliability": scores.reliability_rows(by_method),
        "stability": stability.rows(curves, one_set=chosen.folds == 1),
        "robustness": robustness.rows(corrupted),
        "robustness_pairs": robustness.pair_rows(corrupted, chosen.method, chosen.against),
        "misclassified": wrong,
        "hard_scans": hard_scans.hard(wrong),
    }
    frames = {name: schemas.frame(name, rows) for name, rows in content.items()}
    for name, frame in frames.items():
        write_csv(params.results_dir / f"{name}.csv", frame)
    write_json(params.results_dir / "chosen.json", asdict(chosen))
    write_json(params.results_dir / "metrics.json", headline(params, chosen, summary, frames["external"]))
    write_json(params.results_dir / "summary.json", summary)
    named = frames["confusion"].groupby(["method", "predicted"], sort=False)["count"].sum()
    for method, never in named[named == 0].groupby("method", sort=False):
        names = [repr(name) for _, name in never.index]
        told = ", ".join(names[:SHOWN]) + f" and {len(names) - SHOWN} classes more" * (len(names) > SHOWN)
        print(f"warning: {method} names no test image {told}; `train.class_weights` or `train.sampler` may help")
    print(f"{len(runs)} of {len(runs) + len(holes)} runs summarised in {params.results_dir}")
    if holes:
        of = Counter((method, why["status"]) for (method, _), why in holes.items())
        told = ", ".join(f"{method} {count} {status}" for (method, status), count in of.items())
        print(f"holes (seeds and reasons in runs.csv): {told}")
    return summary


def trained_on(run: dict) -> str | None:
    """The GPU, or else the CPU, that a run was made on, as far as its record says."""
    return get(run, "environment.gpu") or get(run, "environment.cpu")


def check_same_weights(runs: dict) -> None:
    """Raises UserError where two runs start from weights files of one name and different content."""
    known: dict[str, tuple[str, str, int]] = {}
    for (method, seed), run in runs.items():
        name, digest = (run["settings"].get(key) for key in ("weights", "weights_sha256"))
        if digest is not None:
            first, other, its_seed = known.setdefault(name, (digest, method, seed))
            if first != digest:
                raise UserError(
                    f"{name}: method {other}, seed {its_seed} started from one file of this name ({first[:12]}), "
                    f"method {method}, seed {seed} from another ({digest[:12]}); run `python -m pipelines.train` "
                    "for the older one"
                )


def _folds(params: Params, outcomes: list[Outcome]) -> int:
    """Folds of the test images: the data card's, or where there is none what the runs show."""
    path = params.results_dir / "data" / "card.json"
    card = read_json(path, "run `python -m pipelines.prepare` again") if path.is_file() else {}
    return int(card["folds"] or 1) if "folds" in card else tests.design(outcomes)


def choose(
    params: Params, declared: Declared, outcomes: dict[str, dict[str, list[Outcome]]], names: dict[float, dict]
) -> Chosen:
    """What the profile has of the declared contrasts, by its runs with the most labels: nothing where the declared
    method has no run, as its comparators are then methods like any other.
    """
    test, asked = outcomes["test"], [declared.method, *declared.against]
    folds = _folds(params, [own for method in test.values() for own in method])
    there = [name for name in asked if test.get(name)] if test.get(declared.method) else []
    return Chosen(
        method=declared.method if declared.method in there else None,
        against=[name for name in declared.against if name in there],
        methods=[method for method in test if method in there],
        absent=[name for name in asked if name not in there],
        margin=declared.margin,
        level=LEVEL,
        folds=folds,
        repeats={method: len(own) / folds for method, own in test.items()},
        external=[data for data in outcomes if data != "test"],
        shares={f"{share:g}": {name: own[name] for name in asked if name in own} for share, own in names.items()},
    )


def contrast_rows(declared: Declared, chosen: Chosen, outcomes: dict, known: dict[str, Network]) -> list[dict]:
    """Rows of contrasts.csv: every data set at every share of the labels; of the smaller shares what has runs alone."""
    found = []
    for number, (share, names) in enumerate(chosen.shares.items()):
        for data, by_method in outcomes.items():
            folds = chosen.folds if data == "test" else 1
            trial = Trial(data, float(share), by_method, known, names, folds, chosen.folds)
            rows = contrasts.rows(declared, trial)
            found += rows if number == 0 else [row for row in rows if row.get("runs")]
    return found


def network(runs: list[dict]) -> Network:
    """What the verdicts ask about a method, by its runs."""
    from_scratch = runs[0]["settings"].get("weights") == "random"
    return Network(from_scratch, runs[0]["parameters"]["total"], train_accuracy(runs))


def headline(params: Params, chosen: Chosen, summary: dict[str, dict], elsewhere: pd.DataFrame) -> dict:
    """At most 16 numbers for `dvc exp show`, by short names: of what is declared, or the profile's first methods."""
    shown = chosen.methods or [method for method, figures in summary.items() if figures["seeds"]][:8]
    first = [method for method in dict.fromkeys([chosen.method, "full", "head-only", *shown]) if method in shown][:3]
    found = {f"acc.{method}": summary[method]["acc_mean"] for method in shown}
    found |= {f"auc.{method}": summary[method]["auc_mean"] for method in first[:2]}
    for data in chosen.external[:1]:
        accuracy = elsewhere[elsewhere.data == data].set_index("method").balanced_accuracy
        found |= {f"external.{method}": plain(accuracy[method]) for method in first if method in accuracy}
    found |= {f"trainable.{method}": summary[method]["trainable"] for method in first[:1]}
    if chosen.method and (params.results_dir / "cost.csv").is_file():
        # The first row of a method is of the profile's own setting.
        costs = schemas.read(params.results_dir, "cost").drop_duplicates("method").set_index("method").step_ratio
        if chosen.method in costs:
            found[f"step.{chosen.method}"] = plain(costs[chosen.method])
    return found


def method_summary(runs: list[dict], outcomes: list[Outcome]) -> dict:
    """One method's figures over its runs: means, sample standard deviations, 95 % intervals (see `stats`), costs."""
    if not runs:
        return {**dict.fromkeys(SUMMARY), "seeds": 0}
    values = dict(runs[0]["parameters"])
    for name, metric in (("acc", "accuracy"), ("balanced", "balanced_accuracy"), ("auc", "auc")):
        found, each = tests.mean(outcomes, metric), pd.Series([own.figure(metric)[0] for own in outcomes])
        lo, hi = found.share_interval(counted=tests.counted(outcomes, metric))
        values |= {f"{name}_mean": found.mean, f"{name}_sd": each.std(skipna=False), f"{name}_lo": lo, f"{name}_hi": hi}
    values |= {
        "acc_max": max(own.figure("accuracy")[0] for own in outcomes),
        "train_acc": train_accuracy(runs),
        "epoch_s": pd.Series([run["timings"]["epoch_s"] for run in runs], dtype=float).median(),
        "best_epoch_mean": np.mean([run["metrics"]["best_epoch"] for run in runs]),
        "lr": get(runs[0], "settings.train.lr"),
    }
    learned = network(runs).not_learned(tests.largest_class(outcomes)) is None
    told = {name: plain(values[name]) for name in SUMMARY if name in values}
    return told | {"learned": learned, "seeds": len(runs)}


def plain(value):
    """A JSON value with six significant digits; NaN, which JSON lacks, becomes null."""
    if value is None or isinstance(value, int):
        return value
    return None if np.isnan(value) else float(f"{value:.6g}")
