"""Forest plot of the declared contrasts: what the report's verdicts rest on."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from report import drawing
from report.reading import Results
from report.sections import Section, Table
from report.text import DASH, HIGHER, interval, listed, number, p_text, plural, points, signed, span

GROUP, ORDER = "Result", 10
METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auc": "AUC"}


def section(results: Results) -> Section | None:
    rows = results.declared_contrasts.dropna(subset="difference")
    if rows.empty:
        return None
    rows = rows.assign(last=rows.higher == "not tested")
    rows = rows.sort_values(["last", "difference"], ascending=[True, False], kind="stable").reset_index(drop=True)
    inks = results.methods.ink
    margin = float(rows.margin.max())
    zone = f"\N{PLUS-MINUS SIGN}{100 * margin:g} points"
    scratch = [name for name in rows.against if results.from_scratch(rows.method[0], name)]
    caption = (
        f"Test accuracy of {rows.method[0]} minus that of each method, {_design(rows)}. Line: {_adjusted(rows)} "
        f"interval, the one the verdict rests on. Band: {zone}, the margin of non-inferiority. "
        f"{f'Trained from scratch: {listed(scratch)}. ' if scratch else ''}{_inferences(rows)}"
    )
    told = "; ".join(
        f"{row.comparator}: {points(row.difference, plus=True)} points "
        f"({points(row.lo, plus=True)} to {points(row.hi, plus=True)})"
        for row in rows.itertuples()
    )
    return Section(
        name="forest", group=GROUP, title=finding(rows), caption=caption,
        alt=f"{finding(rows)} Differences in accuracy, {rows.method[0]} minus the other: {told}.",
        figure=figure(rows, inks, margin), tables=[table(results.contrasts, results.label)],
    )  # fmt: skip


def finding(rows: pd.DataFrame) -> str:
    """The declared method's place among its comparators, in one sentence."""
    words = []
    for verdict, word in HIGHER.items():
        of = rows[rows.higher == verdict]
        if len(of):
            names = listed([f"{row.comparator} ({points(row.difference, plus=True)})" for row in of.itertuples()], "or")
            words.append(f"{word} {names}")
    untested = int((rows.higher == "not tested").sum())
    text = f"{rows.method.iloc[0]} is {'; '.join(words)}" if words else f"{rows.method.iloc[0]} was not tested"
    return f"{text}; {plural(untested, 'comparison')} not tested." if untested else f"{text}."


def figure(rows: pd.DataFrame, inks, margin: float) -> Figure:
    """A row a comparator, largest difference first; `rows` as `declared` gives them, sorted."""
    names = list(rows.against)
    figure, (axis,) = drawing.stacked({"": names}, inks, f"Accuracy of {rows.method[0]} minus the other's, points")
    # Of two runs an interval may leave what a difference can be, or have no end: it then reaches the edge.
    low, high = ((100 * ends).clip(-100, 100).fillna(0) for ends in (rows.lo, rows.hi))
    axis.axvspan(-100 * margin, 100 * margin, color="#EFEFEF", zorder=0)
    axis.axvline(0, color=drawing.INK, lw=0.9, zorder=1)
    for place, row in enumerate(rows.itertuples()):
        tested = row.higher != "not tested"
        color = drawing.HUES["CoLoRA"] if tested else drawing.RULE
        axis.plot([low.iloc[place], high.iloc[place]], [place] * 2, color=color, lw=2.2, zorder=2)
        fill = color if row.higher in ("supported", "contradicted") else "white"
        axis.plot(100 * row.difference, place, "o", ms=7, mfc=fill, mec=color, mew=1.6, zorder=3)
        word = {"supported": "better", "contradicted": "worse"}.get(row.higher, row.higher)
        drawing.beside(axis, place, f"{points(row.difference, plus=True)}  {word}")
    ends = pd.concat([low, high, 100 * rows.difference, pd.Series([-100 * margin, 100 * margin])])
    room = 0.04 * np.ptp(ends)
    axis.set_xlim(ends.min() - room, ends.max() + room)
    drawing.ticks(axis)
    dot = {"ls": "", "marker": "o", "ms": 6, "mec": drawing.HUES["CoLoRA"], "mew": 1.6}
    drawing.below(figure, [
        Line2D([], [], mfc=drawing.HUES["CoLoRA"], label="shown", **dot),
        Line2D([], [], mfc="white", label="inconclusive or not tested", **dot),
        Patch(color="#EFEFEF", label=f"within {100 * margin:g} points"),
    ])  # fmt: skip
    return figure


def table(contrasts: pd.DataFrame, label: str) -> Table:
    """Every declared contrast: all data sets, shares and metrics, with the intervals and p values."""
    rows = contrasts[contrasts.difference.notna()]
    more = [name for name in ("data", "share") if rows[name].nunique() > 1]
    text = pd.DataFrame({
        **({"Data": rows.data} if "data" in more else {}),
        **({"Labels": [number(v, ".0%") for v in rows.share]} if "share" in more else {}),
        "Metric": rows.metric.map(METRICS), "Method": rows.method, "Minus": rows.against,
        "Difference": [signed(v) for v in rows.difference],
        "Adjusted interval": [interval(lo, hi, plus=True) for lo, hi in zip(rows.lo, rows.hi, strict=True)],
        "Holm's p": [p_text(np.fmax(a, b)) for a, b in zip(rows.p_holm, rows.p_swap_holm, strict=True)],
        "Corrected (N. and B.)": [
            interval(lo, hi, plus=True) for lo, hi in zip(rows.corrected_lo, rows.corrected_hi, strict=True)
        ],
        "These networks": [interval(lo, hi, plus=True) for lo,
        hi in zip(rows.trained_lo, rows.trained_hi, strict=True)],
        "Better": rows.higher.fillna(DASH), "At most the margin worse": rows.noninferior.fillna(DASH),
        "By the claimed size": rows.reaches.fillna(DASH), "Reason": rows.reason.fillna(DASH),
    })  # fmt: skip
    note = (
        "Declared in report/claims/claims.yaml before the runs. The rows of one data set, metric and share are one "
        "Holm family; the interval is adjusted with it and is what the verdicts rest on. Holm's p: the larger one of "
        "the t test's and of the swap test's. Corrected: Nadeau and Bengio's interval at the same level, a "
        "sensitivity analysis. These networks: patients drawn anew, the trained networks as they are."
    )
    return Table("contrasts", f"Declared contrasts: {label}", note, rows, text, left=2 + len(more) + 1)


def _design(rows: pd.DataFrame) -> str:
    """'5 folds x 3 repeats, 1,000 images of 633 patients', as far as the rows agree."""
    folds, repeats = int(rows.folds.max()), span(rows.repeats)
    runs = f"{span(rows.runs)} seeds"
    if folds > 1:
        runs = f"{folds} folds \N{MULTIPLICATION SIGN} {repeats} repeat{'s' * (repeats != '1')}"
        if (rows.repeats % 1).any():  # some runs of a repeat are missing
            runs = f"{folds} folds, {span(rows.runs)} runs"
    images = f"{span(rows.images)} test images"
    return f"{runs}, {images}{f' of {span(rows.patients)} patients' if rows.patients.notna().any() else ''}"


def _adjusted(rows: pd.DataFrame) -> str:
    return "Holm-adjusted" if len(rows) > 1 else "95 %"


def _inferences(rows: pd.DataFrame) -> str:
    """Why some rows are not told, the same reasons together."""
    open_rows = rows[rows.higher.isin(["inconclusive", "not tested"]) & rows.reason.notna()]
    told = [
        f"{listed(list(of.comparator))} {verdict}: {reason}"
        for (verdict, reason), of in open_rows.groupby(["higher", "reason"], sort=False)
    ]
    return f"{'; '.join(told)}." if told else ""
