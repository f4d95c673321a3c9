"""Label efficiency: how accuracy grows with the training patients, a line a method on several shares of the labels."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from report import drawing
from report.reading import Results
from report.sections import Section, Table
from report.text import DASH, HIGHER, crossed, estimates, few, gap, number, percent, points, signed, span

GROUP, ORDER = "Result", 15
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
APART = 0.05  # of the log axis: how far points of one share are moved apart, so that no interval hides another
CLOSE = 0.01  # of a series' best accuracy


def section(results: Results) -> Section | None:
    rows = results.labels.dropna(subset=["acc_mean", "images"])
    if rows.share.nunique() < 2:
        return None
    caption = (
        f"Test accuracy by the number of training {counted(rows)[0]} (log scale) and their share of all, mean over "
        "runs with 95 % interval. A share lies inside every larger one of its seed; validation and test images are "
        f"the same for all. Points of one share are moved apart sideways. {results.label}."
    )
    told = "; ".join(
        f"{series} {', '.join(f'{value:.3f} at {percent(share)}' for share, value in zip(own.share, own.acc_mean))}"
        for series, own in rows.sort_values("share").groupby("series", sort=False)
    )
    tables = [table(rows, results.label), needed(rows, results.label)]
    drawn = figure(rows, results.methods)
    return Section(finding(rows, results.contrasts), caption, f"Accuracies: {told}.", drawn, tables)


def counted(rows: pd.DataFrame) -> tuple[str, pd.Series]:
    """What is counted, patients or else images, and the numbers."""
    return ("images", rows.images) if rows.patients.isna().any() else ("patients", rows.patients)


def finding(rows: pd.DataFrame, contrasts: pd.DataFrame) -> str:
    """What the declared contrasts show at the smallest and the largest share; without any, who is best there."""
    least, most = rows.share.min(), rows.share.max()
    own = contrasts[(contrasts.data == "test") & (contrasts.metric == "accuracy")]
    told = {share: _told(own[own.share == share]) for share in (least, most)}
    if told[least]:
        name = own.method[own.share == least].iloc[0]
        name = dict(zip(rows.method, rows.series)).get(name, name)
        more = f"; with {percent(most)}, {told[most]}" if told[most] else ""
        return f"With {percent(least)} of the labels {name} is {told[least]}{more}."
    first, last = (rows[rows.share == share].set_index("series").acc_mean.idxmax() for share in (least, most))
    if first == last:
        return f"{first} is best with {percent(least)} and with {percent(most)} of the labels."
    return f"With {percent(least)} of the labels {first} is best, with {percent(most)} {last}."


def _told(contrasts: pd.DataFrame) -> str:
    """The verdicts of one share in words; nothing where none was tested."""
    return ", ".join(
        f"{word} {few(list(contrasts.comparator[contrasts.higher == verdict]))}"
        for verdict, word in HIGHER.items()
        if (contrasts.higher == verdict).any()
    )


def figure(rows: pd.DataFrame, methods: pd.DataFrame) -> Figure:
    """A line a series. rows: as labels.csv. methods: kind and color by name."""
    unit, x = counted(rows)
    figure, axis = plt.subplots(figsize=(drawing.WIDTH, 3.9))
    marks = x.groupby(rows.share).mean()
    width = np.log(marks.max() / marks.min()) or 1.0
    series = methods[methods.index.isin(rows.series)]
    nth = series.groupby("kind").cumcount()
    handles = []
    for place, (name, look) in enumerate(series.iterrows()):
        own = rows[rows.series == name].sort_values("share")
        at = x[own.index] * np.exp(width * APART * (place - (len(series) - 1) / 2) / max(len(series) - 1, 1))
        style = {"color": look.color, "lw": 1.6, "ls": DASHES[nth[name] % len(DASHES)]}
        dot = {"marker": drawing.MARKERS.get(look.kind, "o"), "ms": 6.5, "mec": "white", "mew": 0.7}
        axis.vlines(at, own.acc_lo, own.acc_hi, color=look.color, lw=1.3, alpha=0.55, zorder=2)
        axis.plot(at, own.acc_mean, zorder=3, **style, **dot)
        handles.append(Line2D([], [], label=name, **style, **dot))
    axis.set(xscale="log", xlabel=f"Training {unit}, share of all", ylabel="Test accuracy")
    axis.xaxis.set_major_locator(FixedLocator(marks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticklabels([f"{value:.0f}\n{percent(share)}" for share, value in marks.items()])
    low, high = rows[["acc_lo", "acc_mean"]].min().min(), rows[["acc_hi", "acc_mean"]].max().max()
    room = 0.05 * (high - low) + 0.005
    axis.set_ylim(low - room, min(high + room, 1 + room / 2))
    drawing.ticks(axis, "y")
    drawing.below(figure, handles)
    return figure


def table(rows: pd.DataFrame, label: str) -> Table:
    """Accuracy of every series by share of the labels."""
    unit, count = counted(rows)
    heads = {share: f"{percent(share)} ({span(own.round())} {unit})" for share, own in count.groupby(rows.share)}
    long = rows.assign(head=rows.share.map(heads)).sort_values("share")
    told = estimates(long.acc_mean, long.acc_lo, long.acc_hi)
    text = crossed(long, ["series"], "head", told, list(rows.series.unique()))
    note = "Mean test accuracy over runs with its 95 % interval, by the share of the training patients, else images."
    return Table("label_accuracy", f"Accuracy by share of the labels: {label}", note, rows, text)


def needed(rows: pd.DataFrame, label: str) -> Table:
    """The smallest share at which each series comes close to its accuracy on the largest."""
    most = "all labels" if rows.share.max() == 1 else f"{percent(rows.share.max())} of the labels"
    found = []
    for series, own in rows.sort_values("share").groupby("series", sort=False):
        if own.share.max() < rows.share.max():  # never run on so many
            found.append({"Series": series})
            continue
        near = own[(own.difference >= -CLOSE - 1e-9) | (own.share == own.share.max())]
        sure = own[(own.lo > -CLOSE) | (own.share == own.share.max())]
        found.append({
            "Series": series, f"With {most}": number(own.acc_mean.iloc[-1], ".3f"),
            f"Within {points(CLOSE)} points from": percent(near.share.min()),
            "Difference there": gap(near.iloc[0]) if len(near) and pd.notna(near.lo.iloc[0]) else DASH,
            "Shown from": percent(sure.share.min()),
        })  # fmt: skip
    note = (
        f"Difference: accuracy minus that with {most}, paired by run and image, with an unadjusted 95 % interval. "
        f"Shown from: the smallest share at which that interval lies above {signed(-CLOSE)} as a whole."
    )
    return Table("label_needs", f"Labels that a series needs: {label}", note, rows, pd.DataFrame(found).fillna(DASH))
