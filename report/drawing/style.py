"""One look for all figures: type that is read on a phone as on a page, files without dates, PNGs that stay small.

Figures are 5.6 inches wide: shown at full width on a phone 390 px wide their type is about 8 px high, at 680 px 16 px.
They bear no title: the section's title, which says the finding, stands above.
"""

import io
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image  # noqa: E402

from pipelines.files import fonts  # noqa: E402
from report.drawing.palette import INK, QUIET, RULE  # noqa: E402

WIDTH = 5.6  # inches
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
REFERENCE_LINE = {"color": RULE, "lw": 1.0, "ls": (0, (4, 3)), "zorder": 1}


@contextmanager
def look():
    """matplotlib's and seaborn's settings while figures are made and saved, whatever the caller's are."""
    family = [*fonts.families()]
    with (
        fonts.quiet(),
        plt.rc_context({**plt.rcParamsDefault, "backend": plt.get_backend(), **_RC, "font.family": family}),
    ):
        yield


@contextmanager
def facets():
    """No layout by default: seaborn's FacetGrid functions have their own, and warn where there is another; and a figure
    that is laid out by hand would be laid out anew when it is saved.
    """
    with plt.rc_context({"figure.constrained_layout.use": False}):
        yield


def save(figure: Figure, stem: Path) -> tuple[Path, Path, Path]:
    """Write the figure as stem.svg, stem.pdf and stem.png (at most `LARGEST` bytes), free of dates; returns the files.

    The figure is closed: nobody draws into it afterwards.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    svg, pdf, png = (stem.with_suffix(f".{name}") for name in ("svg", "pdf", "png"))
    with look(), facets():
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
        Image.open(drawn).convert("RGB").quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            small, "png", optimize=True
        )
        if small.tell() <= LARGEST:
            break
    return small.getvalue()
