"""The data card: what was prepared, as numbers (card.json), as a page (card.md) and as a picture (examples.png).

Beside it stands patients.csv (image, patient), where the source names patients: statistics on results alone need to
know which images belong together. Its numbers are those of the manifest, not the source's ids.
"""

import hashlib
import json
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np

from pipelines.files.markdown import plain

COLUMNS = 8
_SHARES = (
    "train@0.1 is a tenth of the training {}, class by class; a smaller share lies inside every larger one of its seed."
)


def write(directory: Path, manifest: dict, out: Path) -> dict:
    """Write card.json, card.md, examples.png and patients.csv into `out` from the prepared data in `directory`.

    Returns the card. Without patients there is no patients.csv.
    """
    from pipelines.data.preparation import write_text

    images = np.load(directory / "images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(directory / "labels.npy", allow_pickle=False)
    with np.load(directory / "splits.npz", allow_pickle=False) as content:
        splits = {name: content[name] for name in content.files}
    out.mkdir(parents=True, exist_ok=True)
    card = describe(images, labels, splits, manifest)
    write_text(out / "card.json", json.dumps(card, indent=1) + "\n")
    write_text(out / "card.md", as_markdown(card))
    draw_examples(images, labels, splits, manifest["classes"], out / "examples.png")
    write_patients(manifest["patient_of_image"], out / "patients.csv")
    return card


def write_patients(patient_of_image: list[int] | None, path: Path) -> None:
    """Write a row (image, patient) an image, or remove what an earlier source left where patients are not known."""
    from pipelines.data.preparation import write_text

    if patient_of_image is None:
        path.unlink(missing_ok=True)
        return
    rows = [f"{image},{patient}" for image, patient in enumerate(patient_of_image)]
    write_text(path, "\n".join(["image,patient", *rows]) + "\n")


def describe(images: np.ndarray, labels: np.ndarray, splits: dict[str, np.ndarray], manifest: dict) -> dict:
    """Count what is in the data; JSON-ready.

    Exact duplicates are images whose prepared arrays are equal byte for byte. For each seed and pair of splits the card
    counts the images of the second that also occur in the first, and the patients that occur in both (null where the
    source names none). Shares of a training split (train@0.1) are counted, but lie inside it and are paired with none.
    """
    classes = manifest["classes"]
    copies = _first_copies(images)
    patients = None if manifest["patient_of_image"] is None else np.array(manifest["patient_of_image"])
    groups = defaultdict(dict)
    for name, indices in splits.items():
        seed, _, part = name.rpartition("/")
        groups[seed or "all"][part] = indices
    card = {
        **{
            key: manifest[key]
            for key in ("origin", "settings", "classes", "count", "image_size", "channels", "folds", "patients")
        },
        "images_sha256": manifest["files"]["images.npy"]["sha256"],
        "per_class": dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist())),
        "exact_duplicates": {
            "images": int(len(copies) - len(np.unique(copies))),
            "with_another_label": int((labels != labels[copies]).sum()),
        },
        "seeds": {},
    }
    for seed, parts in groups.items():
        pairs = list(combinations([part for part in parts if "@" not in part], 2))
        card["seeds"][seed] = {
            "counts": {
                part: dict(zip(classes, np.bincount(labels[indices], minlength=len(classes)).tolist()))
                for part, indices in parts.items()
            },
            "duplicates_across": {f"{a}-{b}": int(np.isin(copies[parts[b]], copies[parts[a]]).sum()) for a, b in pairs},
            "patients": None if patients is None else {part: len(np.unique(patients[i])) for part, i in parts.items()},
            "patients_across": None
            if patients is None
            else {f"{a}-{b}": len(np.intersect1d(patients[parts[a]], patients[parts[b]])) for a, b in pairs},
        }
    return card


def as_markdown(card: dict) -> str:
    """The card as a page of Markdown."""
    origin, named = card["origin"], card["patients"] is not None
    lines = [
        "# Data card",
        "",
        *(
            f"- {name.capitalize()}: {plain(origin[name])}"
            for name in ("source", "licence", "note", "preparation")
            if origin.get(name)
        ),
        f"- Images: {card['count']:,}, {card['image_size']} x {card['image_size']} px, "
        + ("grey" if card["channels"] == 1 else "RGB"),
        f"- Patients: {format(card['patients'], ',') if named else 'not named by the source'}",
        f"- Training images used: mode `{card['settings']['mode']}`",
        f"- Exact duplicates: {card['exact_duplicates']['images']:,} images repeat another one, "
        f"{card['exact_duplicates']['with_another_label']:,} of them under another label",
        f"- SHA-256 of the image array: `{card['images_sha256']}`",
        "",
        "## Images a class and split",
        "",
        *([_SHARES.format("patients" if named else "images"), ""] if card["settings"].get("shares") else []),
        _row(["Seed", "Split", *card["classes"], "All", *["Patients"] * named]),
        _row(["---", "---", *["---:"] * (len(card["classes"]) + 1 + named)]),
    ]
    for seed, facts in card["seeds"].items():
        for part, counts in facts["counts"].items():
            numbers = [*counts.values(), sum(counts.values()), *([facts["patients"][part]] if named else [])]
            lines.append(_row([seed, part, *(f"{number:,}" for number in numbers)]))
    lines += [
        "",
        "## What splits share",
        "",
        "Images of the second split that also occur in the first, byte for byte, and patients that occur in both.",
        "",
        _row(["Seed", "Splits", "Duplicate images", "Patients"]),
        _row(["---", "---", "---:", "---:"]),
    ]
    for seed, facts in card["seeds"].items():
        for pair, count in facts["duplicates_across"].items():
            shared = "not known" if facts["patients_across"] is None else f"{facts['patients_across'][pair]:,}"
            lines.append(_row([seed, pair, f"{count:,}", shared]))
    lines += ["", "![Training images of each class](examples.png)", ""]
    return "\n".join(lines)


def draw_examples(
    images: np.ndarray, labels: np.ndarray, splits: dict[str, np.ndarray], classes: list[str], path: Path
):
    """Draw a labelled row of training images a class, evenly spaced over the first seed's training split."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    train = next(indices for name, indices in splits.items() if name.endswith("train"))
    figure = Figure(figsize=(1.0 * COLUMNS + 1.2, 1.04 * len(classes) + 0.1), dpi=120)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(classes), COLUMNS, squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    figure.subplots_adjust(left=0.13, right=0.995, bottom=0.01, top=0.99)
    for label, row in enumerate(grid):
        of_class = train[labels[train] == label]
        chosen = of_class[np.unique(np.linspace(0, len(of_class) - 1, COLUMNS).round().astype(int))]
        for axes in row[len(chosen) :]:
            axes.set_axis_off()
        for axes, index in zip(row, chosen):
            axes.imshow(images[index], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():  # some scans have white corners, which would melt into the page
                spine.set(color="0.6", linewidth=0.5)
        name = classes[label] if len(classes[label]) <= 16 else classes[label][:15] + "\N{HORIZONTAL ELLIPSIS}"
        row[0].text(-0.08, 0.5, name, parse_math=False, transform=row[0].transAxes, ha="right", va="center", fontsize=9)
    temporary = path.with_name(f".{path.name}.partial")
    figure.savefig(temporary, format="png", metadata={"Software": None})
    temporary.replace(path)


def _first_copies(images: np.ndarray) -> np.ndarray:
    """For each image the index of the first one equal to it, int64 (N,)."""
    first: dict[bytes, int] = {}
    return np.array(
        [first.setdefault(hashlib.sha256(image.tobytes()).digest(), index) for index, image in enumerate(images)],
        np.int64,
    )


def _row(runs) -> str:
    return "| " + " | ".join(map(plain, runs)) + " |"
