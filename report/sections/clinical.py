"""What a clinic asks: sensitivity at 95 % specificity and other measures, by image and patient, with their curves."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from report import drawing
from report.reading import Results
from report.sections import Section, Table
from report.text import crossed, cut, number, percent, with_interval, wrapped

GROUP, ORDER = "Evidence", 35
SPECIFICITY, FALSE_ALARMS = "95 %", 0.05  # of `sensitivity` in clinical.csv
SHOWN = 6  # classes: more panels were not legible
AXES = {
    "roc": ("False positive rate", "True positive rate", (0, 0.3)), "precision_recall": ("Recall", "Precision", (0, 1)),
}  # fmt: skip
MEASURES = {
    "accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "kappa": "Kappa", "auc": "AUC",
    "average_precision": "Average precision", "sensitivity": f"Sensitivity at {SPECIFICITY} specificity",
}  # fmt: skip


def section(results: Results) -> Section | None:
    if results.clinical.empty:
        return None
    title = finding(results.clinical, results.leading(1))
    made = tables(results.clinical, list(results.methods.index), results.label)
    curves = results.roc
    order = [name for name in results.methods.index if name in set(curves.method)]
    if not order:
        return Section(title, tables=made, folded=True)
    caption = (
        "Each class against the rest, mean over runs. Left: ROC from a false positive rate of 0 to 0.3; dashed: "
        f"{percent(FALSE_ALARMS)} false positives, where the table's sensitivities are read. Right: precision and "
        "recall."
    )
    if (count := curves["class"].nunique()) > SHOWN:
        caption += f" The first {SHOWN} of {count} classes."
    return Section(title, caption, "", figure(curves, order, results.methods), made, folded=True)


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
    """A row of panels a class, ROC beside precision and recall; a line a method. curves: method, class, curve, x, y."""
    classes = list(dict.fromkeys(curves["class"]))[:SHOWN]
    shown = curves[curves["class"].isin(classes)]
    grid = drawing.lines(
        shown.assign(row=shown["class"].map(classes.index)), 2, 1.7, x="x", y="y", hue="method", hue_order=order,
        palette=methods.color.to_dict(), row="row", col="curve", col_order=list(AXES), estimator=None,
        drawstyle="steps-post", facet_kws={"sharex": False, "sharey": False},
    )  # fmt: skip
    for (row, curve), axis in grid.axes_dict.items():
        xlabel, ylabel, xlim = AXES[curve]
        axis.set_title(wrapped(cut(classes[row], 52), 27) if curve == "roc" else "")
        axis.set(xlim=xlim, ylim=(0, 1.02), xlabel=xlabel if row == len(classes) - 1 else "", ylabel=ylabel)
        if curve == "roc":
            axis.axvline(FALSE_ALARMS, **drawing.REFERENCE_LINE)
    drawing.below(grid.figure, [Line2D([], [], color=methods.color[name], lw=1.6, label=name) for name in order])
    return grid.figure


def tables(clinical: pd.DataFrame, order: list[str], label: str) -> list[Table]:
    """A row a method and level, a column a measure and class; of many classes those of one level, a row a class."""
    order = [name for name in order if name in set(clinical.method)]
    crowded = clinical["class"].nunique() > SHOWN
    whole = clinical[clinical["class"].isna()] if crowded else clinical
    whole = whole.assign(head=whole.measure.map(MEASURES) + (", " + whole["class"]).fillna(""))
    text = crossed(whole, ["method", "level"], "head", map(_told, whole.itertuples()), order)
    text = text.rename(columns={"Level": "Of"})
    note = (
        "Means over runs with 95 % intervals; none where one patient has all images of a class in a test split. Of "
        "patients: probabilities averaged over a patient's images of one class."
    )
    if not crowded and clinical["class"].notna().any():
        note += " AUC, average precision and sensitivity: of a class against the rest."
    first = Table("clinical", f"Clinical measures: {label}", note, clinical, text, left=2)
    return [first, _by_class(clinical, label)] if crowded else [first]


def _by_class(clinical: pd.DataFrame, label: str) -> Table:
    """Sensitivity of every class, by image: a row a class, a column a method."""
    rows = clinical[(clinical.measure == "sensitivity") & (clinical.level == "image")]
    text = crossed(rows, ["class"], "method", map(_told, rows.itertuples()), list(dict.fromkeys(rows["class"])))
    note = "By image, each class against the rest. AUC, average precision and patients: clinical.csv."
    return Table("sensitivity", f"{MEASURES['sensitivity']}: {label}", note, rows, text)


def _told(row) -> str:
    return with_interval(row.value, row.lo, row.hi, lambda value: number(value, ".3f"))
