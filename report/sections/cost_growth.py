"""How time and memory of a training step grow with batch size, image size and rank."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from report import drawing
from report.reading import Results
from report.sections import Section
from report.text import listed

GROUP, ORDER = "Cost", 30
SWEEPS = {"batch": ("batch_size", "Batch size"), "image": ("image_size", "Image size, px"), "rank": ("rank", "Rank")}
VALUES = {"step_ms": "Training step, ms", "peak_mib": "Peak memory, MiB"}


def section(results: Results) -> Section | None:
    rows = swept(results.cost_growth)
    if rows.empty:
        return None
    caption = (
        "One value is swept in a column, the others are the profile's; log scales. Measured on "
        f"{results.cost_machine}, random weights."
    )
    told = [
        f"{method} by {SWEEPS[sweep][1].split(',')[0].lower()}: time {time:.2f}, memory {memory:.2f}"
        for (sweep, method), (time, memory) in slopes(rows).items()
    ]
    return Section(finding(rows), caption, f"Powers: {listed(told)}.", figure(rows), folded=True)


def swept(growth: pd.DataFrame) -> pd.DataFrame:
    """The rows of methods swept over two values or more, sweeps by name, with `at`: the value swept."""
    at = pd.Series(float("nan"), growth.index)
    for sweep, (column, _) in SWEEPS.items():
        at = at.mask(growth.sweep == sweep, growth[column])
    rows = growth.assign(at=at).dropna(subset="at").sort_values("sweep", kind="stable")
    return rows[rows.groupby(["sweep", "method"])["at"].transform("nunique") > 1]


def slopes(rows: pd.DataFrame) -> dict[tuple[str, str], tuple[float, float]]:
    """By sweep and method the powers with which time and memory grow."""
    return {
        key: tuple(np.polyfit(np.log(own["at"]), np.log(own[name]), 1)[0] for name in VALUES)
        for key, own in rows.groupby(["sweep", "method"], sort=False)
    }


def finding(rows: pd.DataFrame) -> str:
    """With which power of the first sweep's value the time grows, from the flattest method to the steepest."""
    first = rows.sweep.iloc[0]
    own = {method: power[0] for (sweep, method), power in slopes(rows).items() if sweep == first}
    flat, steep = min(own, key=own.get), max(own, key=own.get)
    name = SWEEPS[first][1].split(",")[0].lower()
    to = "" if flat == steep else f" to {own[steep]:.2f} ({steep})"
    return f"A step's time grows with the {name} to the power of {own[flat]:.2f} ({flat}){to}."


def figure(rows: pd.DataFrame) -> Figure:
    """A row a value, a column a sweep, a line a method."""
    long = rows.melt(["sweep", "method", "family", "backbone", "at"], list(VALUES), var_name="what")
    firsts = rows.drop_duplicates("method")
    palette = {row.method: drawing.looks(row.family, row.backbone).color for row in firsts.itertuples()}
    columns = [sweep for sweep in SWEEPS if (rows.sweep == sweep).any()]
    grid = drawing.lines(
        long, len(columns), 1.9, x="at", y="value", hue="method", marker="o", row="what", col="sweep",
        row_order=list(VALUES), col_order=columns, palette=palette, facet_kws={"sharex": "col", "sharey": "row"},
        errorbar=None,
    )  # fmt: skip
    grid.set(xscale="log", yscale="log")
    grid.set_titles("")
    for (what, sweep), axis in grid.axes_dict.items():
        marks = sorted(rows["at"][rows.sweep == sweep].unique())
        axis.set_xticks(marks, [f"{mark:g}" for mark in marks])
        axis.xaxis.set_minor_locator(NullLocator())
        drawing.log_ticks(axis, "y")
        axis.set_xlabel(SWEEPS[sweep][1] if what == list(VALUES)[-1] else "")
        axis.set_ylabel(VALUES[what] if sweep == columns[0] else "")
    drawing.below(grid.figure, [Line2D([], [], marker="o", color=color, label=name) for name, color in palette.items()])
    return grid.figure
