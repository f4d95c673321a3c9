"""Test accuracy of every method: what the runs gave, sorted."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from report import drawing
from report.reading import Results
from report.sections import Section, Table
from report.text import (
    DASH,
    MARK,
    few,
    gap,
    intervals,
    mean_sd,
    not_counted,
    number,
    numbers,
    plural,
    small,
    three_digits,
    unnamed,
)

GROUP, ORDER = "Result", 20


def section(results: Results) -> Section | None:
    methods = results.whole[results.whole.seeds > 0]
    if methods.empty:
        return None
    drawn = figure(methods, results.complete, panels(methods, results.declared[:1]))
    best = methods.sort_values("acc_mean", ascending=False)
    told = "; ".join(f"{name} {number(value, '.3f')}" for name, value in best.acc_mean.items())
    left = bool(len(results.ranked) < (~methods.second).sum())
    return Section(
        finding(results.ranked, results.pairs, left),
        caption(results),
        f"Mean accuracies: {told}.",
        drawn,
        [table(results), *again(results)],
    )


def finding(methods: pd.DataFrame, pairs: pd.DataFrame, left: bool = False) -> str:
    """The best method, and of those that were compared with it and are not told apart the one that trains least, where
    it trains less; left: whether methods that lack a run were left out.
    """
    tested = methods[methods.acc_mean.notna()]
    best = tested.acc_mean.idxmax()
    whole = " of those with all their runs" * left
    text = f"{best} has the highest mean{whole}, {tested.acc_mean[best]:.3f}"
    own = pairs.query("data == 'test' and metric == 'accuracy' and lo <= 0 and hi >= 0")
    near = [*own.reference[own.method == best], *own.method[own.reference == best]]
    near = tested.trainable[tested.index.isin([best, *near])]
    least = near.idxmin() if near.notna().any() else best
    if least == best:
        return f"{text}, of {plural(len(tested), 'method')}."
    share = tested.trainable[least] / tested.total[least]
    text += f"; {least} is not told apart from it ({tested.acc_mean[least]:.3f}) and trains"
    return f"{text} {small(share)} of its network."


def panels(methods: pd.DataFrame, declared: list[str]) -> dict[str, list[str]]:
    """Rows by panel, best first: the first network with a CoLoRA method, its CoLoRA variants, all other networks."""
    ranked = methods.sort_values("acc_mean", ascending=False, na_position="last")
    of_colora = methods[methods.family == "colora"]
    own = of_colora.backbone.iloc[0] if len(of_colora) else methods.backbone.iloc[0]
    named = declared or list(of_colora.index[:1])
    same = ranked[ranked.backbone == own]
    variants = same[same.family == "colora"]
    crowded = len(same) > drawing.MOST and len(variants) > 2
    shown = {
        f"Ways to train {own}": same[(same.family != "colora") | same.index.isin(named)] if crowded else same,
        f"CoLoRA on {own}": variants if crowded else variants[:0],
        "Other networks": ranked[ranked.backbone != own],
    }
    return drawing.parted({title: list(rows.index) for title, rows in shown.items()})


def figure(methods: pd.DataFrame, runs: pd.DataFrame, rows: dict[str, list[str]]) -> Figure:
    """A row a method: a dot a run, the mean, and its 95 % interval.

    Args:
        methods: index of names; acc_mean, acc_lo, acc_hi, family, backbone, kind, color, ink.
        runs: method and test_acc.
        rows: the names of each panel, from the top down.
    """
    figure, axes = drawing.stacked(rows, methods.ink, "Test accuracy")
    colors = methods.color.to_dict()
    low, high = drawing.limits([*methods.acc_mean, *methods.acc_lo, *methods.acc_hi])
    for axis, names in zip(axes, rows.values(), strict=True):
        own = runs[runs.method.isin(names)]
        sns.stripplot(
            own, x="test_acc", y="method", order=names, hue="method", palette=colors, jitter=False, size=4, alpha=0.35,
            legend=False, ax=axis, zorder=1,
        )  # fmt: skip
        for place, name in enumerate(names):
            row = methods.loc[name]
            if row.acc_mean >= low:
                axis.plot([row.acc_lo, row.acc_hi], [place] * 2, color=row.color, lw=2, zorder=2)
                axis.plot(row.acc_mean, place, "o", ms=6.5, color=row.color, mec="white", mew=0.9, zorder=3)
            else:
                axis.plot(low, place, "<", ms=6, color=row.color, clip_on=False, zorder=3)
            drawing.beside(axis, place, f"{row.acc_mean:.3f}")
        drawing.label_rows(axis, names, methods.ink)
        axis.set(xlim=(low, high), xlabel="", ylabel="")
    axes[-1].set_xlabel("Test accuracy")
    drawing.ticks(axes[-1])
    handles = [
        Line2D([], [], ls="", marker="o", ms=4, alpha=0.4, color=drawing.INK, label="a run"),
        Line2D([], [], ls="-", lw=2, marker="o", ms=6.5, mec="white", color=drawing.INK, label="mean, 95 % interval"),
    ]
    if (methods.acc_mean < low).any():
        handles.append(Line2D([], [], ls="", marker="<", ms=6, color=drawing.INK, label="lies further left"))
    drawing.below(figure, handles)
    return figure


def caption(results: Results) -> str:
    """How to read it, and what would mislead: methods that did not learn, runs that are missing."""
    methods = results.whole
    text = f"{results.label}. Sorted by mean accuracy; colours by kind of method; intervals are for "
    text += f"{results.drawn_anew}."
    run = methods[methods.seeds > 0]
    if weak := [name for name in run.index if name not in results.learnt]:
        text += f" Learnt little (training accuracy nearer to chance than to the best method's): {few(weak, 6)}."
    if short := list(run.index[run.seeds < run.planned]):
        text += f" Some runs are missing of {few(short, 6)}."
    text += not_counted(run)
    if none := list(methods.index[methods.seeds == 0]):
        text += f" Not run yet: {few(none, 12)}."
    return text


def table(results: Results) -> Table:
    """Accuracy, AUC, parameters and time of every method that was run, and whether it started pretrained."""
    methods = results.methods[results.methods.seeds > 0].sort_values("acc_mean", ascending=False, kind="stable")
    start = methods.weights.map(lambda weights: "from scratch" if weights == "random" else "pretrained", "ignore")
    raw = methods.assign(start=start).drop(columns=["color", "ink", "shown"]).rename_axis("method").reset_index()
    text = pd.DataFrame({
        "Method": [name + f" {MARK}" * (name in results.never_named) for name in methods.index],
        "Network": methods.backbone.fillna(DASH), "Kind": methods.kind,
        "Start": start.fillna(DASH),
        "Accuracy": [mean_sd(m, s, 3) for m, s in zip(methods.acc_mean, methods.acc_sd, strict=True)],
        "95 % interval": intervals(methods.acc_lo, methods.acc_hi),
        "AUC": [mean_sd(m, s, 4) for m, s in zip(methods.auc_mean, methods.auc_sd, strict=True)],
        "Trained": numbers(methods.trainable, ",.0f"), "Total": numbers(methods.total, ",.0f"),
        "LR": numbers(methods.lr, "g"),
        "Runs": [f"{n}" if n == p else f"{n} of {p}" for n, p in zip(methods.seeds, methods.planned, strict=True)],
        "s/epoch": [three_digits(v) for v in methods.epoch_s],
    })  # fmt: skip
    note = (
        f"Mean ± sample standard deviation over runs; the interval is for {results.drawn_anew}. Trained and total: "
        "parameters; the total counts branches before they are merged. LR: learning rate. s/epoch: seconds of a "
        "training epoch where the run happened to be made, beside other work at times: the cost group has times that "
        "may be compared." + unnamed(results.never_named)
    )
    return Table("main", f"Test results: {results.label}", note, raw, text, left=4)


def again(results: Results) -> list[Table]:
    """Methods that were run a second time at a stated rate, beside the first; no table where there are none."""
    rows = results.pairs.query("role == 'again' and data == 'test' and metric == 'accuracy'").dropna(
        subset="difference"
    )
    if rows.empty:
        return []
    lr, accuracy, made = results.methods.lr, results.methods.acc_mean, results.machines
    text = pd.DataFrame({
        "Method": rows.method, "Rate": numbers(lr[rows.method], "g"), "On": list(made.reindex(rows.method)),
        "Accuracy": numbers(accuracy[rows.method], ".3f"), "The same method": rows.reference,
        "Its rate": numbers(lr[rows.reference], "g"), "Its machine": list(made.reindex(rows.reference)),
        "Difference": list(map(gap, rows.itertuples())),
        "Runs": numbers(rows.runs, ".0f"),
    })  # fmt: skip
    note = "Test accuracy of the one minus that of the other, paired by run. Exploratory, unadjusted intervals."
    return [Table("again", "The same methods again", note, rows, text)]
