"""The figures of the report. Each function draws one from `Results` and returns it, or None with nothing to draw.

Arms without a cell keep their place, marked "no result", so that a hole is seen as one.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from report import style
from report.results import Results, counterparts

ROW = 0.235  # inches a row in figures with an arm a row


def draw_all(results: Results, directory: Path) -> list[str]:
    """Draw every figure into `directory` as SVG, PDF and PNG; returns the names of those drawn.

    A figure left over from an earlier run with nothing to draw now is removed.
    """
    drawn = []
    with plt.rc_context({**plt.rcParamsDefault, "backend": plt.get_backend(), **style.RC}):
        for draw in (accuracy, learning_curves, parameters, cost, confusion, beside_paper):
            figure = draw(results)
            if figure is None:
                for suffix in (".svg", ".pdf", ".png"):
                    (directory / draw.__name__).with_suffix(suffix).unlink(missing_ok=True)
                continue
            style.save(figure, directory / draw.__name__)
            drawn.append(draw.__name__)
    return drawn


def accuracy(results: Results) -> plt.Figure:
    """Test accuracy and AUC: a dot a seed, the mean, and its 95 % interval."""
    y = _rows(results.arms)
    figure, axes = _arm_rows(results, y, ["Accuracy", "Macro AUC (one class against the rest)"],
                             f"Test accuracy and AUC\n{results.label}")
    for axis, short, column in zip(axes, ("acc", "auc"), ("test_acc", "test_auc"), strict=True):
        for arm, row in results.arms.iterrows():
            if not row.seeds:
                _no_result(axis, y[arm])
                continue
            seeds = results.complete.loc[results.complete.arm == arm, column].to_numpy()
            axis.plot([row[f"{short}_lo"], row[f"{short}_hi"]], [y[arm]] * 2, color=row.color, lw=1.6, zorder=2)
            axis.plot(seeds, y[arm] + _spread(seeds), "o", ms=3.6, mfc="white", mec=row.color, mew=0.8, zorder=3, clip_on=False)
            axis.plot(row[f"{short}_mean"], y[arm], "|", ms=11, mew=2.2, color=row.color, zorder=4)
            short_of = "" if row.seeds == row.planned else f" ({row.seeds}/{row.planned})"
            sd = "" if pd.isna(row[f"{short}_sd"]) else f" ± {row[f'{short}_sd']:.3f}"
            axis.annotate(f"{row[f'{short}_mean']:.3f}{sd}{short_of}", (1.015, y[arm]), xycoords=axis.get_yaxis_transform(),
                          va="center", fontsize=7.5, color=row.color, annotation_clip=False)
        if results.reference:
            axis.axvline(results.arms.loc[results.reference, f"{short}_mean"], color="black", lw=0.7, ls=(0, (4, 3)), zorder=1)
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        _unit_limit(axis)
    handles = [Line2D([], [], marker="o", ls="", ms=3.6, mfc="white", mec=style.INK, mew=0.8, label="one seed"),
               Line2D([], [], marker="|", ls="", ms=11, mew=2.2, color=style.INK, label="mean (written: mean ± sd)"),
               Line2D([], [], color=style.INK, lw=1.6, label="95 % bootstrap interval")]
    if results.reference:
        handles.append(Line2D([], [], color="black", lw=0.7, ls=(0, (4, 3)), label=f"mean of {results.reference}"))
    _legend_below(figure, handles)
    return figure


def learning_curves(results: Results) -> plt.Figure | None:
    """Validation accuracy by epoch: a panel an arm, over the reference arms in grey."""
    if results.curves.empty:
        return None
    curves = results.curves.groupby(["arm", "epoch"]).val_acc.agg(["mean", "min", "max"])
    figure, axes = _grid(results, 1.5, f"Validation accuracy by epoch\n{results.label}", "Epoch", "Validation accuracy")
    drawn = [arm for arm in results.arms.index if arm in curves.index]
    behind = {results.arms.family[arm]: arm for arm in reversed(drawn) if results.arms.family[arm] in ("full", "transfer")}
    styles = {"full": (0, (1, 0)), "transfer": (0, (3, 2))}
    # A bad first epoch may leave the panel: the late epochs are what is compared.
    low = np.quantile(curves["min"], 0.04)
    high = curves["max"].max()
    margin = 0.06 * (high - low) + 1e-3
    for axis, (arm, row) in zip(axes, results.arms.iterrows(), strict=True):
        axis.set(ylim=(low - margin, high + margin))
        axis.yaxis.set_major_locator(MaxNLocator(4))
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.grid(axis="y")
        if arm not in drawn:
            axis.text(0.5, 0.5, "no result", transform=axis.transAxes, ha="center", color="#777777", style="italic")
            continue
        for family, other in behind.items():
            if other != arm:
                axis.plot(curves.loc[other].index, curves.loc[other, "mean"], color="#9A9A9A", lw=0.9, ls=styles[family])
        own = curves.loc[arm]
        axis.fill_between(own.index, own["min"], own["max"], color=row.color, alpha=0.22, lw=0)
        axis.plot(own.index, own["mean"], color=row.color, lw=1.6)
    handles = [Line2D([], [], color=style.INK, lw=1.6, label="the panel's arm: mean, band from lowest to highest seed")]
    handles += [Line2D([], [], color="#9A9A9A", lw=0.9, ls=styles[f], label=behind[f]) for f in styles if f in behind]
    _legend_below(figure, handles)
    return figure


def parameters(results: Results) -> plt.Figure | None:
    """Test accuracy against the number of trained parameters, every point named at the right-hand edge."""
    arms = results.arms[results.arms.seeds > 0].sort_values("acc_mean", kind="stable")
    if arms.empty:
        return None
    height = max(3.6, 0.165 * len(arms) + 1.3)
    figure, axis = plt.subplots(figsize=(style.WIDTH, height))
    axis.set_xscale("log")
    for _, row in arms.iterrows():
        axis.plot([row.trainable] * 2, [row.acc_lo, row.acc_hi], color=row.color, lw=0.9, alpha=0.55, zorder=2)
        axis.plot(row.trainable, row.acc_mean, "o", ms=6, color=row.color, mec="white", mew=0.7, zorder=4)
    low, high = arms.acc_lo.min(), arms.acc_hi.max()
    axis.set(ylim=(low - 0.03 * (high - low) - 1e-4, high + 0.03 * (high - low) + 1e-4),
             xlim=(arms.trainable.min() / 1.25, arms.trainable.max() * 1.25),
             xlabel="Trained parameters (log scale)", ylabel="Test accuracy, mean over seeds")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=50))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: millions(v)))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(axis="y")
    figure.subplots_adjust(left=0.085, right=0.66, top=1 - 0.58 / height, bottom=0.5 / height)
    _title(figure, f"Accuracy against trained parameters (bar: 95 % interval)\n{results.label}")
    # In units of the axis height a label takes a line of 0.155 inch.
    wanted = axis.transLimits.transform(np.c_[np.ones(len(arms)), arms.acc_mean])[:, 1]
    placed = spaced(wanted, 0.155 / axis.get_position().height / height, 0.0, 1.0)
    for (arm, row), at in zip(arms.iterrows(), placed, strict=True):
        axis.annotate("", (row.trainable, row.acc_mean), (1.045, at), textcoords="axes fraction", annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": row.color, "lw": 0.5, "alpha": 0.55, "shrinkA": 0, "shrinkB": 4}, zorder=1)
        axis.annotate(f"{arm}  {millions(row.trainable)}", (1.05, at), xycoords="axes fraction", va="center", fontsize=7.5,
                      color=row.color, annotation_clip=False)
    return figure


def cost(results: Results) -> plt.Figure | None:
    """Seconds a training epoch, and peak GPU memory where it was recorded; each also relative to full fine-tuning."""
    panels = [("epoch_s", "Training time, s an epoch", 1.0), ("peak_bytes", "Peak GPU memory, GiB", 2.0**-30)]
    panels = [p for p in panels if results.complete[p[0]].notna().any()]
    if not panels:
        return None
    y = _rows(results.arms)
    figure, axes = _arm_rows(results, y, [label for _, label, _ in panels],
                             f"Cost of training (bar: median over seeds; dot: one seed; × relative to {results.reference or 'full'})"
                             f"\n{results.label}")
    for axis, (column, _, unit) in zip(axes, panels, strict=True):
        medians = results.complete.groupby("arm")[column].median() * unit
        whole = medians.get(results.reference, np.nan)
        for arm, row in results.arms.iterrows():
            value = medians.get(arm, np.nan)
            if pd.isna(value):
                _no_result(axis, y[arm])
                continue
            seeds = results.complete.loc[results.complete.arm == arm, column].dropna().to_numpy(float) * unit
            axis.barh(y[arm], value, height=0.62, color=row.color, alpha=0.32, lw=0)
            axis.plot(seeds, y[arm] + _spread(seeds), "o", ms=3.2, mfc="white", mec=row.color, mew=0.8, zorder=3, clip_on=False)
            times = "" if pd.isna(whole) else f"  {value / whole:.2f}×"
            axis.annotate(f"{value:.3g}{times}", (1.015, y[arm]), xycoords=axis.get_yaxis_transform(), va="center",
                          fontsize=7.5, color=row.color, annotation_clip=False)
        axis.set_xlim(0, None)
        axis.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def confusion(results: Results) -> plt.Figure | None:
    """Confusion matrices, a panel an arm: per cent of the images of a true class, summed over seeds."""
    if results.confusion.empty:
        return None
    classes = list(dict.fromkeys(results.confusion["true"].astype(str)))
    short = [abbreviated(name) for name in classes]
    figure, axes = _grid(results, 1.75, "Predicted class by true class, % of the true class (test images of all seeds)\n"
                         f"{results.label}", "Predicted", "True class", square=True)
    for axis, (arm, row) in zip(axes, results.arms.iterrows(), strict=True):
        own = results.confusion[results.confusion.arm == arm]
        axis.set(xticks=range(len(classes)), yticks=range(len(classes)))
        crowded = len(classes) > 12
        axis.set_xticklabels([] if crowded else short, rotation=45, ha="right", rotation_mode="anchor", fontsize=7)
        axis.set_yticklabels([] if crowded else short, fontsize=7)
        axis.tick_params(length=0, pad=2)
        if own.empty:
            axis.set(xlim=(-0.5, len(classes) - 0.5), ylim=(len(classes) - 0.5, -0.5))
            axis.text(0.5, 0.5, "no result", transform=axis.transAxes, ha="center", color="#777777", style="italic")
            continue
        table = own["count"].to_numpy().reshape(len(classes), -1)
        share = 100 * table / np.maximum(table.sum(1, keepdims=True), 1)
        axis.imshow(share, cmap=style.SHADE, vmin=0, vmax=100, aspect="equal")
        axis.spines[["left", "bottom"]].set_visible(False)
        if len(classes) <= 6:
            for (i, j), value in np.ndenumerate(share):
                axis.text(j, i, f"{value:.0f}" if value >= 1 or value == 0 else "<1", ha="center", va="center", fontsize=7.5,
                          color="white" if value > 55 else style.INK)
    return figure


def beside_paper(results: Results) -> plt.Figure | None:
    """Measured accuracy beside the paper's figures for the arms of the same name."""
    paper = counterparts(results)
    arms = results.arms[results.arms.index.isin(paper.arm)]
    if arms.empty:
        return None
    y = _rows(arms)
    shapes = {"full": ("D", "full"), "balanced": ("s", "balanced"), "distilled": ("^", "distilled")}
    figure, (axis,) = _arm_rows(results, y, ["Test accuracy"], f"Measured beside the paper\nmeasured: {results.label}",
                                arms=arms, right=0.97)
    for arm, row in arms.iterrows():
        stated = paper[paper.arm == arm]
        for _, figure_of in stated.iterrows():
            at = y[arm] + 0.2
            shape = shapes.get(figure_of.training_set, ("D", ""))[0]
            if pd.notna(figure_of.accuracy_sd):
                sd = figure_of.accuracy_sd
                axis.plot([figure_of.accuracy - sd, figure_of.accuracy + sd], [at] * 2, color="#555555", lw=0.9, zorder=2)
            axis.plot(figure_of.accuracy, at, shape, ms=5, mfc="white", mec="#555555", mew=1, zorder=3)
        if row.seeds:
            axis.plot([row.acc_lo, row.acc_hi], [y[arm] - 0.14] * 2, color=row.color, lw=1.6, zorder=2)
            axis.plot(row.acc_mean, y[arm] - 0.14, "o", ms=6, color=row.color, zorder=4)
        else:
            _no_result(axis, y[arm] - 0.14)
    handles = [Line2D([], [], marker="o", ls="-", lw=1.6, ms=6, color=style.INK, label="measured here: mean, 95 % interval")]
    handles += [Line2D([], [], marker=shape, ls="", ms=5, mfc="white", mec="#555555",
                       label=f"paper, OCTMNIST {name} training set" if results.dataset not in set(results.paper.dataset)
                       else f"paper, {name} training set")
                for key, (shape, name) in shapes.items() if key in set(paper.training_set)]
    if paper.accuracy_sd.notna().any():
        handles.append(Line2D([], [], color="#555555", lw=0.9, label="± the paper's standard deviation"))
    _legend_below(figure, handles, columns=2)
    return figure


def spaced(wanted: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Positions nearest to the ascending `wanted` that are at least `gap` apart.

    Least squares under x[i+1] - x[i] >= gap: with z[i] = x[i] - i gap this is isotonic regression, solved by pooling
    adjacent violators. The result is kept within [low, high] where that is long enough, and centred on it where not.
    """
    n = len(wanted)
    if gap * (n - 1) >= high - low:
        return (low + high) / 2 + gap * (np.arange(n) - (n - 1) / 2)
    pools: list[list[float]] = []  # [mean, size]
    for value in np.asarray(wanted, float) - gap * np.arange(n):
        pools.append([value, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, size = pools.pop()
            pools[-1] = [(pools[-1][0] * pools[-1][1] + mean * size) / (pools[-1][1] + size), pools[-1][1] + size]
    z = np.concatenate([np.full(size, mean) for mean, size in pools])
    return np.clip(z, low, high - gap * (n - 1)) + gap * np.arange(n)


def millions(value: float) -> str:
    """A parameter count in three digits: '869k', '2.54M'."""
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{sign}"
    return f"{value:.3g}"


def abbreviated(name: str) -> str:
    """A class name that fits a tick: as it is up to ten characters, else its words' initials or its start."""
    name = str(name)
    if len(name) <= 10:
        return name
    words = name.replace("-", " ").replace("_", " ").split()
    return "".join(w[0] for w in words).upper() if len(words) > 1 else name[:9] + "."


def _rows(arms: pd.DataFrame) -> dict[str, float]:
    """The height of each arm's row, from the top down, with a gap between families."""
    new_family = (arms.family != arms.family.shift()).cumsum() - 1
    return dict(zip(arms.index, -np.arange(len(arms)) - 0.45 * new_family.to_numpy(), strict=True))


def _arm_rows(results, y, labels, title, arms=None, right=None):
    """Panels side by side, an arm a row, names at the left in the family's colour."""
    arms = results.arms if arms is None else arms
    rows = max(y.values()) - min(y.values()) + 1
    height = ROW * rows + 1.45
    figure, axes = plt.subplots(1, len(labels), figsize=(style.WIDTH, height), sharey=True, squeeze=False)
    left = min(0.34, 0.045 + 0.0088 * max(map(len, arms.index)))
    figure.subplots_adjust(left=left, right=right or 0.875, top=1 - 0.62 / height, bottom=0.83 / height, wspace=0.46)
    for axis, label in zip(axes[0], labels, strict=True):
        axis.set(xlabel=label, yticks=list(y.values()), ylim=(min(y.values()) - 0.6, max(y.values()) + 0.6))
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        axis.grid(axis="x")
    axes[0, 0].set_yticklabels(list(y))
    for label, color in zip(axes[0, 0].get_yticklabels(), arms.color, strict=True):
        label.set_color(color)
    _title(figure, title)
    return figure, list(axes[0])


def _grid(results, panel, title, xlabel, ylabel, square=False):
    """A panel an arm, in rows of four (five beyond 24 arms), each titled with its arm's name."""
    n = len(results.arms)
    columns = min(n, 4 if n <= 24 else 5)
    rows = -(-n // columns)
    height = panel * rows + 1.25
    figure, axes = plt.subplots(rows, columns, figsize=(style.WIDTH, height), sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(left=0.085, right=0.985, top=1 - 0.88 / height, bottom=0.78 / height, wspace=0.1,
                           hspace=0.5 if not square else 0.3)
    for place, axis in enumerate(axes.flat):
        if place >= n:
            axis.set_visible(False)
            continue
        axis.set_title(style.wrapped(results.arms.index[place], 22 if columns == 4 else 18), color=results.arms.color.iloc[place],
                       fontsize=7.8, linespacing=0.95, pad=3)
        if place + columns >= n:  # the lowest of its column, which need not be in the last row
            axis.tick_params(axis="x", labelbottom=True)
    figure.supxlabel(xlabel, fontsize=8.5, y=0.42 / height)
    figure.supylabel(ylabel, fontsize=8.5, x=0.012)
    _title(figure, title)
    return figure, list(axes.flat)[:n]


def _title(figure: plt.Figure, text: str) -> None:
    first, second = text.split("\n", 1)
    height = figure.get_figheight()
    figure.text(0.012, 1 - 0.1 / height, first, fontsize=10, weight="bold", va="top")
    figure.text(0.012, 1 - 0.29 / height, second, fontsize=8, va="top", color="#555555")


def _legend_below(figure, handles, columns=4) -> None:
    figure.legend(handles=handles, loc="lower center", ncols=columns, bbox_to_anchor=(0.5, 0.04 / figure.get_figheight()),
                  handlelength=1.6, columnspacing=1.6, borderaxespad=0.0)


def _no_result(axis, height: float) -> None:
    axis.annotate("no result", (0.01, height), xycoords=axis.get_yaxis_transform(), va="center", fontsize=7.5,
                  color="#777777", style="italic")


def _spread(values: np.ndarray) -> np.ndarray:
    """Small offsets that part equal values, the same at every run."""
    return np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(len(values))


def _unit_limit(axis) -> None:
    """Neither accuracy nor AUC goes beyond one; leave the room of half a marker."""
    low, high = axis.get_xlim()
    axis.set_xlim(low, min(high, 1 + 0.02 * (1 - low)))
