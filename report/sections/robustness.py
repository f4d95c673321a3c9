"""Clean against corrupted test images as dumbbells, and where the order of methods turns with the corruption."""

import pandas as pd
from matplotlib.figure import Figure

from report import drawing
from report.reading import Results
from report.sections import Section, Table
from report.text import crossed, few, gap, listed, numbers, plural, points, span

GROUP, ORDER = "Evidence", 15
MEAN = "mean"  # the kind of the row over all kinds and severities
FINE = 80  # pixels a side, below which the mildest blur and downsampling leave images as they are
SHOWN = 12
MEANINGS = {
    "speckle": "multiplicative noise", "blur": "Gaussian", "contrast": "lowered", "gamma": "darker or brighter",
    "downsampling": "fewer pixels, and back", "motion": "columns shifted in depth as the eye moves",
}  # fmt: skip


def section(results: Results) -> Section | None:
    rows = results.robustness[(results.robustness.kind == MEAN) & results.robustness.accuracy.notna()]
    rows = rows.set_index("method")
    if rows.empty:
        return None
    shown = [name for name in results.leading(SHOWN) if name in rows.index] or rows.index[:SHOWN]
    rows = rows.loc[shown].sort_values("drop")
    kinds = [kind for kind in dict.fromkeys(results.robustness.kind) if kind != MEAN]
    learnt = [name for name in rows.index if name in results.learnt]
    title = finding(rows.loc[learnt or rows.index], results.robustness_pairs, results.declared[:1])
    named = ", ".join(f"{kind} ({MEANINGS[kind]})" if kind in MEANINGS else kind for kind in kinds)
    caption = (
        f"Mean accuracy on the images as they are (full dot) and corrupted (hollow), {plural(len(kinds), 'kind')} at "
        f"five severities: {named}. Sorted by the loss, written at the right in points with its 95 % interval, paired "
        f"by image. No network was trained on such images. {span(rows.images)} test images, {span(rows.runs)} runs a "
        "method."
    )
    if (size := results.card.get("image_size", FINE)) < FINE:
        caption += f" At {size} px the mildest downsampling changes nothing, the mildest blur hardly anything."
    told = "; ".join(f"{name} from {row.clean:.3f} to {row.accuracy:.3f}" for name, row in rows.iterrows())
    tables = [table(results.robustness, results.methods.index, results.label), *beside(results.robustness_pairs)]
    return Section(title, caption, f"Accuracy falls: {told}.", figure(rows, results.methods), tables)


def finding(rows: pd.DataFrame, pairs: pd.DataFrame, declared: list[str]) -> str:
    """What the declared method loses, who loses least and most, and on which kinds its order with others reverses."""
    told = dict.fromkeys(
        [*[name for name in declared if name in rows.index], rows["drop"].idxmin(), rows["drop"].idxmax()]
    )
    losses = [f"{name} {points(rows['drop'][name])}" for name in told]
    text = f"Corrupted images cost {listed(losses)} points"
    turned = pairs[pairs.order == "reversed"]
    if len(turned):
        own = turned.groupby("kind", sort=False).against.agg(list)
        text += f"; {listed([f'{kind} reverses the order with {few(names, 2)}' for kind, names in own.items()])}"
    return f"{text}."


def figure(rows: pd.DataFrame, methods: pd.DataFrame) -> Figure:
    """A dumbbell a method. rows: index of names; clean, accuracy, drop, drop_lo, drop_hi, in the order shown."""
    shown = pd.DataFrame({
        "full": rows.clean, "hollow": rows.accuracy, "change": -rows["drop"], "lo": -rows.drop_hi, "hi": -rows.drop_lo,
    })  # fmt: skip
    return drawing.dumbbells({"": shown}, methods, "Test accuracy", ("as they are", "corrupted"))[0]


def table(robustness: pd.DataFrame, order, label: str) -> Table:
    """Accuracy lost by kind of corruption, in points, mean over severities."""
    means = robustness[robustness.severity.isna() & robustness.accuracy.notna()]
    kinds = [kind for kind in dict.fromkeys(means.kind) if kind != MEAN]
    lost = means.pivot(index="method", columns="kind", values="drop").map(lambda drop: points(-drop, plus=True))
    rows = means[means.kind == MEAN].set_index("method")
    rows = rows.loc[[name for name in order if name in rows.index]]
    text = pd.DataFrame({
        "Method": rows.index, "Clean": numbers(rows.clean, ".3f"),
        **{kind.capitalize(): list(lost[kind][rows.index]) for kind in kinds},
        "All": list(lost[MEAN][rows.index]),
        "95 % interval": [f"[{points(-r.drop_hi)}, {points(-r.drop_lo)}]" for r in rows.itertuples()],
        "Runs": numbers(rows.runs, ".0f"),
    })  # fmt: skip
    note = (
        "Points of accuracy lost on corrupted images, mean over five severities; All: over all kinds, with its 95 % "
        "interval, paired by run and image. By severity: robustness.csv of the results."
    )
    return Table("robustness", f"Accuracy lost on corrupted images: {label}", note, means, text)


def beside(pairs: pd.DataFrame) -> list[Table]:
    """The declared method minus each comparator, by kind; no table where nothing was declared."""
    if pairs.empty:
        return []
    told = [gap(own) + " *" * (own.order == "reversed") for own in pairs.itertuples()]
    long = pairs.assign(kind=pairs.kind.str.capitalize())
    text = crossed(long, ["against"], "kind", told, list(pairs.against.unique())).rename(columns={"Against": "Minus"})
    note = (
        "Accuracy of the declared method minus the comparator's, mean over severities, with unadjusted 95 % intervals: "
        "exploratory. Mean: kinds as well as patients and runs drawn anew. * the order is the reverse of the mean's."
    )
    title = f"{pairs.method.iloc[0]} beside its comparators on corrupted images"
    return [Table("robustness_pairs", title, note, pairs, text)]
