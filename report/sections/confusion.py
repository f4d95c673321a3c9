"""Confusion matrices of the declared methods: which classes are taken for which."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from report import drawing
from report.reading import Results
from report.sections import Section, Table
from report.text import abbreviations, number, percent, short_names, small

GROUP, ORDER = "Evidence", 20
SHOWN = 6
CROWDED = 12  # classes, above which ticks are every fifth class's number and the table has a row a class
EVERY = 5


def section(results: Results) -> Section | None:
    names = results.leading(SHOWN)
    if results.confusion.empty or not names:
        return None
    shares = {name: matrix(results.confusion, name) for name in names}
    caption = f"Per cent of the images of a true class (row) that are called each class (column); {results.label}."
    classes = list(next(iter(shares.values())).index)
    caption += " Classes by number, as in the table." if len(classes) > CROWDED else abbreviations(classes)
    told = "; ".join(
        f"{name} recognises {', '.join(f'{percent(round(share.loc[c, c], 2))} of {c}' for c in share.index)}"
        for name, share in list(shares.items())[:3]
        if len(share) <= CROWDED
    )
    alt, drawn = f"{told}." if told else "", figure(shares, results.methods.ink)
    tables = [recall(results.confusion, list(results.methods.index), results.label)]
    return Section(finding(shares), caption, alt, drawn, tables, folded=True)


def matrix(confusion: pd.DataFrame, method: str) -> pd.DataFrame:
    """Shares of each true class (row) by predicted class (column), in the classes' order."""
    own = confusion[confusion.method == method]
    classes = list(dict.fromkeys(own["true"]))
    counts = own.pivot_table(index="true", columns="predicted", values="count", aggfunc="sum", fill_value=0)
    counts = counts.reindex(index=classes, columns=classes, fill_value=0)
    return counts.div(counts.sum(axis=1).replace(0, np.nan), axis=0)


def finding(shares: dict[str, pd.DataFrame]) -> str:
    """The commonest confusion of the first method, and of how many others it is too."""
    first, *others = shares
    true, predicted, share = _worst(shares[first])
    if share == 0:
        return f"{first} confuses no two classes."
    same = sum(_worst(shares[name])[:2] == (true, predicted) for name in others)
    text = f"{first} takes {small(round(share, 2) or share)} of {true} for {predicted}"
    return f"{text}, the commonest confusion of {same} of {len(others)} others drawn too." if same else f"{text}."


def _worst(share: pd.DataFrame) -> tuple[str, str, float]:
    off = share.to_numpy(copy=True)
    np.fill_diagonal(off, -1)
    row, column = np.unravel_index(np.nanargmax(off), off.shape)
    return share.index[row], share.columns[column], max(off[row, column], 0.0)


def figure(shares: dict[str, pd.DataFrame], inks) -> Figure:
    """A heat map a method, per cent; `shares` as `matrix` gives them."""
    figure, axes = drawing.grid(len(shares), min(3, len(shares)), 1.95, 0.3, sharex=True, sharey=True)
    for axis, (name, share) in zip(axes.flat, shares.items()):
        crowded = len(share) > CROWDED
        names = range(1, len(share) + 1) if crowded else short_names(list(share.columns)).values()
        labels = EVERY if crowded else True
        sns.heatmap(
            100 * share.set_axis(names).set_axis(names, axis=1), ax=axis, cmap=drawing.SHADE, vmin=0, vmax=100,
            cbar=False, square=True, annot=len(share) <= 6, fmt=".0f", annot_kws={"fontsize": drawing.SMALL},
            xticklabels=labels, yticklabels=labels, linewidths=0 if crowded else 0.5,
        )  # fmt: skip
        drawing.title(axis, name, inks[name])
        axis.tick_params(length=0)
        axis.tick_params(axis="y", rotation=0)
        plt.setp(axis.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
        axis.set(xlabel="", ylabel="")
    figure.supxlabel("Called", fontsize=9.5)
    figure.supylabel("True class", fontsize=9.5)
    return figure


def recall(confusion: pd.DataFrame, order: list[str], label: str) -> Table:
    """Share of each true class that is recognised: a row a method, or a class where these are many."""
    shares = {name: matrix(confusion, name) for name in order if name in set(confusion.method)}
    by_class = pd.DataFrame({name: pd.Series(np.diag(own), own.index) for name, own in shares.items()})
    raw = by_class.T.rename_axis("method").rename_axis(None, axis=1).reset_index()
    crowded = len(by_class) > CROWDED
    text = raw.rename(columns={"method": "Method"})
    if crowded:
        text = by_class.rename_axis("Class").reset_index()
        text.insert(0, "No.", [str(place) for place in range(1, len(text) + 1)])
    text = text.map(lambda v: v if isinstance(v, str) else number(v, ".3f"))
    note = "Share of a true class that is recognised, over all runs."
    return Table("recall", f"Recall by class: {label}", note, raw, text, left=1 + crowded)
