"""Learning curves: validation accuracy by epoch, every kind of method over full fine-tuning and head-only in grey."""

import pandas as pd
from matplotlib.figure import Figure

from report import drawing
from report.reading import Results
from report.sections import Section
from report.text import listed, plural

GROUP, ORDER = "Evidence", 10
SHOWN = 9  # panels
BEHIND = {"full": "full fine-tuning (dashed)", "head_only": "head-only (dotted)"}
STILL = 0.01  # gain in accuracy over the last two epochs from which a method is said to be still rising


def section(results: Results) -> Section | None:
    if results.curves.empty:
        return None
    names = results.varied(SHOWN, set(results.curves.method))
    curves = results.curves[results.curves.method.isin(names)]
    title = finding(results.curves, [name for name in results.ranked.index if name in results.learnt])
    families = set(results.methods.family[names]) if len(names) > 1 else set()  # nothing is drawn behind itself
    there = [words for family, words in BEHIND.items() if family in families]
    grey = f" Grey: {listed(there)} of the first network." if there else ""
    caption = (
        "Validation accuracy after each epoch, mean over runs; band: lowest to highest run. "
        f"{results.describe('val')}.{grey} "
        "Steep first epochs may lie below the panels. The epoch of the highest validation score is the one that is "
        "tested, run by run."
    )
    if more := results.curves.method.nunique() - len(names):
        caption += f" {plural(more, 'method')} more in curves.csv of the results."
    last = curves[curves.epoch == curves.groupby(["method", "seed"]).epoch.transform("max")]
    ends = last.groupby("method").val_acc.mean().sort_values(ascending=False)
    told = "; ".join(f"{name} {value:.3f}" for name, value in ends.items())
    alt = f"Validation accuracy after the last epoch: {told}."
    return Section(title, caption, alt, figure(curves, names, results.methods))


def finding(curves: pd.DataFrame, names) -> str:
    """Which methods still rise when training ends, and which are within a point of their best soonest."""
    if not len(names):
        return "No method learned, so none is told from another by its curve."
    mean = curves[curves.method.isin(names)].groupby(["method", "epoch"]).val_acc.mean().unstack("method")
    gain = mean.apply(lambda own: own.dropna().iloc[-1] - own.dropna().iloc[max(own.count() - 3, 0)])
    rising = [name for name in names if name in gain.index and gain[name] > STILL]
    soonest = (mean >= mean.max() - 0.01).idxmax()
    share = soonest / mean.apply(pd.Series.last_valid_index)
    first = share.idxmin()
    of = mean[first].last_valid_index()
    text = f"{first} is within a point of its best after {soonest[first]:.0f} of its {of:.0f} epochs"
    if not rising:
        return f"{text}; none gained a point in the last two epochs."
    who = rising[0] if len(rising) == 1 else f"{len(rising)} of {len(mean.columns)} methods"
    return f"{text}; {who} gained over a point in the last two epochs."


def figure(curves: pd.DataFrame, names: list[str], methods: pd.DataFrame) -> Figure:
    """A panel a method. curves: method, seed, epoch, val_acc. methods: color, ink, family, backbone by name."""
    same = curves.groupby("method").epoch.max().nunique() == 1  # else every panel has epochs of its own
    grid = drawing.method_lines(
        curves, names, methods, 1.75, ("Epoch", "Validation accuracy"), x="epoch", y="val_acc",
        errorbar=lambda values: (values.min(), values.max()), facet_kws={"sharex": same},
    )  # fmt: skip
    mean = curves.groupby(["method", "epoch"]).val_acc.mean()
    behind = {family: next((name for name in names if methods.family[name] == family), None) for family in BEHIND}
    dashes = {"full": (0, (4, 2)), "head_only": (0, (1, 1.4))}
    for name, axis in grid.axes_dict.items():
        for family, other in behind.items():
            if other not in (None, name):
                axis.plot(mean[other].index, mean[other], color="#9A9A9A", lw=1.1, ls=dashes[family], zorder=1)
        drawing.ticks(axis, "x", 4)
    low, high = curves.val_acc.quantile([0.06, 1])
    room = max(0.05 * (high - low), 0.005)  # curves may all be one flat line
    grid.set(ylim=(low - room, min(high + room, 1.005)))
    return grid.figure
