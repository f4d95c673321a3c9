"""Forest plot of the declared contrasts: what the report's verdicts rest on."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from report import drawing
from report.reading import Results
from report.sections import Section, Table
from report.text import DASH, HIGHER, gap, intervals, listed, numbers, of_patients, p_text, plural, points, signed, span

GROUP, ORDER = "Result", 10
METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auc": "AUC"}


def section(results: Results) -> Section | None:
    rows = results.declared_contrasts.dropna(subset="difference")
    if rows.empty:
        return None
    rows = rows.sort_values("difference", ascending=False, kind="stable")
    rows = rows.sort_values("higher", key=lambda word: word == "not tested", kind="stable").reset_index(drop=True)
    margin = float(rows.margin.max())
    caption = (
        f"Test accuracy of {rows.method[0]} minus that of each method, {_design(rows)}. Line: "
        f"{'Holm-adjusted' if len(rows) > 1 else '95 %'} interval; a verdict rests on it and on a swap test of "
        "patients. Band: "
        f"\N{PLUS-MINUS SIGN}{100 * margin:g} points, the margin of non-inferiority. "
        f"{unlike(rows, results)}{_inferences(rows)}"
    ).rstrip()
    told = "; ".join(
        f"{row.comparator}: {points(row.difference, plus=True)} points "
        f"({points(row.lo, plus=True)} to {points(row.hi, plus=True)})"
        for row in rows.itertuples()
    )
    alt = f"Differences in accuracy, {rows.method[0]} minus the other: {told}."
    again = second_runs(rows, results)
    tables = [table(results.contrasts, results.label)]
    if len(again):
        caption += " Grey: the same difference with both trained on one other machine, interval unadjusted."
        tables.append(second_table(again))
    return Section(finding(rows), caption, alt, figure(rows, results.methods.ink, margin, again), tables)


def finding(rows: pd.DataFrame) -> str:
    """The declared method's place among its comparators, in one sentence."""
    named = rows.comparator + [f" ({points(value, plus=True)})" for value in rows.difference]
    words = [
        f"{word} {listed(list(named[rows.higher == verdict]), 'or')}"
        for verdict, word in HIGHER.items()
        if (rows.higher == verdict).any()
    ]
    untested = int((rows.higher == "not tested").sum())
    text = f"{rows.method.iloc[0]} is {'; '.join(words)}" if words else f"{rows.method.iloc[0]} was not tested"
    return f"{text}; {plural(untested, 'comparison')} not tested." if untested else f"{text}."


def figure(rows: pd.DataFrame, inks, margin: float, again: pd.DataFrame) -> Figure:
    """A row a comparator, largest difference first; rows: as `declared` gives them, sorted; again: `second_runs`."""
    xlabel = f"Accuracy of {rows.method[0]} minus the other's, points"
    figure, (axis,) = drawing.stacked({"": list(rows.against)}, inks, xlabel)
    # Of two runs an interval may leave what a difference can be, or have no end: it then reaches the edge.
    low, high = ((100 * ends).clip(-100, 100).fillna(0) for ends in (rows.lo, rows.hi))
    axis.axvspan(-100 * margin, 100 * margin, color="#EFEFEF", zorder=0)
    axis.axvline(0, color=drawing.INK, lw=0.9, zorder=1)
    for place, row in enumerate(rows.itertuples()):
        color = drawing.RULE if row.higher == "not tested" else drawing.HUES["CoLoRA"]
        axis.plot([low.iloc[place], high.iloc[place]], [place] * 2, color=color, lw=2.2, zorder=2)
        fill = color if row.higher in ("supported", "contradicted") else "white"
        axis.plot(100 * row.difference, place, "o", ms=7, mfc=fill, mec=color, mew=1.6, zorder=3)
        word = {"supported": "better", "contradicted": "worse"}.get(row.higher, row.higher)
        drawing.beside(axis, place, f"{points(row.difference, plus=True)}  {word}")
    ends = pd.concat([low, high, 100 * rows.difference, pd.Series([-100 * margin, 100 * margin])])
    second = {"color": drawing.QUIET, "marker": "D", "ms": 3.5, "lw": 1.0}
    for row in again.itertuples():
        place = rows.index[rows.against == row.against][0] + 0.3
        axis.plot([100 * row.lo_there, 100 * row.hi_there], [place] * 2, **{**second, "marker": ""})
        axis.plot(100 * row.difference_there, place, **second)
        ends = pd.concat([ends, 100 * pd.Series([row.lo_there, row.hi_there])])
    room = 0.04 * np.ptp(ends)
    axis.set_xlim(ends.min() - room, ends.max() + room)
    drawing.ticks(axis)
    dot = {"ls": "", "marker": "o", "ms": 6, "mec": drawing.HUES["CoLoRA"], "mew": 1.6}
    drawing.below(figure, [
        Line2D([], [], mfc=drawing.HUES["CoLoRA"], label="shown", **dot),
        Line2D([], [], mfc="white", label="inconclusive or not tested", **dot),
        Patch(color="#EFEFEF", label=f"within {100 * margin:g} points"),
        *[Line2D([], [], label="on another machine", **second)][: len(again)],
    ])  # fmt: skip
    return figure


def table(contrasts: pd.DataFrame, label: str) -> Table:
    """Every declared contrast: all data sets, shares and metrics, with the intervals and p values."""
    rows = contrasts[contrasts.difference.notna()]
    text = pd.DataFrame({
        "Data": rows.data, "Labels": numbers(rows.share, ".0%"),
        "Metric": rows.metric.map(METRICS), "Method": rows.method, "Minus": rows.against,
        "Difference": [signed(v) for v in rows.difference],
        "Adjusted interval": intervals(rows.lo, rows.hi, plus=True),
        "Holm's p": [p_text(np.fmax(a, b)) for a, b in zip(rows.p_holm, rows.p_swap_holm, strict=True)],
        "Corrected (N. and B.)": intervals(rows.corrected_lo, rows.corrected_hi, plus=True),
        "These networks": intervals(rows.trained_lo, rows.trained_hi, plus=True),
        "Better": rows.higher.fillna(DASH), "At most the margin worse": rows.noninferior.fillna(DASH),
        "By the claimed size": rows.reaches.fillna(DASH), "Reason": rows.reason.fillna(DASH),
    })  # fmt: skip
    alike = [head for head, name in (("Data", "data"), ("Labels", "share")) if rows[name].nunique() <= 1]
    note = (
        "Declared in report/claims/claims.yaml before the runs. The rows of one data set, metric and share are one "
        "Holm family; the interval is adjusted with it and is what the verdicts rest on. Holm's p: the larger one of "
        "the t test's and of the swap test's. Corrected: Nadeau and Bengio's interval at the same level, a "
        "sensitivity analysis. These networks: patients drawn anew, the trained networks as they are."
    )
    return Table("contrasts", f"Declared contrasts: {label}", note, rows, text.drop(columns=alike), left=5 - len(alike))


def second_runs(rows: pd.DataFrame, results: Results) -> pd.DataFrame:
    """The contrasts of `rows` whose two methods were trained on one other machine too: against, the names of the runs
    there (`method_there`, `reference`), their difference, lo, hi and number, beside those declared.
    """
    pairs = results.pairs.query("data == 'test' and metric == 'accuracy'").dropna(subset="lo")
    again = pairs[(pairs.role == "again") & pairs.method.isin(results.methods.index[results.methods.second])]
    made = results.machines
    again = again[again.method.map(made) != again.reference.map(made)]
    first = again.set_index("method").reference
    there = pairs[(pairs.role == "declared") & (pairs.reference.map(first) == rows.method.iloc[0])]
    there = there.assign(
        against=there.method.map(first).fillna(there.method),
        difference=-there.difference, lo=-there.hi, hi=-there.lo,  # the declared method minus the other
    )[["against", "method", "reference", "difference", "lo", "hi", "runs"]]  # fmt: skip
    declared = rows[["against", "method", "difference", "lo", "hi", "higher"]]
    return declared.merge(there, on="against", suffixes=("", "_there"))


def second_table(raw: pd.DataFrame) -> Table:
    """`second_runs` as a table."""
    there = raw[["difference_there", "lo_there", "hi_there"]].set_axis(["difference", "lo", "hi"], axis=1)
    text = pd.DataFrame({
        "Minus": raw.against, "Declared": [gap(row) for row in raw.itertuples()], "Better": raw.higher,
        "There": [gap(row) for row in there.itertuples()], "Runs there": numbers(raw.runs, ".0f"),
        "Which are": raw.method_there,
    })  # fmt: skip
    name = listed(list(raw.reference.unique()))
    note = (
        f"Accuracy of {raw.method[0]} minus that of each method: as declared, with the interval of the verdict, and "
        f"with both trained on one other machine ({name} there), with an unadjusted 95 % interval; exploratory."
    )
    return Table("second_runs", "Declared contrasts on another machine", note, raw, text)


def unlike(rows: pd.DataFrame, results: Results) -> str:
    """'Trained from scratch: medmamba. ', of comparators whose training was unlike the method's, or ''."""
    rows = rows.dropna(subset="difference")
    how = [results.unlike(row.method, row.against).capitalize() for row in rows.itertuples()]
    groups = rows.against.groupby(pd.Series(how, rows.index, dtype=object))  # a list of one would be a list of keys
    return "".join(f"{words}: {listed(list(names))}. " for words, names in groups if words)


def _design(rows: pd.DataFrame) -> str:
    """'5 folds x 3 repeats, 1,000 images of 633 patients', as far as the rows agree."""
    folds, repeats = int(rows.folds.max()), span(rows.repeats)
    runs = f"{span(rows.runs)} seeds"
    if folds > 1:
        runs = f"{folds} folds \N{MULTIPLICATION SIGN} {repeats} repeat{'s' * (repeats != '1')}"
        if (rows.repeats % 1).any():  # some runs of a repeat are missing
            runs = f"{folds} folds, {span(rows.runs)} runs"
    return f"{runs}, {span(rows.images)} test images{of_patients(rows)}"


def _inferences(rows: pd.DataFrame) -> str:
    """Why some rows are not told, the same reasons together."""
    open_rows = rows[rows.higher.isin(["inconclusive", "not tested"]) & rows.reason.notna()]
    told = [
        f"{listed(list(of.comparator))} {verdict}: {reason}"
        for (verdict, reason), of in open_rows.groupby(["higher", "reason"], sort=False)
    ]
    return f"{'; '.join(told)}." if told else ""
