"""What the figures share: a method a row, or a panel a method, with titles and legends in the same places."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from report import style

ROW = 0.235  # inches a row in figures with a method a row
TALLEST = 11.4  # inches, above which a figure as wide as a two-column page's text would be higher than that page


def abbreviated(name: str) -> str:
    """A class name that fits a tick: as it is up to ten characters, else its words' initials or its start."""
    name = str(name)
    if len(name) <= 10:
        return name
    words = name.replace("-", " ").replace("_", " ").split()
    return "".join(w[0] for w in words).upper() if len(words) > 1 else name[:9] + "."


def rows(methods: pd.DataFrame) -> dict[str, float]:
    """The height of each method's row, from the top down, with a gap between families and groups."""
    gaps = (methods.block != methods.block.shift()).cumsum() - 1
    return dict(zip(methods.index, -np.arange(len(methods)) - 0.45 * gaps.to_numpy(), strict=True))


def method_rows(results, y, xlabels, title, methods=None, right=0.868, legend=0):
    """Panels side by side, a method a row, names at the left in the family's colour; room for `legend` lines below."""
    methods = results.methods if methods is None else methods
    rows = max(y.values()) - min(y.values()) + 1
    bottom = 0.5 + 0.19 * legend + 0.1 * (legend > 0)
    height = min(ROW * rows + 0.6 + bottom, TALLEST)
    figure, axes = plt.subplots(1, len(xlabels), figsize=(style.WIDTH, height), sharey=True, squeeze=False)
    left = min(0.34, 0.045 + 0.0088 * max(map(len, methods.shown)))
    figure.subplots_adjust(left=left, right=right, top=1 - 0.58 / height, bottom=bottom / height, wspace=0.46)
    for axis, label in zip(axes[0], xlabels, strict=True):
        axis.set(xlabel=label, yticks=list(y.values()), ylim=(min(y.values()) - 0.6, max(y.values()) + 0.6))
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        axis.grid(axis="x")
    axes[0, 0].set_yticklabels(methods.shown)
    for label, color in zip(axes[0, 0].get_yticklabels(), methods.ink, strict=True):
        label.set_color(color)
    write_title(figure, title)
    return figure, list(axes[0])


def grid(results, panel, title, xlabel, ylabel, *, columns, bottom, label):
    """A panel a method, titled with its name; `panel`, `bottom`, `label`: inches of panel, margin, x label."""
    n = len(results.methods)
    rows = -(-n // columns)
    columns = -(-n // rows)
    titles = [style.wrapped(name, 92 // columns) for name in results.methods.shown]
    gap = 0.13 + 0.12 * (1 + max(title.count("\n") for title in titles))
    height = (panel + gap) * rows + bottom + 0.48
    figure, axes = plt.subplots(rows, columns, figsize=(style.WIDTH, height), sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=0.085, right=0.985, top=1 - (0.48 + gap) / height, bottom=bottom / height, wspace=0.1, hspace=gap / panel
    )
    for place, axis in enumerate(axes.flat):
        if place >= n:
            axis.set_visible(False)
            continue
        axis.set_title(titles[place], color=results.methods.ink.iloc[place], fontsize=7.8, linespacing=1.08, pad=3)
        if place + columns >= n:  # the lowest of its column, which need not be in the last row
            axis.tick_params(axis="x", labelbottom=True)
    figure.supxlabel(xlabel, fontsize=8.5, y=label / height, va="center")
    figure.supylabel(ylabel, fontsize=8.5, x=0.012)
    write_title(figure, title)
    return figure, list(axes.flat)[:n]


def write_title(figure: plt.Figure, text: str) -> None:
    first, second = text.split("\n", 1)
    height = figure.get_figheight()
    figure.text(0.012, 1 - 0.1 / height, first, fontsize=10, weight="bold", va="top")
    figure.text(0.012, 1 - 0.29 / height, second, fontsize=8, va="top", color="#555555")


def legend_below(figure, handles, columns=4) -> None:
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=columns,
        bbox_to_anchor=(0.5, 0.04 / figure.get_figheight()),
        handlelength=1.6,
        columnspacing=1.6,
        borderaxespad=0.0,
    )


def no_result(axis, height: float) -> None:
    axis.annotate(
        "no result",
        (0.01, height),
        xycoords=axis.get_yaxis_transform(),
        va="center",
        fontsize=7.5,
        color="#777777",
        style="italic",
    )


def spread(values: np.ndarray) -> np.ndarray:
    """Small offsets that part equal values, the same at every run."""
    return np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(len(values))


def widen_towards_one(axis, which: str, values, finest: float) -> None:
    """Scale the axis "x" or "y" of accuracies or AUCs by log(1 + finest - value), with limits around the values.

    Methods near one come apart though others are far below; `finest` is the shortfall from one where that ends.
    """

    def scaled(value):
        return -np.log10(np.maximum(1 + finest - np.asarray(value, dtype=float), finest / 10))

    getattr(axis, f"set_{which}scale")("function", functions=(scaled, lambda place: 1 + finest - 10.0**-place))
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)] if np.isfinite(values).any() else np.array([0.0, 1.0])
    low, high = scaled(values.min()), scaled(values.max())
    room = 0.05 * (high - low) + 0.01
    low, high = low - room, min(high + room, scaled(1) + 0.4 * room)
    ticks, apart = [], 0.13 if which == "x" else 0.07
    for tick in (1, 0.999, 0.998, 0.995, 0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0):
        if low <= scaled(tick) <= high and (not ticks or scaled(ticks[-1]) - scaled(tick) >= apart * (high - low)):
            ticks.append(tick)
    ends = [1 + finest - 10.0**-end for end in (low, high)]
    if len(ticks) < 2:  # all methods alike
        ticks = [tick for tick in MaxNLocator(4).tick_values(*ends) if ends[0] <= tick <= min(ends[1], 1)]
    getattr(axis, f"set_{which}lim")(*ends)
    getattr(axis, f"set_{which}ticks")(ticks, [f"{tick:g}" for tick in ticks])


def write_beside(axis, y: float, text: str, ink: str) -> None:
    """Write a row's value at the right of the panel, level with it."""
    axis.annotate(
        text,
        (1.015, y),
        xycoords=axis.get_yaxis_transform(),
        va="center",
        fontsize=7.5,
        color=ink,
        annotation_clip=False,
    )
