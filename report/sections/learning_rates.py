"""Learning rates tried: how much each method's accuracy hangs on its rate, and whether the grid was wide enough."""

import pandas as pd
from matplotlib.figure import Figure

from report import drawing
from report.reading import Results
from report.sections import Section, Table
from report.text import crossed, few, number

GROUP, ORDER = "Data and methods", 20
SHOWN = 9  # panels
NEAR = 0.01  # of the best accuracy: rates that close count as good


def section(results: Results) -> Section | None:
    tried = results.tuning
    if tried.val_acc.isna().all():
        return None
    names = results.varied(SHOWN, set(tried.method))
    learnt = tried[tried.method.isin(results.learnt)]
    title = finding(learnt if len(learnt) else tried)
    caption = (
        f"Best validation accuracy of short runs at each learning rate, {_seeds(tried, 'hollow')}; ring: the rate "
        "chosen. Every method had the same grid; a choice at its edge widened the grid, a step at a time."
    )
    if results.card.get("folds"):
        caption += " With folds, images that these runs trained and validated on are test images of others, of every "
        caption += "fold where all were tried."
    stated = [name for name, seeds in results.methods.seeds.items() if seeds and name not in set(tried.method)]
    caption += f" Rates stated, not tuned: {few(stated, 6)}." if stated else ""
    best = tried[tried.chosen == "True"].drop_duplicates("method").set_index("method").lr
    alt = f"Rates chosen: {', '.join(f'{name} {best[name]:g}' for name in names if name in best.index)}."
    tables = [table(tried, list(results.methods.index))]
    return Section(title, caption, alt, figure(tried, names, results.methods), tables)


def finding(tried: pd.DataFrame) -> str:
    """Between how few and how many of the rates tried a method is near its best, and who chose at an edge."""
    best = tried.val_acc[finalist(tried)].groupby(tried.method).max()
    near = finalist(tried) & (tried.val_acc >= tried.method.map(best) - NEAR)
    good = near.groupby(tried.method).sum().sort_values(kind="stable")
    edge = at_edge(tried)
    text = f"{good.index[-1]} is within a point of its best at {good.iloc[-1]} of the rates tried"
    text += f", {good.index[0]} at {good.iloc[0]}" * (len(good) > 1)
    return f"{text}; {few(edge, 3) if edge else 'no method'} chose the edge of the grid."


def at_edge(tried: pd.DataFrame) -> list[str]:
    """The methods whose chosen rate is the lowest or highest that they tried; with one rate there is no edge."""
    rates = tried.groupby("method").lr
    low, high = rates.transform("min"), rates.transform("max")
    return list(tried.method[(tried.chosen == "True") & (low < high) & ((tried.lr == low) | (tried.lr == high))])


def finalist(tried: pd.DataFrame) -> pd.Series:
    """Which rates came to an end on as many seeds as any of their method, and so may be compared."""
    ended = tried.val_acc.notna()
    return ended & (tried.seeds == tried.seeds.where(ended).groupby(tried.method).transform("max"))


def _seeds(tried: pd.DataFrame, mark: str) -> str:
    most = int(tried.seeds[tried.val_acc.notna()].max())
    if most == 1:
        return "one seed"
    where = "where the first could not tell rates apart"
    seeds = tried.seeds[tried.val_acc.notna()].groupby(tried.method).max()
    alone = [name for name, count in seeds.items() if count == 1]
    text = f"means over {most} seeds {where} ({mark}: on the first alone, which ruled it out"
    return f"{text}; on the first alone was decided for {few(alone, 6)})" if alone else f"{text})"


def figure(tried: pd.DataFrame, names: list[str], methods: pd.DataFrame) -> Figure:
    """A panel a method. tried: method, lr, seeds, val_acc, chosen. methods: color and ink by name."""
    own = tried[tried.method.isin(names)]
    behind = own[~finalist(own)]
    grid = drawing.method_lines(
        own, names, methods, 1.6, ("Learning rate", "Validation accuracy"), x="lr", y="val_acc", marker="o",
        markersize=6, errorbar=None,
    )  # fmt: skip
    for name, axis in grid.axes_dict.items():
        first = behind[behind.method == name]
        axis.plot(first.lr, first.val_acc, "o", ms=4, mfc="white", mec="none")
        best = own[(own.method == name) & (own.chosen == "True")]
        axis.plot(best.lr, best.val_acc, "o", ms=11, mfc="none", mec=drawing.INK, mew=1.2)
    low, high = own.val_acc.min(), own.val_acc.max()
    room = 0.1 * (high - low) + 0.01
    grid.set(xscale="log", ylim=(low - room, high + room), xlim=(own.lr.min() / 1.6, own.lr.max() * 1.6))
    for axis in grid.axes.flat:
        drawing.log_ticks(axis, subs=(1, 3) if own.lr.max() < 30 * own.lr.min() else (1,))
    return grid.figure


def table(tried: pd.DataFrame, order: list[str]) -> Table:
    """A row a method, a column a rate."""
    tried = tried.sort_values("lr")
    ruled_out = ~finalist(tried) & tried.val_acc.notna()
    told = [
        f"({number(row.val_acc, '.3f')})" if behind else number(row.val_acc, ".3f") + " *" * chosen
        for row, behind, chosen in zip(tried.itertuples(), ruled_out, tried.chosen == "True", strict=True)
    ]
    text = crossed(tried.assign(rate=tried.lr.map("{:g}".format)), ["method"], "rate", told, order)
    note = f"Best validation accuracy of short runs at each rate, {_seeds(tried, 'in brackets')}; * the rate chosen, a "
    note += "dash: not tried, or failed."
    return Table("tuning", "Learning rates tried", note, tried.sort_index(), text)
