"""Label efficiency: which arms are one method on more and fewer labels, and how it fares there: rows of labels.csv.

A share is of the training patients (`train.share`). Arms whose settings are the same but for their share, epochs and
learning rate, which follow the number of labels, are one method. It is called by its arm of the largest share.
"""

import json

import numpy as np
import pandas as pd

from pipelines import comparisons
from pipelines.cells import SummaryError
from pipelines.params import Params, train_split
from pipelines.records import read_json

FREE = ("share", "epochs", "lr")  # of a recipe, what may differ between the arms of a method
COLUMNS = (
    "method", "arm", "share", "seeds", "images", "patients", "acc_mean", "acc_lo", "acc_hi", "auc_mean", "auc_lo",
    "auc_hi", "best", "difference", "lo", "hi", "margin",
)  # fmt: skip


def frame(params: Params, by_arm: dict[str, list[dict]], summary: dict[str, dict]) -> pd.DataFrame:
    """A row an arm, by method and ascending share; none where all arms of the profile train on one share.

    images, patients: trained on, means over the seeds; no patients where the data name none or have no card. best: the
    method's arm of highest mean accuracy; difference, lo, hi: from it, paired by seed, with a 95 % interval.

    Raises:
        SummaryError: two arms of a method have one share, or the data card lacks a share.
    """
    settings = {arm: settings_of(params, arm) for arm in by_arm}
    if len({comparisons.share(own) for own in settings.values()}) < 2:
        return pd.DataFrame(columns=COLUMNS)
    rows = []
    for method, arms in methods(settings).items():
        known = {arm: summary[arm]["acc_mean"] for arm in arms if by_arm[arm]}
        best = max(known, key=known.get, default=None)  # of equal ones the first, which had the fewest labels
        for arm in arms:
            row = {"method": method, "arm": arm, "share": comparisons.share(settings[arm]), "best": best}
            row |= {name: summary[arm][name] for name in ("seeds", *COLUMNS[6:12])}
            if by_arm[arm]:
                row["images"] = np.mean([cell["data"]["train"] for cell in by_arm[arm]])
                row["patients"] = _patients(params, settings[arm], [cell["seed"] for cell in by_arm[arm]])
                row |= _behind(by_arm, arm, best)
            rows.append(row | {"margin": params.evidence.margin})
    return pd.DataFrame(rows, columns=COLUMNS)


def methods(settings: dict[str, dict]) -> dict[str, list[str]]:
    """The arms of every method, in ascending order of share, methods in the order of `settings`.

    Raises:
        SummaryError: two arms of a method have one share.
    """
    alike: dict[str, list[str]] = {}
    for arm, own in settings.items():
        recipe = {name: value for name, value in own["train"].items() if name not in FREE}
        alike.setdefault(json.dumps({**own, "train": recipe}, sort_keys=True, default=str), []).append(arm)
    found = {}
    for arms in alike.values():
        shares = {}
        for arm in arms:
            other = shares.setdefault(comparisons.share(settings[arm]), arm)
            if other != arm:
                raise SummaryError(
                    f"arms {other} and {arm} have one share and the same settings, {' and '.join(FREE[1:])} aside: "
                    "neither can stand for its method where arms train on several shares; drop one of them"
                )
        ordered = [shares[share] for share in sorted(shares)]
        found[ordered[-1]] = ordered
    return found


def settings_of(params: Params, arm: str) -> dict:
    """An arm's settings as the profile has them; not `params.settings`, since they must do for a hole too."""
    section = params.arm[arm]
    return {**params.model, **section, "train": {**params.train.model_dump(), **section.get("train", {})}}


def _behind(by_arm: dict[str, list[dict]], arm: str, best: str) -> dict:
    """An arm's difference in accuracy from its method's best."""
    pairs = comparisons.paired(by_arm, arm, best)
    if arm == best:
        return {"difference": 0.0}
    if not pairs:
        return {}
    found = comparisons.estimate([a for a, _ in pairs], "accuracy", [b for _, b in pairs])
    low, high = found.interval()
    return {"difference": found.mean, "lo": low, "hi": high}


def _patients(params: Params, settings: dict, seeds: list[int]) -> float | None:
    """How many patients an arm trained on, by the data card: the mean over the seeds."""
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
