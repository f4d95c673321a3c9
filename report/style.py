"""One look for all figures: colours by group and family, type for an 800 px column, files without dates."""

import re
from collections.abc import Iterable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb  # noqa: E402

from report.text import scaled, three_digits  # noqa: E402, F401

WIDTH = 8.0  # inches: 800 px in the page, and a paper's text width at 85 %

# Okabe & Ito's colours: black, four hues and a grey for the methods on CNNs, and a hue with its shades for each other
# group. Their yellow is darkened, since it vanishes on white; violet, not one of theirs, is the eighth hue.
GROUPS = {
    "CNN": {
        "full": "#000000",
        "head_only": "#7A7A7A",
        "bitfit": "#56B4E9",
        "adapters": "#009E73",
        "conv_lora": "#0072B2",
        "colora": "#D55E00",
    },
    "ViT": {"full": "#7B3560", "head_only": "#B38CA3", "bitfit": "#E8A5CE", "lora": "#CC79A7"},
    "state space": {"medmamba": "#E69F00", "vim": "#9A6200"},
    "KAN": {"kan_head": "#B5A900", "medkan": "#6B6400"},
    "CNN from scratch": {"medmnist": "#6A3D9A"},
}
MARKERS = {"CNN": "o", "ViT": "s", "state space": "^", "KAN": "D", "CNN from scratch": "v"}
SPARE = ("#8C564B", "#4D4D4D", "#17806D", "#A0304A")  # for families not listed yet
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


def group(family: str, backbone: str) -> str:
    """The group of `GROUPS` that a method belongs to: its family's own, else by its backbone ViT or CNN."""
    for name in ("state space", "KAN", "CNN from scratch"):
        if family in GROUPS[name]:
            return name
    return "ViT" if family == "lora" or re.search(r"vit|deit", str(backbone)) else "CNN"


def in_order(kinds: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs (group, family) present, in the order of `GROUPS`; families not listed end their group as they come."""
    present = list(dict.fromkeys(kinds))
    listed = [(name, family) for name, families in GROUPS.items() for family in families]
    groups = list(GROUPS)
    places = {kind: listed.index(kind) if kind in listed else len(listed) for kind in present}
    return sorted(present, key=lambda kind: (groups.index(kind[0]), places[kind]))


def colors(kinds: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """A colour for each pair (group, family); families not listed in `GROUPS` take the spare ones in turn."""
    unknown = [(name, family) for name, family in kinds if family not in GROUPS[name]]
    spare = {kind: SPARE[place % len(SPARE)] for place, kind in enumerate(unknown)}
    return {(name, family): GROUPS[name].get(family) or spare[name, family] for name, family in kinds}


def ink(color: str) -> str:
    """The colour darkened until text in it stands out from white by 4.5 : 1, WCAG 2.2's contrast for small text."""
    rgb = np.array(to_rgb(color))
    while True:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        if 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5:
            return to_hex(rgb)
        rgb = rgb * 0.97


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


def save(figure: plt.Figure, stem: Path) -> None:
    """Write stem.svg, .pdf and .png, free of dates, and close the figure."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(stem.with_suffix(".pdf"), metadata={"CreationDate": None})
    figure.savefig(stem.with_suffix(".png"), metadata={"Software": None})
    plt.close(figure)
