"""The data card: what was prepared, as numbers (card.json), as a page (card.md) and as a picture (examples.png).

Beside it stand patients.csv (image, patient), where the source names patients, and external-NAME.csv (image, label,
patient): statistics on results alone need to know which images belong together. Their numbers are those of the
manifest, not the source's ids.
"""

import textwrap
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.data import prepared
from pipelines.data.labelled import some
from pipelines.data.prepared import Manifest
from pipelines.files import fonts, records
from pipelines.files.markdown import plain

COLUMNS = 8
_SHARES = (
    "train@0.1 is a tenth of the training {}, class by class; a smaller share lies inside every larger one of its seed."
)


def write(folder: Path, manifest: Manifest, others: dict[str, Manifest], out: Path) -> None:
    """Describe the data prepared in `folder`, and its external data, in `out`; see `write_patients` for patients.csv.

    Where external data name no patients each image is one.
    """
    images, labels = prepared.open_images(folder)
    splits = prepared.open_splits(folder)
    card = describe(images, labels, splits, manifest) | {"external": {}}
    for left in set(out.glob("external-*.csv")) - {out / f"external-{name}.csv" for name in others}:
        left.unlink(missing_ok=True)
    for name, other in others.items():
        _, own = prepared.open_images(prepared.external_dir(folder, name))
        patients = range(other.count) if other.patients is None else other.patient_of_image
        write_numbers(out / f"external-{name}.csv", label=own, patient=patients)
        card["external"][name] = {
            "origin": _origin(other), "count": other.count, "patients": other.patients,
            "per_class": _per_class(own, other.classes), "warnings": other.warnings,
            "images_sha256": other.files["images.npy"],
        }  # fmt: skip
    draw_examples(images, labels, splits, manifest.classes, out / "examples.png")
    if told := fonts.warning(manifest.classes):
        print(f"warning: {told}")
    records.write_atomically(out / "card.md", lambda file: file.write(as_markdown(card).encode()))
    records.write_json(out / "card.json", card)


def write_patients(manifest: Manifest, out: Path) -> None:
    """Write patients.csv, or remove it where no patients are known."""
    if manifest.patients is None:
        (out / "patients.csv").unlink(missing_ok=True)
    else:
        write_numbers(out / "patients.csv", patient=manifest.patient_of_image)


def write_numbers(path: Path, **columns) -> None:
    """Write a row an image: its number, and those of the columns."""
    records.write_csv(path, pd.DataFrame(columns).rename_axis("image").reset_index())


def repeated_images(dataset) -> list[str]:
    """A warning where images that are equal byte for byte stand under two labels, with the numbers of some."""
    copies = _first_copies(dataset.images)
    found = np.flatnonzero(dataset.labels != dataset.labels[copies])
    if not len(found):
        return []
    pairs = [f"image {copies[i]} = image {i}" for i in found]
    return [f"{len(found):,} images repeat another one under another label: {some(pairs)}"]


def _origin(manifest: Manifest) -> dict:
    """Without the names of what was left out: the card goes into Git, and they may tell who is who."""
    return {name: "; ".join(fact) if name == "left out" else fact for name, fact in manifest.origin.items()}


def _per_class(labels: np.ndarray, classes: list[str]) -> dict[str, int]:
    return dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist()))


def describe(images: np.ndarray, labels: np.ndarray, splits: dict[str, np.ndarray], manifest: Manifest) -> dict:
    """Count what is in the data; JSON-ready.

    Exact duplicates are images whose prepared arrays are equal byte for byte. For each seed and pair of splits the card
    counts the images of the second that also occur in the first, and the patients that occur in both (null where the
    source names none). Shares of a training split (train@0.1) are counted, but lie inside it and are paired with none.
    """
    classes = manifest.classes
    copies = _first_copies(images)
    patients = None if manifest.patient_of_image is None else np.array(manifest.patient_of_image)
    groups = defaultdict(dict)
    for name, indices in splits.items():
        seed, _, part = name.rpartition("/")
        groups[seed or "all"][part] = indices
    card = {
        "origin": _origin(manifest),
        "settings": (manifest.made_from or {}).get("settings", {}),
        "classes": classes,
        "count": manifest.count,
        "image_size": manifest.image_size,
        "channels": manifest.channels,
        "folds": manifest.folds,
        "repeats": None if manifest.folds is None else len({seed // manifest.folds for seed in manifest.seeds or []}),
        "patients": manifest.patients,
        "warnings": manifest.warnings,
        "images_sha256": manifest.files["images.npy"],
        "per_class": _per_class(labels, classes),
        "exact_duplicates": {
            "images": int(len(copies) - len(np.unique(copies))),
            "with_another_label": int((labels != labels[copies]).sum()),
        },
        "seeds": {},
    }
    for seed, parts in groups.items():
        pairs = list(combinations([part for part in parts if "@" not in part], 2))
        card["seeds"][seed] = {
            "counts": {part: _per_class(labels[indices], classes) for part, indices in parts.items()},
            "duplicates_across": {f"{a}-{b}": int(np.isin(copies[parts[b]], copies[parts[a]]).sum()) for a, b in pairs},
            "patients": None if patients is None else {part: len(np.unique(patients[i])) for part, i in parts.items()},
            "patients_across": None
            if patients is None
            else {f"{a}-{b}": len(np.intersect1d(patients[parts[a]], patients[parts[b]])) for a, b in pairs},
        }
    return card


def as_markdown(card: dict) -> str:
    """The card as a page of Markdown."""
    origin, named, mode = card["origin"], card["patients"] is not None, card["settings"].get("mode", "full")
    counted = [
        [seed, part, *counts.values(), sum(counts.values()), *([facts["patients"][part]] if named else [])]
        for seed, facts in card["seeds"].items()
        for part, counts in facts["counts"].items()
    ]
    shared = [
        [seed, pair, count, facts["patients_across"][pair] if named else "not known"]
        for seed, facts in card["seeds"].items()
        for pair, count in facts["duplicates_across"].items()
    ]
    lines = [
        "# Data card",
        "",
        *(
            f"- {name.capitalize()}: {plain(origin[name])}"
            for name in ("source", "licence", "note", "preparation", "left out")
            if origin.get(name)
        ),
        f"- Images: {card['count']:,}, {card['image_size']} x {card['image_size']} px, "
        + ("grey" if card["channels"] == 1 else "RGB"),
        f"- Patients: {format(card['patients'], ',') if named else 'not named by the source'}",
        *([_folds(card)] if card["folds"] else []),
        *([f"- Training images used: mode `{mode}`"] if mode != "full" else []),
        f"- Exact duplicates: {card['exact_duplicates']['images']:,} images repeat another one, "
        f"{card['exact_duplicates']['with_another_label']:,} of them under another label",
        f"- SHA-256 of the image array: `{card['images_sha256']}`",
        *(f"- Warning: {plain(warning)}" for warning in card["warnings"]),
        "",
        "## Images a class and split",
        "",
        *([_SHARES.format("patients" if named else "images"), ""] if card["settings"].get("shares") else []),
        *_table(["Seed", "Split", *card["classes"], "All", *["Patients"] * named], counted),
        "",
        "## What splits share",
        "",
        "Images of the second split that also occur in the first, byte for byte, and patients that occur in both.",
        "",
        *_table(["Seed", "Splits", "Duplicate images", "Patients"], shared),
    ]
    if card.get("external"):
        lines += ["", "## External data", "", "Runs are tested on these images once and never trained on them.", ""]
        rows = [
            [name, facts["origin"].get("source", ""), *facts["per_class"].values(), facts["count"],
             "not named" if facts["patients"] is None else facts["patients"]]
            for name, facts in card["external"].items()
        ]  # fmt: skip
        lines += _table(["Name", "Source", *card["classes"], "All", "Patients"], rows)
        warned = [(name, warning) for name, facts in card["external"].items() for warning in facts["warnings"]]
        lines += ["", *(f"- Warning: {plain(name)}: {plain(warning)}" for name, warning in warned)]
    lines += ["", "![Training images of each class](examples.png)", ""]
    return "\n".join(lines)


def _folds(card: dict) -> str:
    whose, repeats = "patient" if card["patients"] is not None else "image", card["repeats"]
    return (
        f"- Splits: {card['folds']} folds by {whose} x {repeats} repeat{'s' * (repeats != 1)}; seed s tests on fold s "
        f"mod {card['folds']} of repeat s div {card['folds']}, and each repeat is a shuffling of its own"
    )


def draw_examples(
    images: np.ndarray, labels: np.ndarray, splits: dict[str, np.ndarray], classes: list[str], path: Path
):
    """Draw a labelled row of training images a class, evenly spaced over the first seed's training split."""
    from matplotlib.figure import Figure

    train = next(indices for name, indices in splits.items() if name.endswith("train"))
    figure = Figure(figsize=(1.0 * COLUMNS + 1.2, 1.04 * len(classes) + 0.1), dpi=120)
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
            axes.spines[:].set(color="0.6", linewidth=0.5)  # white corners of a scan would melt into the page
        width = 14 * len(classes[label]) // fonts.cells(classes[label])  # in characters, of which some take two cells
        name = textwrap.fill(classes[label], width, max_lines=4, placeholder="\N{HORIZONTAL ELLIPSIS}")
        row[0].text(
            -0.08, 0.5, name, parse_math=False, transform=row[0].transAxes, ha="right", va="center", fontsize=9,
            fontfamily=[*fonts.families()],
        )  # fmt: skip
    with fonts.quiet():
        records.write_atomically(path, lambda file: figure.savefig(file, format="png", metadata={"Software": None}))


def _first_copies(images: np.ndarray) -> np.ndarray:
    """For each image the index of the first one equal to it, int64 (N,)."""
    _, first, number = np.unique(prepared.image_digests(images), return_index=True, return_inverse=True)
    return first[number]


def _table(head: list[str], rows: list[list]) -> list[str]:
    """Lines of a table of two columns of words, and numbers."""
    shown = [[f"{cell:,}" if isinstance(cell, int) else plain(cell) for cell in row] for row in rows]
    lines = [list(map(plain, head)), ["---", "---", *["---:"] * (len(head) - 2)], *shown]
    return ["| " + " | ".join(line) + " |" for line in lines]
