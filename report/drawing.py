"""What the figures share: a hue a kind of method, one look, panels with a method a row, panels of lines.

A family states its colour in its own file (`baselines.families`); `HUES` is the set that they choose from: six, with
black and grey, that stay apart under every colour blindness. The least distance of any two is 12 in CIEDE2000 for
protanopia, deuteranopia, tritanopia (Machado et al. 2009, full severity) and normal sight; markers tell them too.

Figures are 5.6 inches wide: shown at full width on a phone 390 px wide their type is about 8 px high, at 680 px 16 px.
They bear no title: the section's title, which says the finding, stands above.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

import baselines
from pipelines.files import fonts
from report.text import points, wrapped

matplotlib.use("Agg")

COLORA, FULL, HEAD, PEFT = "CoLoRA", "full fine-tuning", "head-only", "other adaptation"
VIT, STATE_SPACE, KAN, SCRATCH = "ViT", "state space", "KAN", "CNN from scratch"
_KINDS = {  # hue, marker
    COLORA: ("#D55E00", "o"),
    FULL: ("#111111", "D"),
    HEAD: ("#8A8A8A", "s"),
    PEFT: ("#1F5FD0", "P"),
    VIT: ("#8F1D78", "^"),
    STATE_SPACE: ("#E0A000", "v"),
    KAN: ("#0A6B4F", "X"),
    SCRATCH: ("#4FB3E0", "p"),
}
HUES, MARKERS = ({kind: own[place] for kind, own in _KINDS.items()} for place in (0, 1))
INK, QUIET, RULE = "#222222", "#666666", "#B8B8B8"
SHADE = LinearSegmentedColormap.from_list("shade", ["#FFFFFF", "#1F5FD0"])
REFERENCE_LINE = {"color": RULE, "lw": 1.0, "ls": (0, (4, 3)), "zorder": 1}

WIDTH = 5.6  # inches
ROW = 0.25  # inches
LOWEST = 1.7  # inches of a figure of one row, with its axis and legend
MOST = 12  # rows of a panel
SMALL = 8.5  # points, of what is written inside a panel
LARGEST = 120_000  # bytes of a PNG, since some stand in Git
COLORS = 256  # of a PNG
FINENESS = (190, 160, 135, 115, 100, 80)  # dots an inch, the first that fits
_RC = {
    "text.parse_math": False,  # a name may hold dollars
    "font.size": 9.5, "axes.titlesize": 9.5, "axes.labelsize": 9.5, "xtick.labelsize": 9, "ytick.labelsize": 9,
    "legend.fontsize": 9, "legend.title_fontsize": 9, "legend.frameon": False, "legend.handlelength": 1.4,
    "legend.columnspacing": 1.4, "legend.handletextpad": 0.5, "axes.titleweight": "bold",
    "figure.facecolor": "white", "savefig.facecolor": "white", "axes.edgecolor": "#777777", "axes.linewidth": 0.8,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": QUIET, "ytick.color": QUIET, "xtick.labelcolor": INK,
    "ytick.labelcolor": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left",
    "axes.grid": True, "grid.color": "#E6E6E6", "grid.linewidth": 0.7, "axes.axisbelow": True,
    "lines.solid_capstyle": "butt", "figure.constrained_layout.use": True, "figure.figsize": (WIDTH, 3.6),
    "svg.hashsalt": "colora", "svg.fonttype": "path", "pdf.fonttype": 42, "figure.dpi": 100,
}  # fmt: skip


@dataclass(frozen=True)
class Looks:
    """How a method is drawn: its group (as `baselines.group`), kind of `HUES` (else its family's label), and colour."""

    group: str
    kind: str
    color: str


def looks(family: str, backbone: str | None) -> Looks:
    """A method's looks, by the facts in its family's file; a family that states no colour there takes its group's."""
    group = baselines.group(family, backbone)
    facts = baselines.families().get(family)
    color = (facts and facts.colour(group)) or HUES.get(group) or HUES[PEFT if group == baselines.CNN else SCRATCH]
    kind = next((kind for kind, hue in HUES.items() if hue.lower() == color.lower()), None)
    return Looks(group, kind or facts.label, color)


def present(kinds: Iterable[str]) -> list[str]:
    """The kinds that occur, in the order of legends."""
    found = dict.fromkeys(kinds)
    return [name for name in HUES if name in found] + [name for name in found if name not in HUES]


def luminance(color) -> float:
    """WCAG 2.2's relative luminance: 0 of black, 1 of white."""
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def ink(color: str) -> str:
    """The colour darkened until text in it stands out from white by 4.5 : 1, WCAG 2.2's contrast for small text."""
    rgb = np.array(to_rgb(color))
    while 1.05 / (luminance(rgb) + 0.05) < 4.5:
        rgb = rgb * 0.97
    return to_hex(rgb)


@contextmanager
def look():
    """matplotlib's and seaborn's settings while figures are made and saved, whatever the caller's are."""
    own = {**plt.rcParamsDefault, "backend": plt.get_backend(), **_RC, "font.family": [*fonts.families()]}
    with fonts.quiet(), plt.rc_context(own):
        yield


def no_layout():
    """No layout by default: seaborn's FacetGrid functions have their own, and warn where there is another; and a figure
    that is laid out by hand would be laid out anew when it is saved.
    """
    return plt.rc_context({"figure.constrained_layout.use": False})


def save(figure: Figure, stem: Path) -> tuple[Path, Path, Path]:
    """Write the figure as stem.svg, stem.pdf and stem.png (at most `LARGEST` bytes), free of dates; returns the files.

    The figure is closed: nobody draws into it afterwards.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    svg, pdf, png = (stem.with_suffix(f".{name}") for name in ("svg", "pdf", "png"))
    with look(), no_layout():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # once for all three
        figure.savefig(svg, metadata={"Date": None})
        figure.savefig(pdf, metadata={"CreationDate": None})
        png.write_bytes(_png(figure))
    plt.close(figure)
    return svg, pdf, png


def _png(figure: Figure) -> bytes:
    """The figure in few colours, as fine as `LARGEST` bytes allow."""
    for dpi in FINENESS:
        drawn, small = io.BytesIO(), io.BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi)
        picture = Image.open(drawn).convert("RGB")
        picture = picture.quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        picture.save(small, "png", optimize=True)
        if small.tell() <= LARGEST:
            break
    return small.getvalue()


def stacked(panels: Mapping[str, Sequence[str]], inks: Mapping[str, str], xlabel: str) -> tuple[Figure, list[Axes]]:
    """Panels one above the other on one x axis, a row a name: panels[title] lists the names from the top down.

    inks: the colour of each name's text. Row i of a panel is at y = i.
    """
    heights = [len(names) + 0.3 for names in panels.values()]
    lines = max(wrapped(name).count("\n") for names in panels.values() for name in names)
    size = (WIDTH, max(LOWEST, (ROW + 0.1 * lines) * sum(heights) + 0.3 * len(panels) + 0.35))
    figure, axes = plt.subplots(len(panels), 1, figsize=size, height_ratios=heights, squeeze=False, sharex=True)
    for axis, (title, names) in zip(axes[:, 0], panels.items(), strict=True):
        label_rows(axis, names, inks)
        if len(panels) > 1:
            axis.set_title(title)
    axes[-1, 0].set_xlabel(xlabel)
    return figure, list(axes[:, 0])


def label_rows(axis: Axes, names: Sequence[str], inks: Mapping[str, str], width: int = 22) -> None:
    """Ticks of a panel with a row a name, the first at the top."""
    axis.set_yticks(range(len(names)), [wrapped(name, width) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)
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
            further = ", continued" * (part > 0) + f" ({part + 1})" * (part > 1)
            found[title + further] = rows[start : start + size]
    return found


def grid(count: int, columns: int, height: float, more: float, **options) -> tuple[Figure, np.ndarray]:
    """So many panels, `columns` a line, each `height` inches high, with `more` inches besides; options: of subplots."""
    lines = -(-count // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(WIDTH, height * lines + more), squeeze=False, **options)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, axes


def lines(frame: pd.DataFrame, columns: int, height: float, **options) -> sns.FacetGrid:
    """Lines in panels, `columns` a row, each `height` inches high, without a legend; options: of seaborn's relplot."""
    size = {"height": height, "aspect": WIDTH / columns / height}
    with no_layout():
        found = sns.relplot(frame, kind="line", legend=False, **size, **options)
    found.figure.set_layout_engine("constrained")
    return found


def method_lines(
    frame: pd.DataFrame, names: Sequence[str], methods: pd.DataFrame, height: float, labels: tuple[str, str], **options
) -> sns.FacetGrid:
    """`lines` with a panel a method, three a row. labels: of the x and the y axes together."""
    columns = min(3, len(names))
    panel = {"hue": "method", "palette": methods.color.to_dict(), "col": "method", "col_order": names}
    found = lines(frame, columns, height, col_wrap=columns, **panel, **options)
    for name, axis in found.axes_dict.items():
        title(axis, name, methods.ink[name], width=19)
    found.set(xlabel="", ylabel="")
    found.figure.supxlabel(labels[0], fontsize=9.5)
    found.figure.supylabel(labels[1], fontsize=9.5)
    return found


def title(axis: Axes, name: str, ink: str, width: int = 18) -> None:
    """A small panel's title, the name of a method in its ink."""
    axis.set_title(wrapped(name, width), color=ink, fontsize=9, linespacing=0.95)


def limits(values, room: float = 0.04) -> tuple[float, float]:
    """Limits that show the accuracies but for a few far below: under 1.5 times the upper three quarters' width."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, quarter, high = values.min(), *np.quantile(values, [0.25, 1])
    low = max(low, quarter - 1.5 * max(high - quarter, 1e-3))
    margin = room * (high - low) or 0.01
    return low - margin, min(high + margin, 1 + margin / 2)


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
