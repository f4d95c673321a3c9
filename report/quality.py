"""Tables beyond accuracy: scores by class and of the probabilities, and the stability of training curves.

The files they read, scores.csv, class_scores.csv, reliability.csv and stability.csv, are not in results summarised
before there were any; `read` then gives an empty frame, and what is made of it is an empty table or no figure.
"""

import pandas as pd

from pipelines.evidence.stability import DEFINITIONS, INTERVALS
from report.results import Results, _csv
from report.tables import DASH, Table, mean_sd

SCORES = {  # columns of scores.csv: headings
    "recall": "Recall", "precision": "Precision", "specificity": "Specificity", "f1": "F1", "ece": "ECE",
    "ece_chance": "ECE by chance", "brier": "Brier", "nll": "NLL",
}  # fmt: skip
BY_CLASS = ("recall", "precision", "specificity", "f1")
POINTS = ("spread", "jitter", "drawdown")  # measures in units of accuracy, shown in percentage points
COLUMNS = {
    "scores": ["method", "seed", *SCORES],
    "class_scores": ["method", "seed", "class", "images", "predicted", *BY_CLASS],
    "reliability": ["method", "bin", "low", "high", "confidence", "accuracy", "count"],
    "stability": ["method", "measure", "value", "lo", "hi", "seeds"],
}


def read(results: Results, name: str) -> pd.DataFrame:
    """One of the files of `COLUMNS`; empty where there is none.

    Raises:
        ReportError: the file is not readable or lacks a column.
    """
    path = results.directory / f"{name}.csv"
    return _csv(path, COLUMNS[name]) if path.is_file() else pd.DataFrame(columns=COLUMNS[name])


def scores(results: Results) -> Table:
    """Macro recall, precision, specificity and F1, and how far the probabilities can be believed."""
    frame = read(results, "scores")
    mean, sd = _over_seeds(frame, "method", list(SCORES))
    mean, sd = mean.reindex(results.methods.index), sd.reindex(results.methods.index)
    columns = [(name, part) for name in SCORES for part in ("mean", "sd")]
    raw = pd.DataFrame({f"{name}_{part}": (mean if part == "mean" else sd)[name] for name, part in columns})
    raw = raw.rename_axis("method").reset_index()
    sd["ece_chance"] = float("nan")  # a yardstick, shown without a deviation
    text = pd.DataFrame({
        "Method": results.methods.index,
        **{head: [mean_sd(m, s, 3) for m, s in zip(mean[name], sd[name], strict=True)]
           for name, head in SCORES.items()},
    })  # fmt: skip
    note = (
        "Mean ± sample standard deviation over seeds. Recall, precision, specificity and F1: of each class against the "
        "rest, averaged over classes with equal weight (macro); a dash where a seed never predicts some class, so that "
        "there is no precision of it, or has no image of one. ECE: expected calibration error, 15 bins of equal width "
        "on the highest probability (Guo et al. 2017). By chance: what a perfectly calibrated network with the same "
        "confidences would show on as many images; an ECE near it is no sign of bad calibration. Brier: squared error "
        "summed over the classes, from 0 to 2. NLL: negative log-likelihood of the label, in nats, probabilities below "
        "2.2e-16 counted as that. Lower is better in ECE, Brier and NLL."
    )
    title = f"Scores by class, averaged, and of the probabilities: {results.label}"
    return Table("scores", title, note, raw if len(frame) else raw.iloc[:0], text)


def class_scores(results: Results) -> Table:
    """Recall, precision, specificity and F1 of each class."""
    frame = read(results, "class_scores")
    classes = list(dict.fromkeys(frame["class"].astype(str)))
    places = pd.MultiIndex.from_product([results.methods.index, classes], names=["method", "class"])
    mean, sd = _over_seeds(frame.astype({"class": str}), ["method", "class"], list(BY_CLASS))
    mean, sd = mean.reindex(places), sd.reindex(places)
    raw = mean.add_suffix("_mean").join(sd.add_suffix("_sd")).reset_index()
    text = pd.DataFrame({
        "Method": raw.method, "Class": raw["class"],
        **{SCORES[name]: [mean_sd(m, s, 3) for m, s in zip(mean[name], sd[name], strict=True)] for name in BY_CLASS},
    })  # fmt: skip
    note = (
        "One class against the rest; mean ± sample standard deviation over seeds. A dash where a seed has no image of "
        "the class, or for precision never predicts it."
    )
    return Table("class_scores", f"Scores by class: {results.label}", note, raw, text, left=2)


def _over_seeds(frame: pd.DataFrame, by, names: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means and sample standard deviations; NaN where any seed is: leaving seeds out would flatter the others' method."""
    seeds = frame.astype(dict.fromkeys(names, float)).groupby(by, sort=False)[names]
    return seeds.mean(skipna=False), seeds.std(skipna=False)


def stability(results: Results) -> Table:
    """How steady training is, with intervals over seeds; the note defines every column."""
    frame = read(results, "stability")
    raw = frame.assign(order=frame.method.map({method: place for place, method in enumerate(results.methods.index)}))
    raw = raw.sort_values("order", kind="stable").drop(columns="order").reset_index(drop=True)
    rows = frame.set_index(["method", "measure"])
    text = pd.DataFrame({
        "Method": results.methods.index,
        **{heading(name): [_shown(rows, method, name) for method in results.methods.index] for name in DEFINITIONS},
    })  # fmt: skip
    meanings = "; ".join(f"{title}: {formula}" for title, formula in DEFINITIONS.values())
    note = (
        "a(t) is the validation accuracy after epoch t; warm-up is the first 30 % of the epochs, rounded up. Values, "
        f"but the spread, are means over seeds. {meanings}. {INTERVALS} The more epochs a method trains, the larger the "
        "drawdown and the number of spikes that noise alone brings about."
    )
    if results.folds:
        note += " With folds, every seed has validation images of its own, and the spread holds their difference too."
    return Table("stability", f"Stability of training: {results.describe('val')}", note, raw, text)


def heading(name: str) -> str:
    """A measure's title, with the unit in which it is shown."""
    return DEFINITIONS[name][0] + (", points" if name in POINTS else "")


def _shown(rows: pd.DataFrame, method: str, measure: str) -> str:
    """A value with its interval, accuracies in percentage points."""
    if (method, measure) not in rows.index or pd.isna(rows.value[method, measure]):
        return DASH
    value, low, high = (
        float(v) * (100 if measure in POINTS else 1) for v in rows.loc[(method, measure), ["value", "lo", "hi"]]
    )
    form = ".2f" if measure in POINTS else ".1f"
    return f"{value:{form}}" + ("" if pd.isna(low) else f" [{low:{form}}, {high:{form}}]")


TABLES = (scores, class_scores, stability)
