"""Learning curves: validation accuracy by epoch, every kind of method over full fine-tuning and head-only in grey."""

import pandas as pd
import seaborn as sns
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
    caption = (
        "Validation accuracy after each epoch, mean over runs; band: lowest to highest run. "
        f"{results.describe('val')}.{_grey(results.methods.family[names])} "
        "Steep first epochs may lie below the panels. The epoch of the highest validation score is the one that is "
        "tested, run by run."
    )
    if more := results.curves.method.nunique() - len(names):
        caption += f" {plural(more, 'method')} more in curves.csv of the results."
    last = curves[curves.epoch == curves.groupby(["method", "seed"]).epoch.transform("max")]
    ends = last.groupby("method").val_acc.mean().sort_values(ascending=False)
    told = "; ".join(f"{name} {value:.3f}" for name, value in ends.items())
    return Section(
        name="learning_curves", group=GROUP, title=title, caption=caption,
        alt=f"{title} Validation accuracy after the last epoch: {told}.",
        figure=figure(curves, names, results.methods),
    )  # fmt: skip


def _grey(families: pd.Series) -> str:
    """What `figure` draws behind every panel, by the families of the methods that have one."""
    there = [words for family, words in BEHIND.items() if (families == family).any()]
    return f" Grey: {listed(there)} of the first network." if there else ""


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
    columns = min(3, len(names))
    same = curves.groupby("method").epoch.max().nunique() == 1  # else every panel has epochs of its own
    with drawing.facets():
        grid = sns.relplot(
            curves, x="epoch", y="val_acc", hue="method", col="method", col_order=names, col_wrap=columns, kind="line",
            errorbar=lambda values: (values.min(), values.max()), palette=methods.color.to_dict(), legend=False,
            height=1.75, aspect=drawing.WIDTH / columns / 1.75, facet_kws={"sharex": same},
        )  # fmt: skip
    mean = curves.groupby(["method", "epoch"]).val_acc.mean()
    behind = {family: next((name for name in names if methods.family[name] == family), None) for family in BEHIND}
    dashes = {"full": (0, (4, 2)), "head_only": (0, (1, 1.4))}
    for name, axis in grid.axes_dict.items():
        for family, other in behind.items():
            if other not in (None, name):
                axis.plot(mean[other].index, mean[other], color="#9A9A9A", lw=1.1, ls=dashes[family], zorder=1)
        axis.set_title(drawing.wrapped(name, 19), color=methods.ink[name], fontsize=9, linespacing=0.95)
        drawing.ticks(axis, "x", 4)
    low = curves.val_acc.quantile(0.06)
    high = curves.val_acc.max()
    room = max(0.05 * (high - low), 0.005)  # curves may all be one flat line
    grid.set(ylim=(low - room, min(high + room, 1.005)), xlabel="", ylabel="")
    grid.figure.set_layout_engine("constrained")
    grid.figure.supxlabel("Epoch", fontsize=9.5)
    grid.figure.supylabel("Validation accuracy", fontsize=9.5)
    return grid.figure
