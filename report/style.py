"""One look for all figures: colours by family, type for an 800 px column, files that change only with their data."""

import re
from collections.abc import Iterable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb  # noqa: E402

WIDTH = 8.0  # inches: 800 px in the page, and a paper's text width at 85 %

# Okabe & Ito's colours (black, six of the seven hues; their yellow darkened, since it vanishes on white) and a grey.
FAMILIES = {
    "full": "#000000",
    "transfer": "#7A7A7A",
    "bitfit": "#56B4E9",
    "adapters": "#009E73",
    "conv_lora": "#0072B2",
    "colora": "#D55E00",
    "vit": "#CC79A7",
    "mamba": "#E69F00",
    "kan": "#A89B00",
}
SPARE = ("#6A3D9A", "#8C564B", "#4D4D4D", "#17806D")  # for families not listed yet
SHADE = LinearSegmentedColormap.from_list("shade", ["#FFFFFF", "#0072B2"])
INK = "#222222"

RC = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: same on every machine
    "font.size": 8.5, "axes.titlesize": 9, "axes.labelsize": 8.5, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "legend.fontsize": 8, "legend.frameon": False, "figure.facecolor": "white", "savefig.facecolor": "white",
    "axes.edgecolor": "#666666", "axes.linewidth": 0.7, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": "#444444", "ytick.color": "#444444", "xtick.major.width": 0.7, "ytick.major.width": 0.7,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left", "axes.grid": False,
    "grid.color": "#E6E6E6", "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.solid_capstyle": "butt",
    "svg.hashsalt": "colora", "svg.fonttype": "path", "pdf.fonttype": 42, "figure.dpi": 100, "savefig.dpi": 200,
}  # fmt: skip


def in_order(families: Iterable[str]) -> list[str]:
    """The families present: the known ones in the order above, then others as they come."""
    present = list(dict.fromkeys(families))
    return [f for f in FAMILIES if f in present] + [f for f in present if f not in FAMILIES]


def colors(families: list[str]) -> dict[str, str]:
    """A colour for each family; families not listed above take the spare ones in turn."""
    unknown = [f for f in families if f not in FAMILIES]
    return {f: FAMILIES[f] if f in FAMILIES else SPARE[unknown.index(f) % len(SPARE)] for f in families}


def ink(color: str) -> str:
    """The colour darkened until text in it stands out from white by 4.5 : 1, WCAG 2.2's contrast for small text."""
    rgb = np.array(to_rgb(color))
    while True:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        if 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5:
            return to_hex(rgb)
        rgb = rgb * 0.97


def wrapped(name: str, width: int = 22) -> str:
    """An arm's name on as few lines of at most `width` characters as hyphens allow, the lines about equally long."""
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


def millions(value: float) -> str:
    """A parameter count in three digits: '869k', '2.54M'."""
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{sign}"
    return f"{value:.3g}"


def three_digits(value: float) -> str:
    """A positive number to three digits, trailing zeros kept: '0.0412', '2.30', '78.1', '1234'."""
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(value))))}f}" if value > 0 else "0"


def save(figure: plt.Figure, stem: Path) -> None:
    """Write stem.svg, .pdf and .png, free of dates, and close the figure."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(stem.with_suffix(".pdf"), metadata={"CreationDate": None})
    figure.savefig(stem.with_suffix(".png"), metadata={"Software": None})
    plt.close(figure)
