"""What index.html draws itself: rows of methods and of contrasts on one axis each, and learning curves to explore."""

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb
from matplotlib.ticker import MaxNLocator

from report.drawing import luminance
from report.pages.cells import TONES, rank
from report.reading import Results
from report.sections.forest import second_runs, unlike
from report.text import DASH, MARK, MINUS, interval, listed, not_counted, number, percent, points, scaled, unnamed

METRICS = {
    "val_acc": "Validation accuracy",
    "val_auc": "Validation AUC",
    "val_loss": "Validation loss",
    "train_acc": "Training accuracy",
    "train_loss": "Training loss",
}
DASHES = ("", "7 4", "2 3", "9 3 2 3")  # tell methods of one colour apart
DARK = "#171717"  # the page's dark ground, on which lines need a contrast of 4.5 : 1
FARTHEST = 4  # times the way from the best to the median, beyond which a method is off the axis
SHOWN_FIRST = 6  # curves drawn before the reader chooses


class Axis:
    """Places on an axis in per cent of its length, room at the ends; what is below `lowest` is put at its start."""

    def __init__(self, values, *, steps: int, lowest: float = float("-inf")):
        values = [v for v in values if v >= lowest]  # which no missing one is
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        room = 0.04 * (high - low) or 0.01
        self.low, self.high, self.steps = low - room, high + room, steps

    def place(self, value) -> float | None:
        return None if pd.isna(value) else round(max(0.0, 100 * (value - self.low) / (self.high - self.low)), 2)

    def ticks(self, form) -> list[dict]:
        found = MaxNLocator(self.steps, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        return [{"at": self.place(tick), "text": form(tick)} for tick in found if 4 <= self.place(tick) <= 96]


def methods(results: Results) -> dict:
    """The accuracy of every method that was run on one axis, the highest first; the note names the others."""
    frame = results.methods[results.methods.seeds > 0]
    absent = list(results.methods.index[results.methods.seeds == 0])
    tested = results.complete.groupby("method").test_acc.apply(list)
    # A method or two that did not learn would press all others together.
    lowest = frame.acc_mean.max() - FARTHEST * (frame.acc_mean.max() - frame.acc_mean.median())
    axis = Axis([*frame.acc_lo, *frame.acc_hi, *frame.acc_mean], steps=4, lowest=lowest)
    rows = [
        {
            "number": results.methods.index.get_loc(method), "backbone": str(row.backbone),
            "name": row.shown + f" {MARK}" * (method in results.never_named),
            "declared": [method] == results.declared[:1], "again": None,
            "lo": axis.place(row.acc_lo), "hi": axis.place(row.acc_hi), "mean": axis.place(row.acc_mean),
            "beyond": bool(row.acc_mean < axis.low),
            "seeds": [axis.place(value) for value in tested.get(method, [])],
            "accuracy": number(row.acc_mean, ".3f"), "interval": interval(row.acc_lo, row.acc_hi),
            "sort": _finite(row.acc_mean),
            "trained": scaled(row.trainable), "trained_sort": _finite(row.trainable),
        }
        for method, row in frame.sort_values("acc_mean", ascending=False, kind="stable").iterrows()
    ]  # fmt: skip
    reference = results.reference
    line = f" Dashed line: {reference}." if reference else ""
    missing = f" Not run yet: {listed(absent)}." if absent else ""
    return {
        "title": f"All methods, the most accurate first: {results.label}",
        "rows": rows,
        "ticks": axis.ticks(lambda tick: f"{tick:.3g}"),
        "reference": axis.place(frame.acc_mean[reference]) if reference else None,
        "families": sorted(map(str, frame.family.unique())),
        "backbones": sorted(map(str, frame.backbone.unique())),
        "kinds": results.methods[["family", "backbone"]].astype(str).to_dict("records"),
        "note": "Filled dot: mean over seeds. Bar: its 95 % interval for "
        f"{results.drawn_anew}. Hollow dots: seeds. An arrow: below the axis.{line} "
        f"A name leads to its runs.{not_counted(frame)}{missing}{unnamed(results.never_named)}",
    }


def forest(results: Results) -> dict | None:
    """The declared contrasts on one axis of percentage points; None where nothing was declared or run."""
    frame = results.declared_contrasts
    if frame.difference.isna().all():
        return None
    margin, there = frame.margin.max(), second_runs(frame, results).set_index("against")
    there = there[["difference_there", "lo_there", "hi_there"]]
    ends = [*frame.lo, *frame.hi, *frame.difference, *there.to_numpy().flat, -margin, margin]
    axis = Axis(ends, steps=7)
    frame = frame.sort_values("difference", ascending=False, kind="stable")
    rows = [
        {
            "method": place, "number": max(place, 0), "name": row.comparator,
            "lo": axis.place(row.lo), "hi": axis.place(row.hi), "mean": axis.place(row.difference),
            "again": list(map(axis.place, there.loc[row.against])) if row.against in there.index else None,
            "seeds": [], "beyond": False, "why": "" if pd.isna(row.reason) else row.reason,
            "difference": points(row.difference, plus=True),
            "interval": DASH if pd.isna(row.lo) else f"{points(row.lo, plus=True)} to {points(row.hi, plus=True)}",
            "sort": _finite(100 * row.difference), "verdict": row.higher, "rank": rank(row.higher),
            "tone": TONES[row.higher],
        }
        for place, row in zip(results.methods.index.get_indexer(frame.against), frame.itertuples(), strict=True)
    ]  # fmt: skip
    method, share = frame.method.iloc[0], frame.share.iloc[0]
    on = "" if share == 1 else f" with {percent(share)} of the training patients"
    return {
        "title": f"{method} minus each declared comparator{on}: test accuracy in percentage points",
        "rows": rows,
        "ticks": axis.ticks(lambda tick: f"{100 * tick:+g}".replace("-", MINUS) if tick else "0"),
        "zero": axis.place(0.0),
        "zone": (axis.place(-margin), axis.place(margin)),
        "note": f"Right of the dashed line {method} is more accurate. Bars: the intervals that the verdicts rest on, "
        f"Holm-adjusted over all rows. Grey: ±{points(margin)} points, the margin of non-inferiority. Supported: "
        f"{method} is shown to be more accurate; contradicted: less. {unlike(frame, results)}"
        + "Small: the same difference with both trained on one other machine, interval unadjusted."
        * bool(len(there)),
    }


def curves(results: Results) -> dict | None:
    """Learning curves by method: mean, lowest and highest of the seeds at every epoch; None without any.

    An epoch that some seed of the method lacks is a gap: a mean of other seeds than before would show a step that no
    network took.
    """
    frame = results.curves
    metrics = [name for name in METRICS if frame[name].notna().any()]
    if frame.empty or not metrics:
        return None
    epochs = list(range(int(frame.epoch.min()), int(frame.epoch.max()) + 1))
    first = results.leading(SHOWN_FIRST)
    methods = results.methods[results.methods.index.isin(frame.method)]
    again = methods.groupby("color").cumcount()
    found = []
    for method, row in methods.iterrows():
        own = frame[frame.method == method]
        found.append({
            "number": results.methods.index.get_loc(method), "name": row.shown, "seeds": int(own.seed.nunique()),
            "dash": DASHES[again[method] % len(DASHES)], "first": method in first,
            "last": int(own.epoch.max()) - epochs[0],
            "lines": {name: _band(own, name, epochs) for name in metrics},
        })  # fmt: skip
    start = max((own["last"] for own in found if own["first"]), default=len(epochs) - 1)
    return {"epochs": epochs, "start": start, "metrics": {name: METRICS[name] for name in metrics}, "methods": found}


def _band(own: pd.DataFrame, name: str, epochs: list[int]) -> list[list]:
    seeds = own.pivot(index="epoch", columns="seed", values=name).reindex(epochs)
    seeds = seeds[seeds.notna().all(axis=1)].reindex(epochs)
    return [[_finite(v, 5) for v in part] for part in (seeds.mean(axis=1), seeds.min(axis=1), seeds.max(axis=1))]


def dark(color: str) -> str:
    """The colour for a dark ground: mixed with white until it stands out by 4.5 : 1; greys are turned about first."""
    rgb = np.array(to_rgb(color))
    if np.ptp(rgb) == 0:
        rgb = 0.93 - 0.8 * rgb
    while (luminance(rgb) + 0.05) / (luminance(DARK) + 0.05) < 4.5:
        rgb = rgb + (1 - rgb) * 0.04
    return to_hex(rgb)


def _finite(value, digits: int = 12) -> float | None:
    """JSON has no NaN."""
    return None if pd.isna(value) else float(f"{value:.{digits}g}")
