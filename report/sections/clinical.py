"""What a clinic asks: sensitivity at 95 % specificity and other measures, by image and patient, with ROC curves."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from report import drawing
from report.reading import Results
from report.sections import Section, Table
from report.text import DASH, number, percent

GROUP, ORDER, FOLDED = "Evidence", 35, True
SPECIFICITY, FALSE_ALARMS = "95 %", 0.05  # of `sensitivity` in clinical.csv
SHOWN = 6  # classes: more panels were not legible
MEASURES = {
    "accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "kappa": "Kappa", "auc": "AUC",
    "average_precision": "Average precision", "sensitivity": f"Sensitivity at {SPECIFICITY} specificity",
}  # fmt: skip


def needs(results: Results) -> str | None:
    return None if len(results.clinical) else "no run left probabilities"


def section(results: Results) -> Section:
    title = finding(results.clinical, results.leading(1))
    curves = results.roc[results.roc.curve == "roc"]
    order = [name for name in results.methods.index if name in set(curves.method)]
    caption = (
        "ROC curves of each class against the rest, mean over runs, from a false positive rate of 0 to 0.3; dotted: "
        f"{percent(FALSE_ALARMS)} false positives, where the table's sensitivities are read."
    )
    return Section(
        name="clinical", group=GROUP, title=title, caption=caption if order else "", alt=title if order else "",
        figure=figure(curves, order, results.methods) if order else None,
        tables=[table(results.clinical, list(results.methods.index), results.label)], folded=FOLDED,
    )  # fmt: skip


def finding(clinical: pd.DataFrame, leading: list[str]) -> str:
    """The class that the leading method finds least of at the specificity, and the one that it finds most of."""
    rows = clinical[(clinical.measure == "sensitivity") & (clinical.level == "image") & clinical.method.isin(leading)]
    rows = rows.dropna(subset="value").set_index("class").value
    if rows.empty:
        return "Sensitivity, AUC and balanced accuracy of every method, by image and by patient."
    least, most = rows.idxmin(), rows.idxmax()
    text = f"At {SPECIFICITY} specificity {leading[0]} finds {percent(round(rows[least], 2))} of {least}"
    if round(rows[least], 2) == round(rows[most], 2):
        return f"{text} and of every other class."
    return f"{text}, the least of any class, and {percent(round(rows[most], 2))} of {most}, the most."


def figure(curves: pd.DataFrame, order: list[str], methods: pd.DataFrame) -> Figure:
    """A panel a class, a line a method. curves: method, class, x, y."""
    classes = list(dict.fromkeys(curves["class"]))[:SHOWN]
    columns = min(2, len(classes))
    with drawing.facets():
        grid = sns.relplot(
            curves[curves["class"].isin(classes)], x="x", y="y", hue="method", hue_order=order, col="class",
            col_order=classes,
            col_wrap=columns, kind="line", estimator=None, palette=methods.color.to_dict(), height=2.1, legend=False,
            aspect=drawing.WIDTH / columns / 2.1, drawstyle="steps-post",
        )  # fmt: skip
    for name, axis in grid.axes_dict.items():
        axis.axvline(FALSE_ALARMS, **drawing.REFERENCE_LINE)
        axis.set_title(drawing.abbreviated(name, 22))
    grid.set(xlim=(0, 0.3), ylim=(0, 1.02), xlabel="False positive rate", ylabel="True positive rate")
    grid.figure.set_layout_engine("constrained")
    handles = [plt.Line2D([], [], color=methods.color[name], lw=1.6, label=name) for name in order]
    drawing.below(grid.figure, handles)
    return grid.figure


def table(clinical: pd.DataFrame, order: list[str], label: str) -> Table:
    """A row a method and level, a column a measure and class."""
    rows = []
    heads = clinical[["measure", "class"]].drop_duplicates()
    for name in [name for name in order if name in set(clinical.method)]:
        for level, own in clinical[clinical.method == name].groupby("level", sort=False):
            cells = {}
            for head in heads.itertuples(index=False):
                measure, of = head
                cell = own[(own.measure == measure) & (own["class"].isna() if pd.isna(of) else own["class"] == of)]
                title = MEASURES.get(measure, measure) + ("" if pd.isna(of) else f", {of}")
                cells[title] = _told(cell.iloc[0]) if len(cell) else DASH
            rows.append({"Method": name, "Of": level, **cells})
    note = (
        "Means over runs with 95 % intervals. Of patients: probabilities averaged over a patient's images of one "
        "class. AUC, average precision and sensitivity: of a class against the rest."
    )
    return Table("clinical", f"Clinical measures: {label}", note, clinical, pd.DataFrame(rows), left=2)


def _told(row) -> str:
    return number(row.value, ".3f") + ("" if pd.isna(row.lo) else f" [{row.lo:.2f}, {row.hi:.2f}]")
