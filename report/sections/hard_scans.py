"""Hard scans: what most runs of the declared methods get wrong with confidence, for a reader's eye."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from report import drawing
from report.reading import Results
from report.sections import Section, Table
from report.text import cut, numbers, percent

GROUP, ORDER = "Evidence", 60
SHOWN = 8


def section(results: Results) -> Section | None:
    rows = results.hard_scans
    if rows.empty:
        return None
    pictured = rows[rows.image.isin(list(results.scans))].head(SHOWN)
    whole = results.declared and results.methods.seeds[results.declared[0]] > 0
    whose = "the declared methods" if whole else "the profile's first methods"
    caption = (
        f"Test images that most runs of {whose} call something else, the {len(rows)} surest errors: label "
        "noise and look-alikes. Below each: the class of the data set, what the runs call it, and their mean "
        "probability for that."
    )
    told = "; ".join(
        f"image {row.image} of class {row.label}, called {row.predicted}" for row in rows.head(SHOWN).itertuples()
    )
    drawn = figure(pictured, results.scans) if len(pictured) else None
    return Section(finding(rows), caption, f"{told}.", drawn, [table(rows, results.profile)])


def finding(rows: pd.DataFrame) -> str:
    """The commonest confusion among them."""
    kinds = rows.groupby(["label", "predicted"], sort=False).size()
    (label, predicted), most = kinds.idxmax(), kinds.max()
    return f"The surest errors of most runs: {most} of {len(rows)} are of class {label}, called {predicted}."


def figure(rows: pd.DataFrame, scans: dict[int, np.ndarray]) -> Figure:
    """Thumbnails, four a line; rows of hard_scans.csv, pixels by image number."""
    figure, axes = drawing.grid(len(rows), 4, 1.72, 0.1, subplot_kw={"xticks": [], "yticks": []})
    for axis, row in zip(axes.flat, rows.itertuples()):
        axis.imshow(scans[row.image], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.spines[["top", "right"]].set_visible(True)
        label, called = cut(row.label, 12), cut(row.predicted, 14)
        axis.set_xlabel(f"{label}, called\n{called} {row.probability:.2f}", fontsize=drawing.SMALL, linespacing=1.0)
    return figure


def table(rows: pd.DataFrame, profile: str) -> Table:
    """The scans by number."""
    text = pd.DataFrame({
        "Image": numbers(rows.image, ".0f"), "Class": rows.label, "Called": rows.predicted,
        "Probability": numbers(rows.probability, ".2f"),
        "Runs that are wrong": [f"{percent(round(r.share_wrong, 2))} of {r.runs:.0f}" for r in rows.itertuples()],
    })  # fmt: skip
    note = f"Image: its number in the prepared data; data/{profile}/files.csv names its file."
    return Table("hard_scans", f"Scans that most runs get wrong: profile {profile}", note, rows, text, left=3)
