"""Figures beyond accuracy, as those of `report.figures`: reliability diagrams, and the stability of training."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from pipelines.evidence.stability import DEFINITIONS
from report import layout, style
from report.quality import POINTS, read
from report.results import Results

FEW = 20  # predictions in a bin, below which its accuracy is mostly chance: sd 0.11 at one half
_PALE = "#D9D9D9"


def reliability(results: Results) -> plt.Figure | None:
    """Accuracy by confidence, a panel a method: the diagonal is a network that is right as often as it says."""
    frame = read(results, "reliability")
    if frame.empty:
        return None
    errors = read(results, "scores").groupby("method")[["ece", "ece_chance"]].mean()
    figure, axes = layout.grid(
        results,
        1.3,
        f"Accuracy by confidence (reliability; predictions of all seeds)\n{results.label}",
        "Confidence: the highest probability",
        "Share that is right",
        columns=4 if len(results.methods) <= 24 else 5,
        bottom=0.72,
        label=0.36,
    )
    lowest = frame.low[frame["count"] > 0].min()
    for axis, (method, row) in zip(axes, results.methods.iterrows(), strict=True):
        axis.set(xlim=(lowest, 1.02), ylim=(0, 1.28), yticks=[0, 0.5, 1])  # a strip above is free for the errors
        axis.spines["left"].set_bounds(0, 1)
        axis.xaxis.set_major_locator(MaxNLocator(4, steps=[2, 5, 10]))
        own = frame[(frame.method == method) & (frame["count"] > 0)]
        if own.empty:
            axis.text(0.5, 0.5, "no result", transform=axis.transAxes, ha="center", color="#777777", style="italic")
            continue
        axis.plot([0, 1], [0, 1], color="#9A9A9A", lw=0.8, zorder=1)
        share = own["count"] / own["count"].sum()
        axis.bar(own.low, share, width=own.high - own.low, align="edge", color=_PALE, ec="white", lw=0.5, zorder=0)
        few = own["count"] < FEW
        axis.plot(own.confidence[~few], own.accuracy[~few], color=row.color, lw=1.0, alpha=0.6, zorder=2)
        for bins, size, fill in ((own[~few], 3.8, row.color), (own[few], 2.8, "white")):
            axis.plot(
                bins.confidence, bins.accuracy, "o", ms=size, mfc=fill, mec=row.color, mew=0.8, zorder=3, clip_on=False
            )
        if method in errors.index:
            text = f"ECE {errors.ece[method]:.3f}, chance {errors.ece_chance[method]:.3f}"
            axis.text(0.03, 0.98, text, transform=axis.transAxes, va="top", fontsize=7, color=style.INK)
    dot = {"marker": "o", "ls": "", "mec": style.INK, "mew": 0.8}
    handles = [
        Line2D([], [], mfc=style.INK, ms=3.8, label="bin", **dot),
        Line2D([], [], mfc="white", ms=2.8, label=f"bin of fewer than {FEW} predictions", **dot),
        Patch(color=_PALE, label="share of the predictions"),
        Line2D([], [], color="#9A9A9A", lw=0.8, label="right as often as said"),
    ]
    layout.legend_below(figure, handles)
    return figure


def stability(results: Results) -> plt.Figure | None:
    """Spread between seeds, jitter and largest drawdown of the validation accuracy, with intervals over seeds."""
    frame = read(results, "stability")
    rows = frame[frame.measure.isin(POINTS)].set_index(["measure", "method"])[["value", "lo", "hi"]].astype(float) * 100
    if rows.value.isna().all():
        return None
    y = layout.rows(results.methods)
    figure, axes = layout.method_rows(
        results,
        y,
        [DEFINITIONS[name][0] for name in POINTS],
        f"Stability of training: validation accuracy, percentage points (less is steadier)\n{results.describe('val')}",
        right=0.975,
        legend=1,
    )
    figure.subplots_adjust(wspace=0.12)  # no values are written beside these panels
    for axis, measure in zip(axes, POINTS, strict=True):
        own = rows.loc[measure].reindex(results.methods.index)
        # An interval of two seeds may reach thirty times the value: cut there, the values themselves stay apart.
        largest = np.nan_to_num(own.value.max())
        limit = max(min(2.5 * largest, 1.05 * own.hi.max()), 1.15 * largest, 0.1)
        axis.set_xlim(-0.02 * limit, limit)
        axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        for method, row in results.methods.iterrows():
            value, low, high = own.loc[method]
            if pd.isna(value):
                _say(axis, y[method], "undefined" if row.seeds else "no result")
                continue
            if pd.notna(low):
                axis.plot([low, min(high, limit)], [y[method]] * 2, color=row.color, lw=1.4, zorder=2)
                if high > limit:
                    axis.plot(limit, y[method], ">", ms=4, color=row.color, clip_on=False, zorder=3)
            axis.plot(value, y[method], "o", ms=4.6, color=row.color, mec="white", mew=0.6, zorder=4, clip_on=False)
    handles = [
        Line2D([], [], marker="o", ls="", ms=4.6, color=style.INK, label="value"),
        Line2D([], [], color=style.INK, lw=1.4, label="95 % interval over seeds"),
        Line2D([], [], marker=">", ls="", ms=4, color=style.INK, label="interval goes on"),
    ]
    layout.legend_below(figure, handles)
    return figure


def _say(axis, height: float, text: str) -> None:
    axis.annotate(
        text,
        (0.03, height),
        xycoords=axis.get_yaxis_transform(),
        va="center",
        fontsize=7.5,
        color="#777777",
        style="italic",
    )


FIGURES = (reliability, stability)
