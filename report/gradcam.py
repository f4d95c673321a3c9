"""Where networks looked: Grad-CAM maps of a few methods on a few test images, from explain.npz alone.

`pipelines.explain` chooses methods and images. Without its file there is no figure.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from pipelines.files import arrays
from report import layout, style
from report.results import ReportError, Results

NAMES = ("images", "indices", "labels", "shows", "methods", "predicted", "probability", "classes", "seed", "pool")
HEAT = plt.get_cmap("plasma")  # even in lightness, and apart from grey and from the colours of right and wrong
STRENGTH = 0.65  # the heat's opacity at the strongest position; none at 0
STEP = 4  # grey levels that are drawn as one, which nobody sees, and the files are half as large
RIGHT, WRONG = ("\N{CHECK MARK}", "#444444"), ("\N{BALLOT X}", "#B2182B")


def read(results: Results) -> dict | None:
    """The content of explain.npz (see `pipelines.evidence.explaining.explain`), "maps" being a list with a method's in each place.

    Raises:
        ReportError: the file is malformed, or shows a method that the results do not have.
    """
    path = results.directory / "explain.npz"
    if not path.is_file():
        return None
    again = "run `python -m pipelines.explain` again"
    try:
        found = arrays.read_npz(path)
        if not found:
            return None
        found = {**{name: found[name] for name in NAMES},
                 "maps": [found[f"maps{number}"] for number in range(len(found["methods"]))]}  # fmt: skip
        m, a = len(found["indices"]), len(found["methods"])
        expected = {"labels": (m,), "shows": (m,), "predicted": (a, m), "probability": (a, m), "seed": (), "pool": ()}
        wrong = [name for name, shape in expected.items() if found[name].shape != shape]
        wrong += [f"maps{place}" for place, maps in enumerate(found["maps"]) if maps.ndim != 3 or len(maps) != m]
        highest = max(found["labels"].max(), found["predicted"].max())
        if wrong or found["images"].ndim not in (3, 4) or len(found["images"]) != m or highest >= len(found["classes"]):
            raise ValueError(f"arrays do not fit each other: {', '.join(wrong) or 'images, or classes'}")
    except (arrays.ArrayError, KeyError, ValueError, TypeError) as error:
        raise ReportError(f"{path}: not what that stage writes ({error}); {again}") from None
    strangers = sorted(set(found["methods"].tolist()) - set(results.methods.index))
    if strangers:
        raise ReportError(f"{path}: shows {', '.join(strangers)}, which the results do not have; {again}")
    return found


def gradcam(results: Results) -> plt.Figure | None:
    """A row an image, first the scan itself, then each method's map over it, with the class named and its probability."""
    found = read(results)
    if found is None:
        return None
    methods = [method for method in results.methods.index if method in set(found["methods"].tolist())]
    count, columns = len(found["indices"]), 1 + len(methods)
    left, right, gap, below, text = 0.72, 0.06, 0.05, 0.42, 0.17
    titles = [style.wrapped(method, 13) for method in methods]
    above = 0.62 + 0.11 * max(title.count("\n") + 1 for title in titles)
    side = min(1.1, (style.WIDTH - left - right - gap * (columns - 1)) / columns)
    between = 0.16  # parts agreement from disagreement
    split = int((found["shows"] == found["shows"][0]).sum())
    height = above + count * (side + text) + between * (split < count) + below
    figure = plt.figure(figsize=(style.WIDTH, height))
    tops = [above + row * (side + text) + between * (row >= split) for row in range(count)]

    def panel(row, column):
        x = left + column * (side + gap)
        box = (x / style.WIDTH, 1 - (tops[row] + side) / height, side / style.WIDTH, side / height)
        axis = figure.add_axes(box, xticks=[], yticks=[])
        axis.spines[["top", "right"]].set_visible(True)
        axis.spines[:].set(color="#999999", linewidth=0.5)
        return axis

    for row in range(count):
        scan = _grey(found["images"][row])
        axis = panel(row, 0)
        axis.imshow(overlaid(scan, np.zeros((1, 1))), interpolation="none")
        axis.text(-0.08, 0.5, _class(found, found["labels"][row]), transform=axis.transAxes, ha="right", va="center",
                  fontsize=8, weight="bold")  # fmt: skip
        if row == 0:
            axis.set_title("scan", fontsize=7.2, loc="center", pad=3)
            axis.text(-0.08, 1, "true class", transform=axis.transAxes, ha="right", va="bottom", fontsize=7.2)
        for column, method in enumerate(methods, start=1):
            place = found["methods"].tolist().index(method)
            axis = panel(row, column)
            axis.imshow(overlaid(scan, found["maps"][place][row] / 255), interpolation="none")
            if row == 0:
                ink = results.methods.ink[method]
                axis.set_title(titles[column - 1], fontsize=7.2, loc="center", pad=3, color=ink, linespacing=1.05)
            _say(axis, found, place, row)
    for row in {0, split} - {count}:
        word = "Methods agree" if found["shows"][row] == "agreement" else "Methods disagree"
        y = 1 - (tops[row] + side / 2) / height
        figure.text(0.012, y, word, fontsize=8, rotation=90, va="center", color="#555555")
    _legend(figure, height)
    title = f"Where networks looked: Grad-CAM of the class named\n{results.origin}"
    layout.write_title(figure, f"{title}, seed {found['seed']}, {count} of {found['pool']:,} test images")
    return figure


def _say(axis, found: dict, place: int, row: int) -> None:
    """Below a panel the class named, and how sure; a wrong one has a cross, bold type and a thick dashed frame."""
    named = found["predicted"][place, row]
    wrong = named != found["labels"][row]
    mark, color = WRONG if wrong else RIGHT
    text = f"{mark} {_class(found, named)} {found['probability'][place, row]:.2f}"
    # As large as fits below the panel; characters are 0.62 of the size wide on average, bold ones 0.69.
    size = min(6.8, 72 * axis.bbox.width / axis.figure.dpi / len(text) / (0.69 if wrong else 0.62))
    axis.text(0.5, -0.03, text, transform=axis.transAxes, ha="center", va="top", fontsize=size, color=color,
              weight="bold" if wrong else "normal")  # fmt: skip
    if wrong:
        axis.spines[:].set(color=color, linewidth=1.4, linestyle=(0, (3, 1.5)))


def _class(found: dict, number: int) -> str:
    return layout.abbreviated(found["classes"][number])


def _legend(figure, height: float) -> None:
    """The heat's scale, over mid grey as it lies over a scan, and what the frames mean."""
    axis = figure.add_axes((0.09, 0.2 / height, 0.16, 0.09 / height), xticks=[], yticks=[])
    axis.imshow(overlaid(np.full((8, 256), 0.5), np.linspace(0, 1, 256)[None]), aspect="auto")
    axis.text(-0.03, 0.5, "0", transform=axis.transAxes, ha="right", va="center", fontsize=7.5)
    axis.text(1.03, 0.5, "strongest evidence in the image", transform=axis.transAxes, va="center", fontsize=7.5)
    middle = 0.245 / height
    for x, (mark, color), word in ((0.52, RIGHT, "right"), (0.75, WRONG, "wrong")):
        box = {"linestyle": (0, (3, 1.5)), "linewidth": 1.4} if word == "wrong" else {"linewidth": 0.5}
        frame = Rectangle((x, 0.19 / height), 0.016, 0.11 / height, fill=False, edgecolor=color, **box)
        figure.add_artist(frame)
        figure.text(x + 0.025, middle, f"{mark} class named is {word}", va="center", fontsize=7.5, color=color)


def _grey(image: np.ndarray) -> np.ndarray:
    """A uint8 image (H, W) or (H, W, 3) as grey in 0..1: what colour it has would be mistaken for heat."""
    return (image @ [0.299, 0.587, 0.114] if image.ndim == 3 else image) / 255


def overlaid(scan: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A grey scan (H, W) in 0..1 under a map (h, w) in 0..1, enlarged: RGB (H, W, 3) uint8."""
    heat = enlarged(heat, scan.shape)[..., None]
    mixed = scan[..., None] * (1 - STRENGTH * heat) + HEAT(heat[..., 0])[..., :3] * STRENGTH * heat
    return np.minimum(STEP * (255 / STEP * mixed).round(), 255).astype(np.uint8)


def enlarged(small: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map (h, w) at (H, W), bilinear; beyond the centres of the outer positions it stays as it is there."""

    def weights(few, many):
        at = ((np.arange(many) + 0.5) * few / many - 0.5).clip(0, few - 1)
        return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(few)))

    return weights(small.shape[0], shape[0]) @ small @ weights(small.shape[1], shape[1]).T


def caption(results: Results) -> str:
    """What Grad-CAM is, how methods and images were chosen, and how coarse the maps are; empty without a figure."""
    found = read(results)
    if found is None:
        return ""
    sizes = sorted({maps.shape[1:] for maps in found["maps"]})
    coarse = " or ".join(f"{h} x {w}" for h, w in sizes)
    right = (found["predicted"] == found["labels"]).sum(0)[found["shows"] == "agreement"]
    methods = len(found["methods"])
    agree = f"{right.min()}" if len(right) and right.min() < methods else "all"
    pixels = " x ".join(map(str, found["images"].shape[1:3]))
    return (
        "Grad-CAM (Selvaraju et al. 2017) weights the channels of a network's last map by the gradient of the class "
        "that it names, and shows where their sum speaks for that class: not why, nor what speaks against it. Every "
        f"panel has its own scale. The maps have {coarse} positions on {pixels} px, smoothed in between: they point "
        "to a region, not to a structure. In a ViT, and a Vision Mamba with a class token, the map is what the last "
        "layer reads. Chosen by rule, not by eye. Methods: of each family the one with the best validation accuracy, "
        "CNNs on CoLoRA's backbone "
        "(of more than eight CoLoRA, full fine-tuning, transfer, the best ViT, state-space and KAN method, then the "
        f"most accurate). Agreement: images that {agree} of these methods name rightly and of which the least sure method "
        "is surest. Disagreement: those on which most pairs of methods name different classes, and most surely on "
        "average. True classes take turns."
    )
