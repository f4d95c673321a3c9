"""Where networks looked: Grad-CAM maps of a few methods on a few test images, from explain.npz alone."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import zoom

from pipelines.files.fonts import cells
from report import drawing
from report.reading import Explained, Results
from report.sections import Section
from report.text import abbreviations, plural, short_names, wrapped

GROUP, ORDER = "Evidence", 50
HEAT = plt.get_cmap("plasma")  # even in lightness, and apart from grey and from the colours of right and wrong
STRENGTH = 0.65  # the heat's opacity at the strongest position; none at 0
STEP = 4  # grey levels that are drawn as one, which nobody sees, and the files are half as large
RIGHT, WRONG = ("\N{CHECK MARK}", "#444444"), ("\N{BALLOT X}", "#B2182B")
MOST = 6  # methods beside the scan: more were not legible on a phone
AGREEMENT = "agreement"


def section(results: Results) -> Section | None:
    if results.explained is None:
        return None
    shown = chosen(results.explained, results.leading(MOST))
    told = "; ".join(
        f"{shown.classes[label]}: "
        f"{', '.join(f'{name} calls it {shown.classes[named]}' for name, named in zip(shown.methods, column))}"
        for label, column in zip(shown.labels, shown.predicted.T, strict=True)
    )
    alt, drawn = f"Scans by true class: {told}.", figure(shown, results.methods.ink)
    return Section(finding(shown), caption(shown, results.origin), alt, drawn, folded=True)


def chosen(explained: Explained, leading: list[str]) -> Explained:
    """The same images with at most `MOST` methods: those of `leading` first, then as the file has them."""
    names = explained.methods.tolist()
    kept = list(dict.fromkeys([*(name for name in leading if name in names), *names]))[:MOST]
    places = [names.index(name) for name in names if name in kept]
    return Explained(**{
        **vars(explained), "methods": explained.methods[places], "predicted": explained.predicted[places],
        "probability": explained.probability[places], "maps": [explained.maps[place] for place in places],
    })  # fmt: skip


def finding(shown: Explained) -> str:
    """Who is right on the images where methods disagree."""
    split = shown.shows != AGREEMENT
    if not split.any():
        return "Methods agree."
    right = (shown.predicted == shown.labels)[:, split].sum(1)
    counts = ", ".join(f"{name} {found}" for name, found in zip(shown.methods, right, strict=True))
    return f"Where methods disagree ({plural(int(split.sum()), 'scan')}), right are: {counts}."


def caption(shown: Explained, origin: str) -> str:
    """What Grad-CAM is, how methods and images were chosen, and how coarse the maps are."""
    coarse = " or ".join(f"{h} x {w}" for h, w in sorted({maps.shape[1:] for maps in shown.maps}))
    pixels = " x ".join(map(str, shown.images.shape[1:3]))
    named = {shown.classes[place] for place in [*shown.labels, *shown.predicted.flat]}
    return (
        "Grad-CAM (Selvaraju et al. 2017): where a network's last map speaks for the class that it names, below each "
        "scan with its probability in per cent; not why, nor what speaks against it. Dark to yellow: none to the "
        f"strongest evidence of the panel. A wrong class has a cross and a dashed frame. Maps have {coarse} positions "
        f"on {pixels} px: they point to a region. Chosen by rule, not by eye: above, images on which methods agree "
        f"and the least sure one is surest; below, those on which most pairs name different classes. {origin}, seed "
        f"{shown.seed}, of {shown.pool:,} test images." + abbreviations(shown.classes, named)
    )


def figure(shown: Explained, inks) -> Figure:
    """A row an image: the scan, then each method's map over it, with the class named and its probability below.

    A wrong class has a cross, bold type and a thick dashed frame.
    """
    rows, columns = len(shown.indices), 1 + len(shown.methods)
    titles = [wrapped(name, 11) for name in ["true class", *shown.methods.tolist()]]
    left, gap, text = 0.22, 0.05, 0.17  # inches: the words at the left, between panels, below a panel
    above = 0.06 + 0.12 * (1 + max(title.count("\n") for title in titles))
    side = (drawing.WIDTH - left - gap * columns) / columns
    height = above + rows * (side + text)
    options = {"squeeze": False, "layout": "none", "subplot_kw": {"xticks": [], "yticks": []}}
    figure, axes = plt.subplots(rows, columns, figsize=(drawing.WIDTH, height), **options)
    figure.subplots_adjust(
        left=left / drawing.WIDTH, right=1 - gap / drawing.WIDTH, top=1 - above / height, bottom=text / height,
        wspace=gap / side, hspace=text / side,
    )  # fmt: skip
    split = int((shown.shows == AGREEMENT).sum())
    short = list(short_names(shown.classes).values())
    for row in range(rows):
        scan = grey(shown.images[row])
        axes[row, 0].imshow(overlaid(scan, np.zeros((1, 1))), interpolation="none")
        _below(axes[row, 0], short[shown.labels[row]], drawing.INK, weight="bold")
        for column, maps in enumerate(shown.maps, start=1):
            axes[row, column].imshow(overlaid(scan, maps[row] / 255), interpolation="none")
            named = shown.predicted[column - 1, row]
            wrong = named != shown.labels[row]
            mark, color = WRONG if wrong else RIGHT
            told = f"{mark} {short[named]} {100 * shown.probability[column - 1, row]:.0f}"
            _below(axes[row, column], told, color, weight="bold" if wrong else "normal")
            if wrong:
                axes[row, column].spines[:].set(color=color, linewidth=1.5, linestyle=(0, (3, 1.5)))
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(True)
    for axis, title, name in zip(axes[0], titles, ["", *shown.methods.tolist()], strict=True):
        axis.set_title(title, fontsize=7.2, loc="center", color=inks.get(name, drawing.INK), linespacing=0.95, pad=3)
    for place, word in ((0, "agree"), (split, "disagree")):
        if place < rows and (place == split or split):
            axes[place, 0].set_ylabel(word, fontsize=drawing.SMALL, color=drawing.QUIET)
    return figure


def _below(axis: Axes, text: str, color: str, weight: str) -> None:
    # As large as fits below a panel; characters are 0.62 of the size wide on average, bold ones 0.7.
    width = 72 * axis.bbox.width / axis.figure.dpi
    size = min(7.5, width / max(cells(text), 1) / (0.7 if weight == "bold" else 0.62))
    axis.text(
        0.5, -0.03, text, transform=axis.transAxes, ha="center", va="top", fontsize=size, color=color, weight=weight
    )


def grey(image: np.ndarray) -> np.ndarray:
    """A uint8 image (H, W) or (H, W, 3) as grey in 0..1: what colour it has would be mistaken for heat."""
    return (image @ [0.299, 0.587, 0.114] if image.ndim == 3 else image) / 255


def overlaid(scan: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A grey scan (H, W) in 0..1 under a map (h, w) in 0..1, enlarged: RGB (H, W, 3) uint8."""
    heat = enlarged(heat, scan.shape)[..., None]
    mixed = scan[..., None] * (1 - STRENGTH * heat) + HEAT(heat[..., 0])[..., :3] * STRENGTH * heat
    return np.minimum(STEP * (255 / STEP * mixed).round(), 255).astype(np.uint8)


def enlarged(small: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map (h, w) at (H, W), bilinear; beyond the centres of the outer positions it stays as it is there."""
    return zoom(small, np.divide(shape, small.shape), order=1, mode="nearest", grid_mode=True)
