"""Own test folds against other patients as dumbbells: what a network is worth where it was not trained."""

import pandas as pd
from matplotlib.figure import Figure

from report import drawing
from report.reading import Results, ranked
from report.sections import Section, Table
from report.text import estimates, few, gap, numbers, of_patients, points, span

GROUP, ORDER = "Result", 40
DUMBBELL = {"own_balanced_accuracy": "full", "balanced_accuracy": "hollow", "change_lo": "lo", "change_hi": "hi"}


def section(results: Results) -> Section | None:
    rows = results.external[results.external.balanced_accuracy.notna()]
    if rows.empty:
        return None
    title = finding(rows[rows.method.isin(ranked(results.methods).index)], results)
    sizes = "; ".join(
        f"{data}: {span(own.images)} images{of_patients(own)}" for data, own in rows.groupby("data", sort=False)
    )
    caption = (
        "Balanced accuracy on the runs' own test images (full dot) and on other patients (hollow), networks "
        f"unchanged; {sizes}. Sorted by the latter. Right: the change in points with its 95 % interval, patients as "
        "units."
    )
    told = "; ".join(
        f"{row.method} {row.own_balanced_accuracy:.3f} and {row.balanced_accuracy:.3f}" for row in rows.itertuples()
    )
    alt = f"Own and other patients: {told}."
    return Section(title, caption, alt, figure(rows, results.methods), [table(rows, results.profile)])


def finding(rows: pd.DataFrame, results: Results) -> str:
    """How much is lost on other patients, who is best there, and what the declared contrasts show there."""
    data = rows.data.iloc[0]
    own = rows[rows.data == data].set_index("method")
    best = own.balanced_accuracy.idxmax()
    text = (
        f"On other patients ({data}) methods change by {points(own.change.min(), plus=True)} to "
        f"{points(own.change.max(), plus=True)} points; {best} does best, {own.balanced_accuracy[best]:.3f}"
    )
    declared = results.contrasts[(results.contrasts.data == data) & (results.contrasts.metric == "balanced_accuracy")]
    named = pd.Series([results.called(row) for row in declared.itertuples()], declared.index, dtype=object)
    parts = [
        f"{word} {few(list(named[declared.higher == verdict]))}"
        for verdict, word in (("supported", "above"), ("contradicted", "below"))
        if (declared.higher == verdict).any()
    ]
    if parts:
        text += f"; {declared.method.iloc[0]} is {' and '.join(parts)}"
    return f"{text}."


def figure(rows: pd.DataFrame, methods: pd.DataFrame) -> Figure:
    """A panel a data set (two where methods are many), a dumbbell a method. rows: as external.csv."""
    panels = {
        data: own.sort_values("balanced_accuracy", ascending=False).set_index("method").rename(columns=DUMBBELL)
        for data, own in rows.groupby("data", sort=False)
    }
    labels = ("own test images", "other patients")
    figure, axes = drawing.dumbbells(drawing.parted(panels), methods, "Balanced accuracy", labels)
    axes[-1].set_xlim(*drawing.limits(rows[["own_balanced_accuracy", "balanced_accuracy"]]))
    return figure


def table(rows: pd.DataFrame, profile: str) -> Table:
    """Accuracy, balanced accuracy and AUC on other patients, and the change from the runs' own test images."""
    ranked = rows.sort_values(["data", "balanced_accuracy"], ascending=[True, False])
    text = ranked[["data", "method"]].rename(columns=str.capitalize)
    for name, head in (("balanced_accuracy", "Balanced accuracy"), ("accuracy", "Accuracy"), ("auc", "AUC")):
        text[head] = estimates(ranked[name], ranked[f"{name}_lo"], ranked[f"{name}_hi"])
    changes = ranked[["change", "change_lo", "change_hi"]].set_axis(["difference", "lo", "hi"], axis=1)
    text["Change"] = list(map(gap, changes.itertuples()))
    text["Runs"] = numbers(ranked.runs, ".0f")
    note = (
        "Means over runs with 95 % intervals, patients as units. Change: balanced accuracy there minus on the runs' "
        "own test images, paired by run. Every run's best-validation weights were tested there once."
    )
    return Table("external", f"Other patients: profile {profile}", note, ranked, text, left=2)
