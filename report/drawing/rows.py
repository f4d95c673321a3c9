"""What figures share that show a method a row: panels, names in the kind's colour, limits, values beside the panel."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pipelines.files.fonts import cells
from report.drawing.palette import INK
from report.drawing.style import SMALL, WIDTH
from report.text import points

ROW = 0.25  # inches
MOST = 12  # rows of a panel
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def stacked(panels: Mapping[str, Sequence[str]], inks: Mapping[str, str], xlabel: str) -> tuple[Figure, list[Axes]]:
    """Panels one above the other on one x axis, a row a name: panels[title] lists the names from the top down.

    inks: the colour of each name's text. Row i of a panel is at y = i.
    """
    heights = [len(names) + 0.3 for names in panels.values()]
    lines = max(wrapped(name).count("\n") for names in panels.values() for name in names)
    height = (ROW + 0.1 * lines) * sum(heights) + 0.3 * len(panels) + 0.35
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(WIDTH, height), height_ratios=heights, squeeze=False, sharex=True
    )
    for axis, (title, names) in zip(axes[:, 0], panels.items(), strict=True):
        label_rows(axis, names, inks)
        if len(panels) > 1:
            axis.set_title(title)
    axes[-1, 0].set_xlabel(xlabel)
    return figure, list(axes[:, 0])


def label_rows(axis: Axes, names: Sequence[str], inks: Mapping[str, str], width: int = 22) -> None:
    """Ticks of a panel with a row a name, the first at the top."""
    axis.set(
        yticks=range(len(names)), yticklabels=[wrapped(name, width) for name in names], ylim=(len(names) - 0.4, -0.6)
    )
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x")
    axis.grid(False, axis="y")
    for label, name in zip(axis.get_yticklabels(), names, strict=True):
        label.set(color=inks[name], linespacing=0.9)


def beside(axis: Axes, row: float, text: str) -> None:
    """Write a row's value at the right of the panel, level with it."""
    place = axis.get_yaxis_transform()
    axis.annotate(text, (1.015, row), xycoords=place, va="center", fontsize=SMALL, annotation_clip=False)


def dumbbells(
    panels: Mapping[str, pd.DataFrame], methods: pd.DataFrame, xlabel: str, labels: tuple[str, str]
) -> tuple[Figure, list[Axes]]:
    """Two values a row, joined: a full dot and a hollow one, row i at y = i; at the right the change in points.

    panels: by title, index of names; full, hollow, change, lo, hi. methods: color and ink by name. labels: of the full
    dot and of the hollow one.
    """
    figure, axes = stacked({title: list(rows.index) for title, rows in panels.items()}, methods.ink, xlabel)
    for axis, rows in zip(axes, panels.values(), strict=True):
        for place, row in enumerate(rows.itertuples()):
            color = methods.color[row.Index]
            axis.plot([row.full, row.hollow], [place] * 2, color=color, lw=2, alpha=0.45, zorder=2)
            axis.plot(row.hollow, place, "o", ms=7, mfc="white", mec=color, mew=1.5, zorder=3)
            axis.plot(row.full, place, "o", ms=7, color=color, zorder=4)
            interval = f" [{points(row.lo)}, {points(row.hi)}]" if pd.notna(row.lo) else ""
            beside(axis, place, f"{points(row.change, plus=True)}{interval}")
        ticks(axis)
    dot = {"ls": "", "marker": "o", "ms": 7}
    below(figure, [
        Line2D([], [], color=INK, label=labels[0], **dot),
        Line2D([], [], mfc="white", mec=INK, mew=1.5, label=labels[1], **dot),
    ])  # fmt: skip
    return figure, axes


def parted(panels: Mapping[str, Sequence]) -> dict[str, Sequence]:
    """The panels with at most `MOST` rows each: one that is longer goes on in further ones."""
    found = {}
    for title, rows in panels.items():
        size = -(-len(rows) // max(-(-len(rows) // MOST), 1))
        for part, start in enumerate(range(0, len(rows), max(size, 1))):
            found[title + ", continued" * part] = rows[start : start + size]
    return found


def grid(count: int, columns: int, height: float, more: float, **options) -> tuple[Figure, np.ndarray]:
    """So many panels, `columns` a line, each `height` inches high, with `more` inches besides; options: of subplots."""
    lines = -(-count // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(WIDTH, height * lines + more), squeeze=False, **options)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, axes


def limits(values, *, room: float = 0.04, most: float = 1.5, top: float | None = None) -> tuple[float, float]:
    """Limits that show the values but for a few far below: those under `most` times the middle half's width are cut.

    top: an upper bound that values cannot pass, such as 1 for an accuracy.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, quarter, high = values.min(), *np.quantile(values, [0.25, 1])
    low = max(low, quarter - most * max(high - quarter, 1e-3))
    margin = room * (high - low) or 0.01
    return low - margin, high + margin if top is None else min(high + margin, top + margin / 2)


def ticks(axis: Axes, which: str = "x", count: int = 6) -> None:
    """At most so many ticks, at round numbers."""
    getattr(axis, f"{which}axis").set_major_locator(MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]))


def log_ticks(
    axis: Axes, which: str = "x", form: Callable[[float], str] = "{:g}".format, subs: Sequence[float] = (1, 2, 5)
) -> None:
    """Ticks of a logarithmic axis at `subs` times the powers of ten, as plain numbers: no text here is a formula."""
    own = getattr(axis, f"{which}axis")
    own.set_major_locator(LogLocator(subs=subs, numticks=20))
    own.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
    own.set_minor_formatter(NullFormatter())


def below(figure: Figure, handles: Sequence[Line2D]) -> None:
    """A legend under the panels."""
    figure.legend(handles=handles, loc="outside lower center", ncols=3)


def wrapped(name: str, width: int = 22) -> str:
    """A method's name on as few lines of at most `width` characters as hyphens allow, the lines about equally long."""
    parts = re.split(r"(?<=-)(?!\d)|(?<= )", name)  # a range of numbers such as 2-5 stays whole

    def lines(limit: int) -> list[str]:
        filled = [""]
        for part in parts:
            if filled[-1] and len(filled[-1] + part.rstrip()) > limit:
                filled.append("")
            filled[-1] += part
        return filled

    fewest = len(lines(width))
    narrowest = next(n for n in range(1, width + 1) if len(lines(n)) <= fewest)
    return "\n".join(line.rstrip() for line in lines(narrowest))


def cut(name: str, most: int) -> str:
    """A name of at most so many cells: the end of a longer one becomes an ellipsis."""
    name = str(name)
    while cells(name) > most:
        name = name.removesuffix(ELLIPSIS)[:-1].rstrip() + ELLIPSIS
    return name


def abbreviated(name: str, longest: int = 10) -> str:
    """A class name that fits a tick: as it is where short, else its words' initials or its start."""
    name = str(name)
    if cells(name) <= longest:
        return name
    words = [word for word in re.split(r"[\W_]+", name) if word]
    return "".join(word[0] for word in words).upper() if 1 < len(words) <= longest else cut(name, longest)


def short_names(names: Sequence[str], longest: int = 10) -> dict[str, str]:
    """What each class is called on a tick, in order: abbreviated; where two would be alike, each by its number."""
    short = {str(name): abbreviated(name, longest) for name in names}
    alike = len(set(short.values())) < len(short)
    return {name: f"#{number}" if alike and own != name else own for number, (name, own) in enumerate(short.items(), 1)}


def abbreviations(classes: Sequence[str], among: Collection[str] | None = None) -> str:
    """A caption's last sentence: what short names stand for; nothing where all are whole."""
    short = {name: own for name, own in short_names(classes).items() if own != name and name in (among or classes)}
    return f" Abbreviated: {', '.join(f'{own} {name}' for name, own in short.items())}." if short else ""
