"""Label efficiency: which methods are one series on more and fewer labels, and how it fares there: rows of labels.csv.

A share is of the training patients (`train.share`). Methods whose settings are the same but for their share, epochs and
learning rate, which follow the number of labels, are one series. It is called by its method of the largest share.
"""

import json

import numpy as np

from pipelines.evidence import outcomes as tests
from pipelines.evidence.outcomes import Outcome
from pipelines.evidence.pairs import share
from pipelines.files.errors import UserError
from pipelines.files.records import read_json
from pipelines.profile import Params, train_split

FREE = ("share", "epochs", "lr")  # of a recipe, what may differ between the methods of a series


def rows(params: Params, outcomes: dict[str, list[Outcome]], summary: dict[str, dict]) -> list[dict]:
    """A row a method, by series and ascending share; none where all methods of the profile train on one share.

    images, patients: trained on, means over the runs; no patients where the data name none or have no card. difference,
    lo, hi: from the series's method of the largest share that was run, paired by seed, with a 95 % interval.

    Raises:
        UserError: two methods of a series have one share, or the data card lacks a share.
    """
    settings = {method: settings_of(params, method) for method in outcomes}
    if len({share(own) for own in settings.values()}) < 2:
        return []
    figures = ("acc_mean", "acc_lo", "acc_hi", "auc_mean", "auc_lo", "auc_hi")
    found = []
    for series, methods in series_of(settings).items():
        most = next((method for method in reversed(methods.values()) if outcomes[method]), series)
        for own, method in methods.items():
            row = {"series": series, "method": method, "share": own, "runs": len(outcomes[method])}
            row |= {name: summary[method][name] for name in figures}
            if outcomes[method]:
                row["images"] = np.mean([run.trained_on for run in outcomes[method]])
                row["patients"] = _patients(params, settings[method], [run.seed for run in outcomes[method]])
            pairs = tests.paired(outcomes[method], outcomes[most])
            if pairs and method != most:
                behind = tests.difference(pairs, "accuracy")
                lo, hi = behind.interval_over_runs()
                row |= {"difference": behind.mean, "lo": lo, "hi": hi}
            found.append(row)
    return found


def series_of(settings: dict[str, dict]) -> dict[str, dict[float, str]]:
    """The methods of every series by share, in ascending order, series in the order of `settings`.

    Raises:
        UserError: two methods of a series have one share.
    """
    alike: dict[str, dict[float, str]] = {}
    for method, own in settings.items():
        recipe = {name: value for name, value in own["train"].items() if name not in FREE}
        series = alike.setdefault(json.dumps({**own, "train": recipe}, sort_keys=True, default=str), {})
        if (other := series.setdefault(share(own), method)) != method:
            raise UserError(
                f"methods {other} and {method} have one share and the same settings, {' and '.join(FREE[1:])} aside: "
                "neither can stand for its series where methods train on several shares; drop one of them"
            )
    return {series[max(series)]: dict(sorted(series.items())) for series in alike.values()}


def names_by_share(settings: dict[str, dict]) -> dict[float, dict[str, str]]:
    """What each series is called at each share, {share: {series: method}}, largest share first.

    Where all methods train on one share each is called as it is.
    """
    shares = sorted({share(own) for own in settings.values()}, reverse=True)
    if len(shares) < 2:
        return {own: {method: method for method in settings} for own in shares}
    series = series_of(settings)
    return {own: {name: methods[own] for name, methods in series.items() if own in methods} for own in shares}


def settings_of(params: Params, method: str) -> dict:
    """A method's settings as the profile has them; not `params.settings`, since they must do for a hole too."""
    section = {key: value for key, value in params.method[method].items() if key != "seeds"}
    return {**params.model, **section, "train": {**params.train.model_dump(), **section.get("train", {})}}


def _patients(params: Params, settings: dict, seeds: list[int]) -> float | None:
    """How many patients a method trained on, by the data card: the mean over the seeds."""
    path, advice = params.results_dir / "data" / "card.json", "run `python -m pipelines.prepare` again"
    if not path.is_file():
        return None
    card, name = read_json(path, advice), train_split(settings["train"])
    counts = []
    for seed in seeds:
        try:
            facts = card["seeds"].get(str(seed)) or card["seeds"]["all"]
            if facts["patients"] is None:
                return None
            counts.append(float(facts["patients"][name]))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{path}: no number of patients in split {name!r} of seed {seed}; {advice}") from None
    return float(np.mean(counts))
