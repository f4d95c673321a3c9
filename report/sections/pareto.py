"""Accuracy against what a method costs: trained parameters, step time, memory. Who is beaten in both is pale."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from report import drawing
from report.reading import Results
from report.sections import Section, Table
from report.text import few, listed, numbers, scaled

GROUP, ORDER = "Cost", 10
AXES = {  # column: name of the axis, and how its values are written
    "trainable": ("Trained parameters", lambda value: scaled(value, trailing=False)),
    "step_ms": ("Training step, ms", "{:g}".format),
    "peak_mib": ("Peak memory of a step, MiB", "{:g}".format),
}


def section(results: Results) -> Section | None:
    points = collected(results.ranked, results.cost)
    if points.trainable.count() < 2:
        return None
    columns = [name for name in AXES if points[name].notna().sum() > 1]
    fronts = {name: front(points[name], points.acc_mean) for name in columns}
    ranked = points.acc_mean.sort_values(ascending=False)
    numbers = {name: place for place, name in enumerate(ranked.index, start=1)}
    named = "; ".join(f"{number} {name}" for name, number in numbers.items())
    caption = (
        "Mean test accuracy over runs. The line joins the methods that no other one beats in both (Pareto front); "
        f"their markers are full. Up and left is better; log scales. By accuracy: {named}."
    )
    if "step_ms" in columns:
        caption += " Step time and memory were measured apart from the runs, on the profile's own batch."
    cut = points.index[points.acc_mean < drawing.limits(points.acc_mean)[0]]
    if len(cut):
        caption += f" Below the panels: {few([f'{name} ({points.acc_mean[name]:.3f})' for name in cut], 6)}."
    told = "; ".join(f"{AXES[name][0]}: {listed(list(on))}" for name, on in fronts.items())
    alt, drawn = f"Not beaten in both. {told}.", figure(points, fronts, numbers)
    return Section(finding(points, fronts), caption, alt, drawn, [table(points, fronts, results.label)])


def collected(methods: pd.DataFrame, cost: pd.DataFrame) -> pd.DataFrame:
    """The methods with their step time (ms) and peak memory (MiB), where measured; NaN elsewhere."""
    measured = cost[cost.role == "method"].drop_duplicates("method").set_index("method")[["step_ms", "peak_mib"]]
    return methods[methods.acc_mean.notna()].join(measured)


def front(cost: pd.Series, accuracy: pd.Series) -> list[str]:
    """The names that no other one beats: none is at most as costly and more accurate, or cheaper and as accurate."""
    ranked = pd.DataFrame({"cost": cost, "accuracy": accuracy}).dropna()
    ranked = ranked.sort_values(["cost", "accuracy"], ascending=[True, False])
    before = ranked.accuracy.cummax().shift(fill_value=-np.inf)
    return list(ranked.index[ranked.accuracy > before])


def finding(points: pd.DataFrame, fronts: dict[str, list[str]]) -> str:
    """Whether CoLoRA is on the fronts, in a sentence."""
    family = points.family == "colora"
    if not family.any():
        return f"Not beaten in accuracy and trained parameters: {few(fronts['trainable'])}."
    words = {"trainable": "trained parameters", "step_ms": "step time", "peak_mib": "memory"}
    on = [words[name] for name, names in fronts.items() if family[names].any()]
    off = [words[name] for name in fronts if words[name] not in on]
    if not on:
        best = points.acc_mean[family].max()
        least = {name: points[name][family].min() for name in fronts}
        ahead = [
            name for name in points.index
            if points.acc_mean[name] >= best and all(points[column][name] < least[column] for column in fronts)
        ]  # fmt: skip
        who = f"{ahead[0]} is as" if ahead else "For every CoLoRA method there is another one at least as"
        less = {"trainable": "fewer trained parameters", "step_ms": "less time a step", "peak_mib": "less memory"}
        than = " as every CoLoRA method" if ahead else ""
        return f"{who} accurate{than} with {listed([less[name] for name in fronts], 'and' if ahead else 'or')}."
    text = f"By means alone a CoLoRA method is among the best trade-offs of accuracy and {listed(on)}"
    return f"{text}, none of accuracy and {listed(off, 'or')}." if off else f"{text}."


def figure(points: pd.DataFrame, fronts: dict[str, list[str]], numbers: dict[str, int]) -> Figure:
    """A panel a cost, a numbered marker a method, exactly at its values."""
    figure, axes = plt.subplots(len(fronts), 1, figsize=(drawing.WIDTH, 2.9 * len(fronts) + 0.5), squeeze=False)
    limits = drawing.limits(points.acc_mean, room=0.08)
    for axis, (column, on) in zip(axes[:, 0], fronts.items(), strict=True):
        own = points[points[column].notna() & (points.acc_mean >= limits[0])]
        axis.plot(own[column].reindex(on), own.acc_mean.reindex(on), color=drawing.RULE, lw=1.2, zorder=1)
        for name, row in own.iterrows():
            fill, edge = (row.color, "white") if name in on else ("white", row.color)
            marker = drawing.MARKERS.get(row.kind, "o")
            axis.plot(row[column], row.acc_mean, marker, ms=7, mfc=fill, mec=edge, mew=1.1, zorder=3)
        _write_numbers(axis, own[column], own.acc_mean, own.ink, numbers)
        name, form = AXES[column]
        axis.set(xscale="log", ylim=limits, xlabel=name, ylabel="Test accuracy")
        axis.set_xlim(own[column].min() / 1.4, own[column].max() * 1.4)
        drawing.log_ticks(axis, form=form, subs=(1, 2, 5) if np.ptp(np.log10(own[column])) < 2.5 else (1,))
        drawing.ticks(axis, "y")
    colors = points.drop_duplicates("kind").set_index("kind").color
    handles = [
        Line2D([], [], ls="", marker=drawing.MARKERS.get(kind, "o"), color=colors[kind], label=kind, ms=7)
        for kind in drawing.present(points.kind)
    ]
    handles.append(Line2D([], [], color=drawing.RULE, lw=1.2, label="Pareto front"))
    drawing.below(figure, handles)
    return figure


def _write_numbers(axis: Axes, x: pd.Series, y: pd.Series, inks: pd.Series, numbers: dict[str, int]) -> None:
    """Each point's number to the right of it, or where another one stands there, on one of its other sides."""
    sides = [(6, 0, "left", "center"), (-6, 0, "right", "center"), (0, 5, "center", "bottom"), (0, -5, "center", "top")]
    sides += [(6, 6, "left", "bottom"), (-6, 6, "right", "bottom"), (6, -6, "left", "top"), (-6, -6, "right", "top")]
    across, up = np.log(x / x.min()) / np.log(x.max() / x.min() + 1e-9), (y - y.min()) / (np.ptp(y) + 1e-9)
    spots = np.c_[380 * across, 180 * up]
    taken = list(spots)
    for spot, name in zip(spots, x.index, strict=True):
        centres = [spot + np.array([dx, dy]) * 1.9 for dx, dy, *_ in sides]
        room = [min(np.hypot(*(centre - other)) for other in taken if other is not spot) for centre in centres]
        best = next((place for place, free in enumerate(room) if free > 12), int(np.argmax(room)))
        dx, dy, ha, va = sides[best]
        taken.append(centres[best])
        axis.annotate(
            str(numbers[name]), (x[name], y[name]), (dx, dy), textcoords="offset points", ha=ha, va=va,
            fontsize=drawing.SMALL, color=inks[name], zorder=4,
        )  # fmt: skip


def table(points: pd.DataFrame, fronts: dict[str, list[str]], label: str) -> Table:
    """The points, and on which fronts each lies."""
    ranked = points.sort_values("acc_mean", ascending=False)
    raw = ranked[["acc_mean", "trainable", "step_ms", "peak_mib"]].rename_axis("method").reset_index()
    text = pd.DataFrame({
        "": range(1, len(raw) + 1), "Method": raw.method, "Accuracy": numbers(raw.acc_mean, ".3f"),
        "Trained": list(map(scaled, raw.trainable)), "Step, ms": numbers(raw.step_ms, ".3g"),
        "Peak, MiB": numbers(raw.peak_mib, ",.0f"),
        "Not beaten in": [
            listed([AXES[column][0].split(",")[0].lower() for column, on in fronts.items() if name in on])
            for name in raw.method
        ],
    })  # fmt: skip
    return Table("pareto", f"Accuracy and cost: {label}", "Numbered as in the figure.", raw, text, left=2)
