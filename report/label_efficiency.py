"""Label efficiency: how accuracy and AUC grow with the training patients, and from where on more of them add little.

A series is a method on several shares of the labels; see `pipelines.shares`, which says which methods those are.
"""

from itertools import groupby

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from report import layout, style
from report.comparisons import points, verdict
from report.results import Results, span
from report.tables import DASH, Table, interval, number, signed

CAPTION = (
    "A dot is a mean over seeds. Points of one share are moved apart sideways, so that their intervals can be seen; a "
    "share lies inside every larger one of its seed."
)
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
_COUNTS = ("share", "patients", "images")
_DIFFERENCE = ("difference", "lo", "hi")
APART = 0.035  # of the log axis: how far points of one share are moved apart


def label_efficiency(results: Results) -> plt.Figure | None:
    """Test accuracy and AUC against the patients trained on, on a log scale: a line a series, 95 % intervals."""
    rows = results.labels.dropna(subset=["acc_mean", "images"])
    if rows.empty:
        return None
    series = _series(results, rows)
    unit, x = _counted(rows)
    figure, axes = plt.subplots(1, 2, figsize=(style.WIDTH, 4.05 + 0.17 * -(-len(series) // 3)), squeeze=False)
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.075, right=0.985, top=1 - 0.72 / height, bottom=1 - 3.35 / height, wspace=0.2)
    ticks = x.groupby(rows.share).mean()
    width = np.log(ticks.max() / ticks.min()) or 1.0
    handles = []
    for place, (series, (color, marker, dashes)) in enumerate(series.items()):
        own = rows[rows.series == series]
        at = x[own.index] * np.exp(width * APART * (place - (len(series) - 1) / 2) / max(len(series) - 1, 1))
        for axis, short in zip(axes[0], ("acc", "auc"), strict=True):
            axis.vlines(at, own[f"{short}_lo"], own[f"{short}_hi"], color=color, lw=1.0, alpha=0.55, zorder=2)
            axis.plot(at, own[f"{short}_mean"], color=color, lw=1.3, ls=dashes, zorder=3)
            axis.plot(at, own[f"{short}_mean"], marker, ms=5.5, color=color, mec="white", mew=0.6, zorder=4)
        handles.append(
            Line2D([], [], color=color, lw=1.3, ls=dashes, marker=marker, ms=5.5, mec="white", mew=0.6, label=series)
        )
    for axis, name in zip(axes[0], ("Test accuracy", "Macro AUC (one vs. rest)"), strict=True):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator(ticks))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticklabels([f"{value:.0f}\n{_percent(share)}" for share, value in ticks.items()])
        axis.set(title=name, xlabel=f"{unit.capitalize()} trained on (log scale), and their share of all")
        axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        low, high = axis.get_ylim()
        axis.set_ylim(low, min(high, 1 + 0.02 * (1 - low)))
        axis.grid(axis="y")
    layout.write_title(figure, f"Accuracy and AUC by number of labels (bar: 95 % interval)\n{results.label}")
    layout.legend_below(figure, handles, columns=3)
    return figure


def _series(results: Results, rows: pd.DataFrame) -> dict[str, tuple]:
    """Colour, marker and line style of each series that has a row, in the order shown; alike where styles run out."""
    methods = results.methods.loc[[method for method in results.methods.index if method in set(rows.series)]]
    nth = methods.groupby(["group", "family"]).cumcount()
    return {
        method: (row.color, style.MARKERS[row.group], DASHES[nth[method] % len(DASHES)])
        for method, row in methods.iterrows()
    }


def _counted(rows: pd.DataFrame) -> tuple[str, pd.Series]:
    """What is counted, patients or else images, and the numbers."""
    return ("images", rows.images) if rows.patients.isna().any() else ("patients", rows.patients)


def label_accuracy(results: Results) -> Table:
    """Accuracy of every series by share of the labels."""
    raw = results.labels
    text = pd.DataFrame()
    if len(raw):
        unit, count = _counted(raw.dropna(subset="images"))
        heads = {
            share: f"{_percent(share)} ({span(own.round())} {unit})"
            for share, own in count.groupby(raw.share[count.index])
        }
        text = pd.DataFrame([
            {"Series": series, **{
                heads.get(share, _percent(share)): _mean_interval(raw[(raw.series == series) & (raw.share == share)])
                for share in sorted(raw.share.unique())
            }}
            for series in _in_order(results)
        ])  # fmt: skip
    note = (
        "Mean test accuracy over seeds, with its 95 % interval, by the share of the training patients (images, where "
        "none is named) that was trained on. A share lies inside every larger one of its seed; validation and "
        "test images are the same for all."
    )
    return Table("label_accuracy", f"Accuracy by share of the labels: {results.label}", note, raw, text)


def label_needs(results: Results) -> Table:
    """The smallest share at which each series comes close to its own best, and how it compares at each share."""
    rows = [needs(results, series) for series in _in_order(results)]
    margin = results.labels.margin.max() if rows else np.nan
    close = points(margin, short=True)
    text = pd.DataFrame({
        "Series": [row["series"] for row in rows],
        "Best accuracy": [_best_text(row) for row in rows],
        f"Within {close} from": [_share_text(row, "within") for row in rows],
        "Difference there": [DASH if pd.isna(row["lo"]) else
                             f"{signed(row['difference'])} {interval(row['lo'], row['hi'], plus=True)}"
                             for row in rows],
        "Shown from": [_share_text(row, "shown") for row in rows],
        "Against full fine-tuning": [row["against_full"] or DASH for row in rows],
    })  # fmt: skip
    note = (
        f"Within {close} from: the smallest share of the labels with which a series's mean accuracy is at most "
        f"{points(margin)} below its own best; the difference is paired by seed and test image, with a 95 % interval. "
        f"Shown from: the smallest share at which that interval lies above {signed(-margin)} as a whole. The best is "
        "picked by the same test images, which flatters it a little. Against full fine-tuning: on the same backbone "
        "and the same share, the verdicts of the table of differences, whose Holm correction is over all shares."
    )
    return Table("label_needs", f"Labels that a series needs: {results.label}", note, pd.DataFrame(rows), text, left=6)


def needs(results: Results, series: str) -> dict:
    """What `label_needs` says of one series; NaN where no share has a result."""
    own = results.labels[results.labels.series == series].sort_values("share")
    found = own.dropna(subset=["difference"])

    def first(enough) -> pd.Series:
        return found[enough].iloc[0] if enough.any() else pd.Series(np.nan, own.columns)

    at_best = found.method == found.best
    best = first(at_best)
    within = first(found.difference >= -found.margin - 1e-9)
    shown = first(at_best | (found.lo > -found.margin))
    row = {"series": series, "best": best.acc_mean, "best_share": best.share}
    row |= {f"within_{name}": within[name] for name in _COUNTS} | {name: within[name] for name in _DIFFERENCE}
    row |= {f"shown_{name}": shown[name] for name in _COUNTS}
    return row | {"against_full": _against_full(results, own)}


def _against_full(results: Results, own: pd.DataFrame) -> str:
    """Verdicts against full fine-tuning on the same share, runs of shares with one verdict together."""
    pairs = results.comparisons[results.comparisons.against == "full"]
    pairs = {row.method: verdict(row) for row in pairs.itertuples()}
    told = [(pairs[row.method], _percent(row.share)) for row in own.itertuples() if pairs.get(row.method, DASH) != DASH]
    runs = [(word, [share for _, share in run]) for word, run in groupby(told, key=lambda pair: pair[0])]
    return "; ".join(f"{word} at {shares[0] + (f' to {shares[-1]}' if shares[1:] else '')}" for word, shares in runs)


def finding(results: Results) -> list[str]:
    """A sentence for the head of the page, where the profile has shares."""
    told = {series: needs(results, series) for series in _in_order(results)}
    told = {series: row for series, row in told.items() if pd.notna(row["within_share"])}
    if not told:
        return []
    parts = ", ".join(f"`{series}` {_share_text(row, 'within')}" for series, row in told.items())
    return [
        "Label efficiency: the smallest share of the labels at which a series is within "
        f"{points(results.labels.margin.max())} of its own best accuracy: {parts}."
    ]


def only_largest(results: Results) -> str:
    """A sentence for figures that show, where methods differ in share, only those trained on the largest."""
    if results.labels.empty:
        return ""
    return f" Only the methods that are trained on {_percent(results.methods.share.max())} of the labels."


def _in_order(results: Results) -> list[str]:
    return [method for method in results.methods.index if method in set(results.labels.series)]


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _best_text(row: dict) -> str:
    return DASH if pd.isna(row["best"]) else f"{number(row['best'], '.3f')} at {_percent(row['best_share'])}"


def _share_text(row: dict, name: str) -> str:
    """'25 % (111 patients)', or a dash."""
    if pd.isna(row[f"{name}_share"]):
        return DASH
    unit = "images" if pd.isna(row[f"{name}_patients"]) else "patients"
    return f"{_percent(row[f'{name}_share'])} ({row[f'{name}_{unit}']:.0f} {unit})"


def _mean_interval(rows: pd.DataFrame) -> str:
    if rows.empty or pd.isna(rows.acc_mean.iloc[0]):
        return DASH
    (row,) = rows.itertuples()
    return f"{number(row.acc_mean, '.3f')} {interval(row.acc_lo, row.acc_hi)}"


TABLES = (label_accuracy, label_needs)
