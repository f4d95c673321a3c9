"""Label efficiency: which methods are one series on more and fewer labels, and how it fares there: rows of labels.csv.

A share is of the training patients (`train.share`). Methods whose settings are the same but for their share, epochs and
learning rate, which follow the number of labels, are one series. It is called by its method of the largest share.
"""

import json

import numpy as np
import pandas as pd

from pipelines.evidence import comparisons
from pipelines.files.records import read_json
from pipelines.profile import Params, train_split
from pipelines.runs.reading import SummaryError

FREE = ("share", "epochs", "lr")  # of a recipe, what may differ between the methods of a series
COLUMNS = (
    "series", "method", "share", "seeds", "images", "patients", "acc_mean", "acc_lo", "acc_hi", "auc_mean", "auc_lo",
    "auc_hi", "best", "difference", "lo", "hi", "margin",
)  # fmt: skip


def frame(params: Params, by_method: dict[str, list[dict]], summary: dict[str, dict]) -> pd.DataFrame:
    """A row a method, by series and ascending share; none where all methods of the profile train on one share.

    images, patients: trained on, means over the seeds; no patients where the data name none or have no card. best: the
    series's method of highest mean accuracy; difference, lo, hi: from it, paired by seed, with a 95 % interval.

    Raises:
        SummaryError: two methods of a series have one share, or the data card lacks a share.
    """
    settings = {method: settings_of(params, method) for method in by_method}
    if len({comparisons.share(own) for own in settings.values()}) < 2:
        return pd.DataFrame(columns=COLUMNS)
    rows = []
    for series, methods in series_of(settings).items():
        known = {method: summary[method]["acc_mean"] for method in methods if by_method[method]}
        best = max(known, key=known.get, default=None)  # of equal ones the first, which had the fewest labels
        for method in methods:
            row = {"series": series, "method": method, "share": comparisons.share(settings[method]), "best": best}
            row |= {name: summary[method][name] for name in ("seeds", *COLUMNS[6:12])}
            if by_method[method]:
                row["images"] = np.mean([run["data"]["train"] for run in by_method[method]])
                row["patients"] = _patients(params, settings[method], [run["seed"] for run in by_method[method]])
                row |= _behind(by_method, method, best)
            rows.append(row | {"margin": params.evidence.margin})
    return pd.DataFrame(rows, columns=COLUMNS)


def series_of(settings: dict[str, dict]) -> dict[str, list[str]]:
    """The methods of every series, in ascending order of share, series in the order of `settings`.

    Raises:
        SummaryError: two methods of a series have one share.
    """
    alike: dict[str, list[str]] = {}
    for method, own in settings.items():
        recipe = {name: value for name, value in own["train"].items() if name not in FREE}
        alike.setdefault(json.dumps({**own, "train": recipe}, sort_keys=True, default=str), []).append(method)
    found = {}
    for methods in alike.values():
        shares = {}
        for method in methods:
            other = shares.setdefault(comparisons.share(settings[method]), method)
            if other != method:
                raise SummaryError(
                    f"methods {other} and {method} have one share and the same settings, {' and '.join(FREE[1:])} aside: "
                    "neither can stand for its series where methods train on several shares; drop one of them"
                )
        ordered = [shares[share] for share in sorted(shares)]
        found[ordered[-1]] = ordered
    return found


def settings_of(params: Params, method: str) -> dict:
    """A method's settings as the profile has them; not `params.settings`, since they must do for a hole too."""
    section = params.method[method]
    return {**params.model, **section, "train": {**params.train.model_dump(), **section.get("train", {})}}


def _behind(by_method: dict[str, list[dict]], method: str, best: str) -> dict:
    """A method's difference in accuracy from its series's best."""
    pairs = comparisons.paired(by_method, method, best)
    if method == best:
        return {"difference": 0.0}
    if not pairs:
        return {}
    found = comparisons.estimate([a for a, _ in pairs], "accuracy", [b for _, b in pairs])
    low, high = found.interval()
    return {"difference": found.mean, "lo": low, "hi": high}


def _patients(params: Params, settings: dict, seeds: list[int]) -> float | None:
    """How many patients a method trained on, by the data card: the mean over the seeds."""
    path = params.results_dir / "data" / "card.json"
    if not path.is_file():
        return None
    advice = "run `python -m pipelines.prepare` again"
    card, name = read_json(path, advice), train_split(settings["train"])
    counts = []
    for seed in seeds:
        try:
            facts = card["seeds"].get(str(seed)) or card["seeds"]["all"]
            if facts["patients"] is None:
                return None
            counts.append(float(facts["patients"][name]))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise SummaryError(f"{path}: no number of patients in split {name!r} of seed {seed}; {advice}") from None
    return float(np.mean(counts))
