"""What index.html shows beyond tables and figures: the headline, the methods at a glance, curves to explore, the records.

Plain values for the template, names from data as they are: the template escapes them.
"""

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb
from matplotlib.ticker import MaxNLocator

from report import comparisons, page, tables
from report.results import Results, span
from report.style import scaled
from report.tables import DASH, Table

REFERENCES = {"full": "full fine-tuning", "head_only": "training the head alone"}
SHORT = {"full": "full fine-tuning", "head_only": "the head alone"}
PHRASES = {
    "higher": "more accurate than {name}",
    "higher, within the margin": "more accurate than {name}, by less than {margin}",
    "equivalent": "as accurate as {name}, within {margin}",
    "lower, within the margin": "less accurate than {name}, by less than {margin}",
    "lower": "less accurate than {name}",
    "undecided": "not shown to differ in accuracy from {name}",
}
TONES = {
    "higher": "up", "higher, within the margin": "up", "equivalent": "even", "lower, within the margin": "down",
    "lower": "down", "undecided": "open", "supported": "up", "contradicted": "down",
}  # fmt: skip
METRICS = {
    "val_acc": "Validation accuracy",
    "val_auc": "Validation AUC",
    "val_loss": "Validation loss",
    "train_acc": "Training accuracy",
    "train_loss": "Training loss",
}
DASHES = ("", "7 4", "2 3", "9 3 2 3")  # tell methods of one colour apart
DARK = "#171717"  # the page's dark ground, on which lines need a contrast of 4.5 : 1
SHOWN_FIRST = 6  # curves drawn before the reader chooses


def headline(results: Results) -> str:
    """The result in a sentence or two, from the verdicts on the CoLoRA method chosen on validation images."""
    methods = results.methods[results.methods.seeds > 0]
    if methods.empty:
        return "No method has a result yet."
    where = {
        "phantom": "On synthetic phantom scans",
        "folder": f"On {span(results.complete.n_train)} training images",
        "medmnist": f"On {results.dataset}",
    }.get(results.source, "On data without a card")
    chosen = page.chosen_colora(results)
    if chosen is None:
        best = methods.acc_mean.idxmax()
        return f"{where}, {best} has the highest mean test accuracy: {methods.acc_mean[best]:.3f}."
    row = methods.loc[chosen]
    said: dict[str, list[str]] = {}
    pairs = _pairs(results, chosen)
    for pair in pairs[~pairs.against.isin(comparisons.PEERS)].itertuples():  # those have their tiles
        said.setdefault(comparisons.verdict(pair), []).append(REFERENCES.get(pair.against, pair.reference))
    words = [
        PHRASES[word].format(
            name=_listed(names, "or" if word == "undecided" else "and"), margin=comparisons.points(pairs.margin.max())
        )
        for word, names in said.items()
    ]
    trains = f"{100 * row.trainable / row.total:.1f} % of the parameters"
    if not words:
        return f"{where}, CoLoRA reaches a test accuracy of {row.acc_mean:.3f}, training {trains}."
    return f"{where}, CoLoRA is {' and '.join(words)}. It trains {trains}."


def _listed(names: list[str], last: str) -> str:
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def tiles(results: Results) -> list[dict]:
    """The chosen CoLoRA method's figures: label, value, detail, and a verdict where there is one."""
    chosen = page.chosen_colora(results)
    if chosen is None:
        return []
    row = results.methods.loc[chosen]
    whole = "" if not results.reference else f"; {results.reference}: {results.methods.acc_mean[results.reference]:.3f}"
    found = [
        {
            "label": "Test accuracy",
            "value": f"{row.acc_mean:.3f}",
            "detail": f"95 % interval {tables.interval(row.acc_lo, row.acc_hi)}{whole}",
        }
    ]
    for pair in _pairs(results, chosen).itertuples():
        word = comparisons.verdict(pair)
        found.append(
            {
                "label": f"Against {SHORT.get(pair.against, pair.reference)}",
                "value": tables.signed(pair.difference),
                "detail": f"95 % interval {tables.interval(pair.lo, pair.hi, plus=True)}",
                "verdict": word,
                "tone": TONES[word],
            }
        )
    found.append(
        {
            "label": "Trained parameters",
            "value": f"{100 * row.trainable / row.total:.1f} %",
            "detail": f"{row.trainable:,.0f} of {row.total:,.0f}",
        }
    )
    return found


def _pairs(results: Results, method: str) -> pd.DataFrame:
    return results.comparisons[(results.comparisons.method == method) & results.comparisons.difference.notna()]


def glance(results: Results) -> dict:
    """Every method's accuracy on one axis: positions are per cent of its length. None where a method has no result."""
    methods = results.methods
    tested = results.complete.groupby("method").test_acc.apply(list)
    low, high = methods[["acc_lo", "acc_mean"]].min().min(), methods[["acc_hi", "acc_mean"]].max().max()
    margin = 0.04 * (high - low) or 0.01
    low, high = low - margin, high + margin

    def place(value):
        return None if pd.isna(value) else round(100 * (value - low) / (high - low), 2)

    against = {p.method: p for p in results.comparisons.itertuples() if p.against == "full" and pd.notna(p.difference)}
    chosen = page.chosen_colora(results)
    rows = []
    for number, (method, row) in enumerate(methods.iterrows()):
        word = comparisons.verdict(against[method]) if method in against else DASH
        if method == results.reference:
            word = "reference"
        rows.append(
            {
                "number": number, "name": row.shown, "kind": row.group, "chosen": method == chosen,
                "lo": place(row.acc_lo), "hi": place(row.acc_hi), "mean": place(row.acc_mean),
                "seeds": [place(value) for value in tested.get(method, [])],
                "accuracy": tables.number(row.acc_mean, ".3f"), "sort": _finite(row.acc_mean),
                "interval": tables.interval(row.acc_lo, row.acc_hi),
                "trained": DASH if pd.isna(row.trainable) else scaled(row.trainable),
                "trained_sort": _finite(row.trainable), "verdict": word, "tone": TONES.get(word),
            }
        )  # fmt: skip
    ticks = [] if pd.isna(low) else MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return {
        "rows": rows,
        "ticks": [{"at": place(tick), "text": f"{tick:.3g}"} for tick in ticks if 3 <= place(tick) <= 97],
        "reference": place(methods.acc_mean[results.reference]) if results.reference else None,
        "reference_name": results.reference,
    }


def curves(results: Results) -> dict | None:
    """Learning curves by method: mean, lowest and highest of the seeds at every epoch; None without any.

    An epoch that some seed of the method lacks is a gap: a mean of other seeds than before would show a step that no
    network took.
    """
    frame = results.curves
    metrics = [name for name in METRICS if name in frame and frame[name].notna().any()]
    if frame.empty or not metrics:
        return None
    epochs = list(range(int(frame.epoch.min()), int(frame.epoch.max()) + 1))
    first = _first_shown(results)
    used: dict[str, int] = {}
    methods = []
    for number, (method, row) in enumerate(results.methods.iterrows()):
        own = frame[frame.method == method]
        place = used[row.color] = used.get(row.color, -1) + 1
        methods.append(
            {
                "number": number,
                "name": row.shown,
                "seeds": int(own.seed.nunique()),
                "dash": DASHES[place % len(DASHES)],
                "first": method in first,
                "lines": {name: _band(own, name, epochs) for name in metrics} if len(own) else None,
            }
        )
    return {"epochs": epochs, "metrics": {name: METRICS[name] for name in metrics}, "methods": methods}


def _band(own: pd.DataFrame, name: str, epochs: list[int]) -> list[list]:
    seeds = own.pivot(index="epoch", columns="seed", values=name).reindex(epochs)
    seeds = seeds[seeds.notna().all(axis=1)].reindex(epochs)
    return [[_finite(v, 5) for v in part] for part in (seeds.mean(axis=1), seeds.min(axis=1), seeds.max(axis=1))]


def _first_shown(results: Results) -> set[str]:
    """The reference, the chosen CoLoRA method, and the method of each other group with the best validation accuracy."""
    runs = results.complete.assign(group=results.complete.method.map(results.methods.group))
    mean = runs.groupby(["group", "method"], sort=False).val_acc.mean()
    best = [group.idxmax()[1] for _, group in mean.groupby(level=0, sort=False) if group.notna().any()]
    heads = [method for method, row in results.methods.iterrows() if row.family == "head_only" and row.seeds][:1]
    wanted = dict.fromkeys([results.reference, page.chosen_colora(results), *heads, *best])
    return set([method for method in wanted if method][:SHOWN_FIRST])


def records(results: Results) -> Table:
    """Where every number comes from: a row a run, holes included."""
    runs = results.runs.copy()
    paths = [f"results/{results.profile}/runs/{row.method}/{row.seed}/record.json" for row in runs.itertuples()]

    def words(name, change=str):
        column = runs[name] if name in runs else pd.Series(np.nan, runs.index)
        return [DASH if pd.isna(value) else change(value) for value in column]

    machine = [
        DASH if cpu == gpu == DASH else gpu if gpu != DASH else f"{cpu}, {threads} thread{'s' * (threads != '1')}"
        for cpu, gpu, threads in zip(words("cpu"), words("gpu"), words("threads", lambda v: f"{v:.0f}"), strict=True)
    ]
    commits = [
        commit[:12] + (" + changes" if dirty == "True" else "")
        for commit, dirty in zip(words("commit"), words("dirty"), strict=True)
    ]
    software = [
        ", ".join(f"{name} {value}" for name, value in zip(("Python", "torch", "CUDA"), row) if value != DASH) or DASH
        for row in zip(words("python"), words("torch"), words("cuda"), strict=True)
    ]
    text = pd.DataFrame({
        "Method": runs.method.astype(str), "Seed": runs.seed.astype(str), "State": words("status"),
        "Accuracy": words("test_acc", lambda v: f"{v:.4f}"), "AUC": words("test_auc", lambda v: f"{v:.4f}"),
        "Epoch kept": words("best_epoch", lambda v: f"{v:.0f}"), "LR": words("lr", lambda v: f"{v:g}"),
        "Weights (sha256)": words("weights_sha256", lambda v: v[:12]), "Commit": commits, "Machine": machine,
        "Software": software, "Run": words("date", lambda v: v[:10]), "Record": paths,
    })  # fmt: skip
    note = (
        "Every figure of a method on this page is computed from its rows here. A record states the run's settings, its "
        "fingerprint, timings and environment; curves.csv and predictions.npz lie beside it. The commit is the code's."
    )
    return Table("records", f"Run records: profile {results.profile}", note, runs.assign(record=paths), text)


def dark(color: str) -> str:
    """The colour for a dark ground: mixed with white until it stands out by 4.5 : 1; greys are turned about first."""
    rgb, ground = np.array(to_rgb(color)), _luminance(to_rgb(DARK))
    if np.ptp(rgb) == 0:
        rgb = 0.93 - 0.8 * rgb
    while (_luminance(rgb) + 0.05) / (ground + 0.05) < 4.5:
        rgb = rgb + (1 - rgb) * 0.04
    return to_hex(rgb)


def _luminance(rgb) -> float:
    rgb = np.asarray(rgb)
    return float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def _finite(value, digits: int = 12) -> float | None:
    """JSON has no NaN."""
    return None if pd.isna(value) else float(f"{value:.{digits}g}")
