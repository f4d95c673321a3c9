"""How much accuracy is left on corrupted images: the figure and the table of robustness.csv.

The file has no rows in a profile whose networks were not probed, and is not there in results summarised before there
was any: no table and no figure then.
"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from report import gradcam, layout, style
from report.results import Results, _csv, span
from report.tables import Table, interval, number

COLUMNS = [
    "method", "kind", "severity", "accuracy", "lo", "hi", "clean", "kept", "kept_lo", "kept_hi", "seeds", "test_images",
]  # fmt: skip
MEAN = "mean"  # the kind of the row over all kinds and severities
FINE = 80  # pixels a side, below which the mildest downsampling leaves images as they are
MEANINGS = {
    "speckle": "multiplicative noise",
    "blur": "Gaussian",
    "contrast": "lowered",
    "gamma": "darker or brighter",
    "downsampling": "fewer pixels, and back",
    "motion": "columns shifted in depth as the eye moves",
}


def read(results: Results) -> pd.DataFrame:
    """robustness.csv; empty where there is none.

    Raises:
        ReportError: the file is not readable or lacks a column.
    """
    path = results.directory / "robustness.csv"
    return _csv(path, COLUMNS) if path.is_file() else pd.DataFrame(columns=COLUMNS)


def robustness(results: Results) -> plt.Figure | None:
    """Accuracy by severity, a panel a kind of corruption: the methods of the Grad-CAM figure in full, the others thin."""
    frame = read(results)
    frame = frame[frame.severity.notna()]
    if frame.empty:
        return None
    kinds = list(dict.fromkeys(frame.kind))
    main = _main(results, frame)
    columns, rows = min(3, len(kinds)), -(-len(kinds) // 3)
    entries = len(main) + (len(set(frame.method)) > len(main))
    below, above = 0.6 + 0.17 * -(-entries // 4), 0.66
    height = 1.75 * rows + 0.25 * (rows - 1) + below + above
    figure, axes = plt.subplots(rows, columns, figsize=(style.WIDTH, height), sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=0.085, right=0.985, top=1 - above / height, bottom=below / height, wspace=0.08, hspace=0.25 / 1.75
    )
    for axis, kind in zip(axes.flat, kinds):
        axis.set_title(kind.capitalize(), pad=3)
        axis.grid(axis="y")
        for method, row in results.methods.iterrows():
            own = frame[(frame.method == method) & (frame.kind == kind)].sort_values("severity")
            if len(own):
                look = {"lw": 1.4, "ms": 3.6, "zorder": 3} if method in main else {"lw": 0.6, "ms": 0, "alpha": 0.45}
                x, y = [0, *own.severity.astype(int)], [own.clean.iloc[0], *own.accuracy]
                axis.plot(x, y, style.MARKERS[row.group], ls="-", color=row.color, mec="white", mew=0.4, **look)
    for axis in list(axes.flat)[len(kinds) :]:
        axis.set_visible(False)
    severities = sorted(frame.severity.astype(int).unique())
    axes[0, 0].set(xticks=[0, *severities], xticklabels=["clean", *map(str, severities)])
    axes[0, 0].yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    for place, axis in enumerate(axes.flat):
        axis.tick_params(labelbottom=place + columns >= len(kinds))
    figure.supxlabel("Severity", fontsize=8.5, y=(below - 0.4) / height, va="center")
    figure.supylabel("Test accuracy", fontsize=8.5, x=0.012)
    layout.write_title(figure, f"Accuracy on corrupted test images, mean over seeds\n{_images(results, frame)}")
    line = {"lw": 1.4, "ms": 3.6, "mec": "white", "mew": 0.4}
    handles = [
        Line2D([], [], marker=style.MARKERS[row.group], color=row.color, label=method, **line)
        for method, row in results.methods.loc[main].iterrows()
    ]
    if entries > len(main):
        handles.append(Line2D([], [], lw=0.6, color=style.INK, alpha=0.45, label="the other methods"))
    layout.legend_below(figure, handles)
    return figure


def accuracy_kept(results: Results) -> Table:
    """The share of the clean accuracy that is kept, by kind of corruption and over all."""
    frame = read(results)
    frame = frame[frame.severity.isna()].drop(columns="severity")
    kinds = [kind for kind in dict.fromkeys(frame.kind) if kind != MEAN]
    kept = frame.pivot(index="method", columns="kind", values="kept").reindex(results.methods.index)
    whole = frame[frame.kind == MEAN].set_index("method").reindex(results.methods.index)
    raw = pd.DataFrame({
        "method": results.methods.index, "clean": whole.clean, "corrupted": whole.accuracy,
        **{f"kept_{kind}": kept[kind] for kind in kinds}, "kept": whole.kept, "kept_lo": whole.kept_lo,
        "kept_hi": whole.kept_hi, "seeds": whole.seeds.fillna(0).astype(int), "planned": results.methods.planned,
    }).reset_index(drop=True)  # fmt: skip
    text = pd.DataFrame({
        "Method": raw.method, "Clean": [number(v, ".3f") for v in raw.clean],
        **{kind.capitalize(): [number(v, ".3f") for v in raw[f"kept_{kind}"]] for kind in kinds},
        "All": [number(v, ".3f") for v in raw.kept],
        "95 % interval": [interval(lo, hi) for lo, hi in zip(raw.kept_lo, raw.kept_hi, strict=True)],
        "Seeds": [f"{n}" if n == p else f"{n} of {p}" for n, p in zip(raw.seeds, raw.planned, strict=True)],
    })  # fmt: skip
    note = (
        "Clean: accuracy on the same images uncorrupted, mean over the seeds probed. The others: accuracy kept, which "
        "is the mean accuracy over five severities as a share of it; All: over all kinds. The interval is of All for "
        f"new seeds and new test images, by the delta method on the ratio. {_seeds(raw)}"
    )
    title = f"Accuracy kept on corrupted images: {_images(results, frame)}"
    return Table("robustness", title, note, raw if len(frame) else raw.iloc[:0], text)


def caption(results: Results) -> str:
    """What the corruptions are, of which images and seeds."""
    frame = read(results)
    if frame.empty:
        return ""
    kinds = [kind for kind in dict.fromkeys(frame.kind) if kind != MEAN]
    named = ", ".join(f"{kind} ({MEANINGS[kind]})" if kind in MEANINGS else kind for kind in kinds)
    whole = frame[frame.kind == MEAN].set_index("method").reindex(results.methods.index)
    counts = pd.DataFrame(
        {"method": results.methods.index, "seeds": whole.seeds.fillna(0), "planned": results.methods.planned}
    )
    text = (
        f"Test images are corrupted in {len(kinds)} ways at five severities each, from barely visible to severe but "
        f"still legible: {named}. No network was trained on such images, and all see the same noise. "
        f"{span(whole.test_images)} test images a method. {_seeds(counts)}"
    )
    if results.card.get("image_size", FINE) < FINE:
        text += f" At {results.card['image_size']} px the mildest blur and downsampling change nothing."
    if len(_main(results, frame)) < frame.method.nunique():
        text += " Thick lines: the methods of the Grad-CAM figure; thin ones: the others."
    return text


def _main(results: Results, frame: pd.DataFrame) -> list[str]:
    """The methods to show in full: those that `pipelines.explain` chose by validation accuracy; all without its file."""
    found = gradcam.read(results)
    chosen = set(frame.method) if found is None else set(frame.method) & set(found["methods"].tolist())
    return [method for method in results.methods.index if method in chosen]


def _seeds(counts: pd.DataFrame) -> str:
    """Which seeds were probed, and the methods of which some are missing."""
    text = f"Probed: {span(counts.seeds)} of {span(counts.planned)} seeds a method."
    missing = counts.method[counts.seeds == 0]
    return text + (f" Not probed: {', '.join(missing)}." if len(missing) else "")


def _images(results: Results, frame: pd.DataFrame) -> str:
    """As `Results.label`, with the seeds and images that were probed."""
    seeds = f"{span(frame.seeds)} of {span(results.methods.planned)} seeds"
    return f"{results.origin}, {seeds}, {span(frame.test_images)} test images"


TABLES = (accuracy_kept,)
