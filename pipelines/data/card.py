"""The data card: what was prepared, as numbers (card.json), as a page (card.md) and as a picture (examples.png).

Beside it stand patients.csv (image, patient), where the source names patients, and external-NAME.csv (image, label,
patient): statistics on results alone need to know which images belong together. Their numbers are those of the
manifest, not the source's ids.
"""

import json
import re
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np

from pipelines.data import external, prepared
from pipelines.data.labelled import some
from pipelines.data.prepared import Manifest
from pipelines.files import fonts, records
from pipelines.files.hashing import code_hash, sha256_json
from pipelines.files.markdown import plain

COLUMNS = 8
_SHARES = (
    "train@0.1 is a tenth of the training {}, class by class; a smaller share lies inside every larger one of its seed."
)


def write(folder: Path, manifest: Manifest, others: dict[str, Manifest], out: Path) -> None:
    """Describe the data prepared in `folder`, and its external data, in `out`.

    Without patients there is no patients.csv. Nothing is written where `out` describes just these data already.
    """
    made_from = sha256_json(
        [manifest.model_dump(), {name: m.model_dump() for name, m in others.items()}, code_hash([Path(__file__)])]
    )
    if _describes(out, made_from, manifest, others):
        return
    out.mkdir(parents=True, exist_ok=True)
    images, labels = prepared.open_images(folder)
    splits = prepared.open_splits(folder)
    card = describe(images, labels, splits, manifest)
    card["external"] = {name: _of_external(folder, name, other) for name, other in others.items()}
    for left in out.glob("external-*.csv"):
        if left.stem.removeprefix("external-") not in others:
            left.unlink()
    for name in others:
        external.write_table(prepared.external_dir(folder, name), out / f"external-{name}.csv")
    write_patients(manifest.patient_of_image, out / "patients.csv")
    draw_examples(images, labels, splits, manifest.classes, out / "examples.png")
    if told := fonts.warning(manifest.classes):
        print(f"warning: {told}")
    _write_text(out / "card.md", as_markdown(card))
    _write_text(out / "card.json", json.dumps({**card, "made_from": made_from}, indent=1) + "\n")


def _describes(out: Path, made_from: str, manifest: Manifest, others) -> bool:
    files = ["card.md", "examples.png", *(f"external-{name}.csv" for name in others)]
    files += ["patients.csv"] if manifest.patients is not None else []
    try:
        known = records.read_json(out / "card.json", "")
    except records.RecordError:
        return False
    return known.get("made_from") == made_from and all((out / name).is_file() for name in files)


def write_patients(patient_of_image: list[int] | None, path: Path) -> None:
    """Write a row (image, patient) an image, or remove what an earlier source left where patients are not known."""
    if patient_of_image is None:
        path.unlink(missing_ok=True)
        return
    rows = [f"{image},{patient}" for image, patient in enumerate(patient_of_image)]
    _write_text(path, "\n".join(["image,patient", *rows]) + "\n")


def _write_text(path: Path, text: str) -> None:
    records.write_atomically(path, lambda file: file.write(text.encode()))


def repeated_images(dataset) -> list[str]:
    """A warning where images that are equal byte for byte stand under two labels, naming some."""
    copies = _first_copies(dataset.images)
    found = np.flatnonzero(dataset.labels != dataset.labels[copies])
    if not len(found):
        return []
    names = dataset.files or [f"image {number}" for number in range(len(dataset.labels))]
    pairs = [f"{names[copies[i]]} = {names[i]}" for i in found]
    return [f"{len(found):,} images repeat another one under another label: {some(pairs)}"]


def _of_external(folder: Path, name: str, manifest: Manifest) -> dict:
    _, labels = prepared.open_images(prepared.external_dir(folder, name))
    counts = np.bincount(labels, minlength=len(manifest.classes)).tolist()
    return {
        "origin": manifest.origin, "count": manifest.count, "patients": manifest.patients,
        "per_class": dict(zip(manifest.classes, counts)), "warnings": manifest.warnings,
        "images_sha256": manifest.files["images.npy"],
    }  # fmt: skip


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
        "origin": manifest.origin,
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
    origin, named, mode = card["origin"], card["patients"] is not None, card["settings"].get("mode", "full")
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
    if card.get("external"):
        lines += ["", "## External data", "", "Runs are tested on these images once and never trained on them.", ""]
        lines += [_row(["Name", "Source", *card["classes"], "All", "Patients"])]
        lines += [_row(["---", "---", *["---:"] * (len(card["classes"]) + 2)])]
        for name, facts in card["external"].items():
            patients = "not named" if facts["patients"] is None else f"{facts['patients']:,}"
            numbers = [f"{number:,}" for number in [*facts["per_class"].values(), facts["count"]]]
            lines.append(_row([name, facts["origin"].get("source", ""), *numbers, patients]))
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
        name = _wrapped(classes[label])
        row[0].text(
            -0.08, 0.5, name, parse_math=False, transform=row[0].transAxes, ha="right", va="center", fontsize=9,
            fontfamily=[*fonts.families()],
        )  # fmt: skip
    with fonts.quiet():
        records.write_atomically(path, lambda file: figure.savefig(file, format="png", metadata={"Software": None}))


def _wrapped(name: str, width: int = 14, lines: int = 4) -> str:
    """A name in lines of at most so many Latin letters' width (Chinese, Japanese and Korean ones are twice as wide)."""
    found = [""]
    for part in re.findall(r"[^\s_-]*[\s_-]?", name):
        for piece in [part] if fonts.cells(part) <= width else part:
            if fonts.cells(found[-1] + piece.rstrip()) > width:
                found.append("")
            found[-1] += piece
    shown = [line.strip() for line in found[:lines]]
    return "\n".join(shown) + ("\N{HORIZONTAL ELLIPSIS}" if len(found) > lines else "")


def _first_copies(images: np.ndarray) -> np.ndarray:
    """For each image the index of the first one equal to it, int64 (N,)."""
    first: dict[bytes, int] = {}
    digests = enumerate(prepared.image_digests(images))
    return np.array([first.setdefault(digest, index) for index, digest in digests], np.int64)


def _row(cells) -> str:
    return "| " + " | ".join(map(plain, cells)) + " |"
