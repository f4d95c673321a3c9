"""The figures of the report. Each function draws one from `Results` and returns it, or None with nothing to draw.

Methods without a run keep their place, marked "no result", so that a hole is seen as one.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from report import labels, layout, style
from report.cost import cost_growth, cost_ratios
from report.cost_shares import cost_shares
from report.gradcam import gradcam
from report.label_efficiency import label_efficiency
from report.quality_figures import reliability, stability
from report.ranks import critical_difference
from report.results import Results, counterparts
from report.robustness import robustness

FINEST = 0.01  # the shortfall from an accuracy of one, below which a figure's scale parts methods no further


def draw_all(results: Results, directory: Path) -> list[str]:
    """Draw every figure into `directory` as SVG, PDF and PNG; returns the names of those drawn.

    A figure left over from an earlier run with nothing to draw now is removed.
    """
    drawn = []
    with plt.rc_context({**plt.rcParamsDefault, "backend": plt.get_backend(), **style.RC}):
        for draw in (
            accuracy, label_efficiency, critical_difference, learning_curves, stability, parameters, flops, cost_ratios,
            cost_shares, cost_growth, cost, confusion, reliability, robustness, gradcam, beside_paper,
        ):  # fmt: skip
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
    y = layout.rows(results.methods)
    title = f"Test accuracy and AUC (scales widen towards 1)\n{results.label}"
    figure, axes = layout.method_rows(results, y, ["Accuracy", "Macro AUC (one vs. rest)"], title, legend=1)
    panels = (("acc", "test_acc", 3, FINEST), ("auc", "test_auc", 4, FINEST / 5))
    for axis, (short, column, digits, finest) in zip(axes, panels, strict=True):
        for method, row in results.methods.iterrows():
            if not row.seeds:
                layout.no_result(axis, y[method])
                continue
            seeds = results.complete.loc[results.complete.method == method, column].to_numpy()
            axis.plot([row[f"{short}_lo"], row[f"{short}_hi"]], [y[method]] * 2, color=row.color, lw=1.6, zorder=2)
            axis.plot(
                seeds,
                y[method] + layout.spread(seeds),
                "o",
                ms=3.6,
                mfc="white",
                mec=row.color,
                mew=0.8,
                zorder=3,
                clip_on=False,
            )
            axis.plot(row[f"{short}_mean"], y[method], "|", ms=11, mew=2.2, color=row.color, zorder=4)
            sd = "" if pd.isna(row[f"{short}_sd"]) else f" ± {row[f'{short}_sd']:.{digits}f}"
            layout.write_beside(axis, y[method], f"{row[f'{short}_mean']:.{digits}f}{sd}", row.ink)
        if results.reference:
            axis.axvline(
                results.methods.loc[results.reference, f"{short}_mean"], color="black", lw=0.7, ls=(0, (4, 3)), zorder=1
            )
        drawn = np.r_[results.complete[column], results.methods[[f"{short}_lo", f"{short}_hi"]].to_numpy(float).ravel()]
        layout.widen_towards_one(axis, "x", drawn, finest)
    handles = [
        Line2D([], [], marker="o", ls="", ms=3.6, mfc="white", mec=style.INK, mew=0.8, label="one seed"),
        Line2D([], [], marker="|", ls="", ms=11, mew=2.2, color=style.INK, label="mean (written: mean ± sd)"),
        Line2D([], [], color=style.INK, lw=1.6, label="95 % interval"),
    ]
    if results.reference:
        handles.append(Line2D([], [], color="black", lw=0.7, ls=(0, (4, 3)), label=f"mean of {results.reference}"))
    layout.legend_below(figure, handles)
    return figure


def learning_curves(results: Results) -> plt.Figure | None:
    """Validation accuracy by epoch: a panel a method, over the reference methods in grey."""
    if results.curves.empty:
        return None
    curves = results.curves.groupby(["method", "epoch"]).val_acc.agg(["mean", "min", "max"])
    figure, axes = layout.grid(
        results,
        1.1,
        f"Validation accuracy by epoch\n{results.describe('val')}",
        "Epoch",
        "Validation accuracy",
        columns=4 if len(results.methods) <= 24 else 5,
        bottom=0.72,
        label=0.36,
    )
    drawn = [method for method in results.methods.index if method in curves.index]
    behind = {method: _behind(results.methods.loc[drawn], row) for method, row in results.methods.iterrows()}
    styles = {"full": (0, (1, 0)), "head_only": (0, (3, 2))}
    # A bad first epoch may leave the panel: the late epochs are what is compared.
    low = np.quantile(curves["min"], 0.04)
    high = curves["max"].max()
    margin = 0.06 * (high - low) + 1e-3
    for axis, (method, row) in zip(axes, results.methods.iterrows(), strict=True):
        axis.set(ylim=(low - margin, high + margin))
        axis.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.grid(axis="y")
        if method not in drawn:
            axis.text(0.5, 0.5, "no result", transform=axis.transAxes, ha="center", color="#777777", style="italic")
            continue
        for family, other in behind[method].items():
            if other != method:
                axis.plot(
                    curves.loc[other].index, curves.loc[other, "mean"], color="#9A9A9A", lw=0.9, ls=styles[family]
                )
        own = curves.loc[method]
        axis.fill_between(own.index, own["min"], own["max"], color=row.color, alpha=0.22, lw=0)
        axis.plot(own.index, own["mean"], color=row.color, lw=1.6)
    handles = [Line2D([], [], color=style.INK, lw=1.6, label="the panel's method: mean, lowest to highest seed")]
    for family, line in styles.items():
        others = list(dict.fromkeys(own[family] for own in behind.values() if family in own))
        if others:
            name = others[0] + (", or the backbone's own" if len(others) > 1 else "")
            name = name if results.labels.empty else f"{family} on the same share"
            handles.append(Line2D([], [], color="#9A9A9A", lw=0.9, ls=line, label=name))
    layout.legend_below(figure, handles)
    return figure


def _behind(methods, row) -> dict[str, str]:
    """The first fully fine-tuned method and the first transfer method on the share of a method (a row), by family; of its
    backbone where that has one.
    """
    found = {}
    for family in ("full", "head_only"):
        of_family = methods[(methods.family == family) & (methods.share == row.share)]
        own = of_family[of_family.backbone == row.backbone]
        if len(of_family):
            found[family] = (own if len(own) else of_family).index[0]
    return found


def parameters(results: Results) -> plt.Figure | None:
    """Test accuracy against the number of trained parameters."""
    return _accuracy_against(results, "trainable", "Trained parameters")


def flops(results: Results) -> plt.Figure | None:
    """Test accuracy against the floating-point operations of one image's forward pass."""
    return _accuracy_against(results, "flops", "Forward FLOPs of one image")


def _accuracy_against(results: Results, column: str, name: str) -> plt.Figure | None:
    """Test accuracy against a column of `results.methods` on a log scale, every point named beside it."""
    methods = results.whole[results.whole.seeds > 0].dropna(subset=column)
    if methods.empty:
        return None
    groups = [group for group in style.GROUPS if group in set(methods.group)]
    below = 0.5 + 0.22 * (len(groups) > 1)
    height = max(3.8, 0.15 * len(methods) + 1.8 + below)
    figure, axis = plt.subplots(figsize=(style.WIDTH, height))
    limits = _with_room(methods[column])
    methods = methods.assign(x=_side_by_side(methods[column], 0.0055 * np.log(limits[1] / limits[0])))
    axis.set_xscale("log")
    for _, row in methods.iterrows():
        axis.plot([row.x] * 2, [row.acc_lo, row.acc_hi], color=row.color, lw=0.9, alpha=0.55, zorder=2)
        marker = style.MARKERS[row.group]
        axis.plot(row.x, row.acc_mean, marker, ms=6, color=row.color, mec="white", mew=0.7, zorder=4)
    layout.widen_towards_one(axis, "y", methods[["acc_lo", "acc_hi", "acc_mean"]], FINEST)
    axis.set(
        xlim=limits,
        xlabel=f"{name} (log scale)",
        ylabel="Test accuracy, mean over seeds (scale widens towards 1)",
    )
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=50))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: style.scaled(v, trailing=False)))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(axis="y")
    figure.subplots_adjust(left=0.085, right=0.985, top=1 - 0.58 / height, bottom=below / height)
    title = f"Accuracy against {name[0].lower()}{name[1:]} (bar: 95 % interval)"
    layout.write_title(figure, f"{title}\n{results.label}")
    if len(groups) > 1:
        handles = [Line2D([], [], marker=style.MARKERS[g], ls="", ms=6, color=_hue(g), label=g) for g in groups]
        layout.legend_below(figure, handles, columns=len(groups))
    _name_points(figure, axis, methods)
    return figure


def _with_room(values) -> tuple[float, float]:
    """Limits of a log axis around the values, with room for a list of names beside many that are alike and largest."""
    alike = (values > 0.97 * values.max()).sum() >= labels.CROWD
    span = np.log(1.5 * values.max() / values.min())
    return values.min() / 1.5, values.max() * (np.exp(span / 2) if alike else 1.5)


def _hue(group: str) -> str:
    """A group's colour in a legend; CNN methods have several."""
    return style.INK if group == "CNN" else list(style.GROUPS[group].values())[0]


def _side_by_side(values: pd.Series, step: float) -> pd.Series:
    """The values with those alike, within 1 % of the next, up to `step` apart in their logarithms, at most 13 % from
    where they were: no bar hides another.
    """
    logs = np.log(values).sort_values(kind="stable")
    runs = (logs.diff() > 0.01).cumsum()
    place = logs.groupby(runs).cumcount()
    size = logs.groupby(runs).transform("size")
    step = np.minimum(step, 0.25 / (size - 1).clip(lower=1))
    return np.exp(logs.groupby(runs).transform("mean") + step * (place - (size - 1) / 2)).reindex(values.index)


def _name_points(figure, axis, methods) -> None:
    """Write each method's name near its point (x, acc_mean); a thin line joins the two where they are apart."""
    dpi = figure.dpi
    origin = np.array([axis.bbox.x0, axis.bbox.y0])

    def inches(x, y):
        return (axis.transData.transform(np.c_[x, y]) - origin) / dpi

    texts = [axis.text(0, 0, method, fontsize=7.5, color=row.ink, zorder=5) for method, row in methods.iterrows()]
    renderer = figure.canvas.get_renderer()
    extents = [text.get_window_extent(renderer) for text in texts]
    # The formats' widths differ a little.
    sizes = np.array([[e.width / dpi + 0.03, 0.125] for e in extents])
    points = inches(methods.x, methods.acc_mean)
    bars = np.c_[inches(methods.x, methods.acc_lo)[:, 1], inches(methods.x, methods.acc_hi)[:, 1]]
    corners = labels.place(points, sizes, bars, (axis.bbox.width / dpi, axis.bbox.height / dpi))
    to_data = axis.transData.inverted().transform
    for text, corner, size, point in zip(texts, corners, sizes, points, strict=True):
        text.set(position=to_data(origin + dpi * (corner + [0, size[1] / 2])), va="center_baseline", ha="left")
        end = labels.leader(point, np.r_[corner, corner + size])
        if np.hypot(*(end - point)) > 0.12:
            axis.plot(*to_data(origin + dpi * np.array([point, end])).T, color="#AAAAAA", lw=0.6, zorder=1)


def cost(results: Results) -> plt.Figure | None:
    """Seconds a training epoch, also relative to full fine-tuning."""
    runs = results.complete.dropna(subset="epoch_s").groupby("method").epoch_s
    medians = runs.median()
    if medians.empty:
        return None
    y = layout.rows(results.methods)
    figure, (axis,) = layout.method_rows(
        results,
        y,
        ["Training time, s an epoch"],
        f"Cost of training (bar: median over seeds; dot: one seed; × relative to {results.reference or 'full'})"
        f"\n{results.label}",
    )
    whole = medians.get(results.reference, np.nan)
    for method, row in results.methods.iterrows():
        if method not in medians:
            layout.no_result(axis, y[method])
            continue
        seeds = runs.get_group(method).to_numpy()
        axis.barh(y[method], medians[method], height=0.62, color=row.color, alpha=0.32, lw=0)
        axis.plot(
            seeds, y[method] + layout.spread(seeds), "o", ms=3.2, mfc="white", mec=row.color, mew=0.8, zorder=3,
            clip_on=False,
        )  # fmt: skip
        times = "" if pd.isna(whole) else f"  {medians[method] / whole:.2f}×"
        layout.write_beside(axis, y[method], f"{style.three_digits(medians[method])}{times}", row.ink)
    axis.set_xlim(0, None)
    axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    return figure


def confusion(results: Results) -> plt.Figure | None:
    """Confusion matrices, a panel a method: per cent of the images of a true class, summed over seeds."""
    if results.confusion.empty:
        return None
    classes = list(dict.fromkeys(results.confusion["true"].astype(str)))
    short = [layout.abbreviated(name) for name in classes]
    columns = -(-len(results.methods) // -(-len(results.methods) // 5))
    figure, axes = layout.grid(
        results,
        min(1.6, 6.5 / columns),
        f"Predicted class by true class, % of the true class (test images of all seeds)\n{results.label}",
        "Predicted",
        "True class",
        columns=columns,
        bottom=0.72,
        label=0.12,
    )
    for axis, (method, _) in zip(axes, results.methods.iterrows(), strict=True):
        own = results.confusion[results.confusion.method == method]
        axis.set(xticks=range(len(classes)), yticks=range(len(classes)))
        crowded = len(classes) > 12
        axis.set_xticklabels([] if crowded else short, rotation=45, ha="right", rotation_mode="anchor", fontsize=7)
        axis.set_yticklabels([] if crowded else short, fontsize=7)
        axis.tick_params(length=0, pad=2)
        if own.empty:
            axis.set(xlim=(-0.5, len(classes) - 0.5), ylim=(len(classes) - 0.5, -0.5), aspect="equal")
            axis.spines[["left", "bottom"]].set_visible(False)
            axis.text(0.5, 0.5, "no result", transform=axis.transAxes, ha="center", color="#777777", style="italic")
            continue
        table = own["count"].to_numpy().reshape(len(classes), -1)
        share = 100 * table / np.maximum(table.sum(1, keepdims=True), 1)
        axis.imshow(share, cmap=style.SHADE, vmin=0, vmax=100, aspect="equal")
        axis.spines[["left", "bottom"]].set_visible(False)
        if len(classes) <= 6:
            for (i, j), value in np.ndenumerate(share):
                axis.text(
                    j,
                    i,
                    f"{value:.0f}" if value >= 1 or value == 0 else "<1",
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color="white" if value > 55 else style.INK,
                )
    return figure


def beside_paper(results: Results) -> plt.Figure | None:
    """Measured accuracy beside the paper's figures for the methods of the same name."""
    paper = counterparts(results)
    methods = results.methods[results.methods.index.isin(paper.method)]
    if methods.empty:
        return None
    y = layout.rows(methods)
    paper = paper.assign(training_set=paper.training_set.fillna("unstated"))
    shapes = {"full": "D", "balanced": "s", "distilled": "^", "unstated": "v"}
    where = "" if results.dataset in set(results.paper.dataset) else "OCTMNIST, "
    handles = [
        Line2D([], [], marker="o", ls="-", lw=1.6, ms=6, color=style.INK, label="measured here: mean, 95 % interval")
    ]
    for name, shape in shapes.items():
        if name in set(paper.training_set):
            label = "quoted from another paper" if name == "unstated" else f"paper: {where}{name} training set"
            handles.append(Line2D([], [], marker=shape, ls="", ms=5, mfc="white", mec="#555555", label=label))
    if paper.accuracy_sd.notna().any():
        handles.append(Line2D([], [], color="#555555", lw=0.9, label="± the paper's standard deviation"))
    figure, (axis,) = layout.method_rows(
        results,
        y,
        ["Test accuracy"],
        f"Measured beside the paper\nmeasured: {results.label}",
        methods=methods,
        right=0.97,
        legend=-(-len(handles) // 2),
    )
    for method, row in methods.iterrows():
        stated = paper[paper.method == method]
        for _, figure_of in stated.iterrows():
            at = y[method] + 0.2
            if pd.notna(figure_of.accuracy_sd):
                sd = figure_of.accuracy_sd
                axis.plot(
                    [figure_of.accuracy - sd, figure_of.accuracy + sd], [at] * 2, color="#555555", lw=0.9, zorder=2
                )
            axis.plot(
                figure_of.accuracy,
                at,
                shapes[figure_of.training_set],
                ms=5,
                mfc="white",
                mec="#555555",
                mew=1,
                zorder=3,
            )
        if row.seeds:
            axis.plot([row.acc_lo, row.acc_hi], [y[method] - 0.14] * 2, color=row.color, lw=1.6, zorder=2)
            axis.plot(row.acc_mean, y[method] - 0.14, "o", ms=6, color=row.color, zorder=4)
        else:
            layout.no_result(axis, y[method] - 0.14)
    layout.legend_below(figure, handles, columns=2)
    return figure
