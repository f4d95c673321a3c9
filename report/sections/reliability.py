"""Reliability diagrams of the declared methods: whether a confidence of 90 % is right nine times out of ten."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from report import drawing
from report.reading import Results
from report.sections import Section, Table
from report.text import mean_sd

GROUP, ORDER = "Evidence", 30
SHOWN = 6
FEW = 20  # predictions in a bin, below which its accuracy is mostly chance: sd 0.11 at one half
PALE = "#DCDCDC"
SCORES = {  # columns of scores.csv: headings
    "recall": "Recall", "precision": "Precision", "specificity": "Specificity", "f1": "F1", "ece": "ECE",
    "ece_chance": "ECE by chance", "brier": "Brier", "nll": "NLL",
}  # fmt: skip


def section(results: Results) -> Section | None:
    names = [name for name in results.leading(SHOWN) if name in set(results.reliability.method)]
    if not names or results.scores.empty or not results.reliability["count"].any():
        return None
    errors = results.scores.groupby("method")[["ece", "ece_chance"]].mean()
    title = finding(errors.loc[[name for name in names if name in results.learnt] or names])
    caption = (
        f"Share of predictions that are right, by the probability of the class named; {results.label}. On the line a "
        "network is right as often as it says, below it too sure of itself. Grey bars: share of the predictions. "
        f"Hollow: fewer than {FEW} predictions. ECE: expected calibration error; chance: that of a perfectly "
        "calibrated network on as many images."
    )
    told = "; ".join(f"{name} {errors.ece[name]:.3f} (chance {errors.ece_chance[name]:.3f})" for name in names)
    drawn = figure(results.reliability, names, errors, results.methods)
    tables = [scores(results.scores, list(results.methods.index), results.label)]
    return Section(title, caption, f"Calibration errors: {told}.", drawn, tables, folded=True)


def finding(errors: pd.DataFrame) -> str:
    """The best and the worst calibrated of these methods."""
    excess = (errors.ece - errors.ece_chance).sort_values(kind="stable")
    best, worst = excess.index[0], excess.index[-1]
    least, most = f"{errors.ece[best]:.3f}", f"{errors.ece[worst]:.3f}"
    if best == worst:
        return f"{best} has a calibration error of {least}, {errors.ece_chance[best]:.3f} by chance alone."
    return f"Of those drawn {best}'s probabilities can be believed most (ECE {least}), {worst}'s least ({most})."


def figure(bins: pd.DataFrame, names: list[str], errors: pd.DataFrame, methods: pd.DataFrame) -> Figure:
    """A panel a method. bins: as reliability.csv. errors: ece and ece_chance by method. methods: color, ink by name."""
    figure, axes = drawing.grid(len(names), min(3, len(names)), 2.0, 0.75, sharex=True, sharey=True)
    lowest = bins.low[bins["count"] > 0].min()
    for axis, name in zip(axes.flat, names):
        own = bins[(bins.method == name) & (bins["count"] > 0)]
        color = methods.color[name]
        axis.plot([0, 1], [0, 1], color="#9A9A9A", lw=1, zorder=1)
        share = own["count"] / own["count"].sum()
        axis.bar(own.low, share, width=own.high - own.low, align="edge", color=PALE, ec="white", lw=0.5, zorder=0)
        enough = own["count"] >= FEW
        axis.plot(own.confidence[enough], own.accuracy[enough], "o-", ms=4.5, lw=1.2, color=color, zorder=3)
        axis.plot(own.confidence[~enough], own.accuracy[~enough], "o", ms=4, mfc="white", mec=color, zorder=2)
        drawing.title(axis, name, methods.ink[name])
        text = f"ECE {errors.ece[name]:.3f}\nchance {errors.ece_chance[name]:.3f}"
        axis.text(0.04, 0.99, text, transform=axis.transAxes, va="top", fontsize=drawing.SMALL, linespacing=1.05)
        axis.set(xlim=(lowest, 1.02), ylim=(0, 1.42), yticks=[0, 0.5, 1])  # the strip above is free for the errors
    plt.setp(axes[-1], xlabel="Confidence")
    plt.setp(axes[:, 0], ylabel="Share right")
    drawing.below(figure, [
        Line2D([], [], marker="o", ms=4.5, color=drawing.INK, label="bin"),
        Line2D([], [], color="#9A9A9A", lw=1, label="right as often as said"),
        Patch(color=PALE, label="share of predictions"),
    ])  # fmt: skip
    return figure


def scores(frame: pd.DataFrame, order: list[str], label: str) -> Table:
    """Macro recall, precision, specificity and F1, and how far the probabilities can be believed, a row a method."""
    names = [name for name in order if name in set(frame.method)]
    seeds = frame.groupby("method")[list(SCORES)]
    # A run without a value leaves none of its method: the others' mean would flatter it.
    mean, sd = seeds.agg(lambda v: v.mean(skipna=False)).loc[names], seeds.agg(lambda v: v.std(skipna=False)).loc[names]
    raw = mean.add_suffix("_mean").join(sd.add_suffix("_sd")).reset_index()
    text = pd.DataFrame({
        "Method": names,
        **{head: [mean_sd(m, None if name == "ece_chance" else s, 3) for m, s in zip(mean[name], sd[name], strict=True)]
           for name, head in SCORES.items()},
    })  # fmt: skip
    note = (
        "Mean ± sample standard deviation over runs. Recall (which is balanced accuracy), precision, specificity and "
        "F1: each class against the rest, averaged with equal weights; a dash where a run never predicts some class "
        "or has no image of it. ECE: 15 bins of equal width (Guo et al. 2017). Brier: squared error summed over the "
        "classes. NLL: in nats. Lower is better in ECE, Brier and NLL."
    )
    return Table("scores", f"Scores by class, averaged, and of the probabilities: {label}", note, raw, text)
