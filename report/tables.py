"""The tables of the report, each as Markdown, CSV and LaTeX.

A table is a frame of raw numbers (written as CSV) and the same as text, holes being dashes (Markdown and LaTeX).
"""

from pathlib import Path

import pandas as pd

from report.results import Results, counterparts
from report.text import DASH, Table, count, interval, latex, markdown, mean_sd, number, scaled, seconds, signed  # noqa: F401

SIDE_BY_SIDE = (
    "Runs may have run side by side with other work on the machine: look at the spread between seeds before comparing "
    "methods."
)

FLOPS = "FLOPs: floating-point operations of one image's forward pass, two a multiply-accumulate."


def write_all(results: Results, directory: Path) -> dict[str, Table]:
    """Write every table that has rows to directory/<name>.md, .csv and .tex; returns them by name.

    The files of a table that has no rows now are removed.
    """
    from report import claims, label_efficiency, quality, robustness  # these build on this module
    from report.comparisons import comparisons
    from report.cost import side_by_side
    from report.layer_costs import layer_costs

    directory.mkdir(parents=True, exist_ok=True)
    written = {}
    for make in (
        *claims.TABLES, main, comparisons, *label_efficiency.TABLES, recall, side_by_side, layer_costs, cost,
        beside_paper, tuning, *quality.TABLES, *robustness.TABLES, holes,
    ):  # fmt: skip
        table = make(results)
        files = {suffix: directory / f"{table.name}.{suffix}" for suffix in ("md", "csv", "tex")}
        if table.raw.empty:
            for path in files.values():
                path.unlink(missing_ok=True)
            continue
        files["md"].write_text(f"{markdown(table)}\n{table.title}. {table.note}\n", encoding="utf-8")
        files["csv"].write_text(
            table.raw.to_csv(index=False, float_format="%.6g", lineterminator="\n"), encoding="utf-8"
        )
        files["tex"].write_text(latex(table), encoding="utf-8")
        written[table.name] = table
    return written


def main(results: Results) -> Table:
    """Accuracy, AUC, parameters and time of every method, and whether it started from pretrained weights."""
    methods = results.methods.assign(start=[start(weights) for weights in results.methods.weights])
    columns = [
        "family", "backbone", "start", "weights", "trainable", "total", "flops", "lr", "seeds", "planned", "acc_mean",
        "acc_sd", "acc_lo", "acc_hi", "acc_max", "auc_mean", "auc_sd", "auc_lo", "auc_hi", "best_epoch_mean", "epoch_s",
    ]  # fmt: skip
    raw = methods[columns].rename_axis("method").reset_index()
    text = pd.DataFrame({
        "Method": methods.index,
        "Backbone": methods.backbone.fillna(DASH),
        "Start": methods.start.fillna(DASH),
        "Trained": [count(v) for v in methods.trainable],
        "Total": [count(v) for v in methods.total],
        "LR": [number(v, "g") for v in methods.lr],
        "Seeds": [f"{n}" if n == p else f"{n} of {p}" for n, p in zip(methods.seeds, methods.planned, strict=True)],
        "Accuracy": [mean_sd(m, s, 3) for m, s in zip(methods.acc_mean, methods.acc_sd, strict=True)],
        "95 % interval": [interval(lo, hi) for lo, hi in zip(methods.acc_lo, methods.acc_hi, strict=True)],
        "AUC": [mean_sd(m, s, 4) for m, s in zip(methods.auc_mean, methods.auc_sd, strict=True)],
        "s/epoch": [seconds(v) for v in methods.epoch_s],
    })  # fmt: skip
    note = (
        "Mean ± sample standard deviation over seeds; the interval is a 95 % interval of the mean accuracy for new "
        "seeds and new test images. Start: whether the network's body started from pretrained weights or from random "
        "ones (from scratch). Trained and total: parameters; the total counts adapter branches before they are merged "
        "(CoLoRA's merge into the original count). LR: learning rate. s/epoch: seconds of a training epoch, without "
        f"validation and the first epoch.{_resampled(results)}"
    )
    return Table("main", f"Test results: {results.label}", note, raw, text, left=3)


def _resampled(results: Results) -> str:
    """What intervals take as drawn at random, and the methods whose interval that alone would make wider."""
    counted = f" ({results.card['patients']:,} in all)" if results.card.get("patients") else ""
    if results.patients:
        text = f" Patients are drawn with all of their images{counted}, for the intervals of differences too."
    elif results.folds:
        several = f" (here {results.card['count']:,} images of {results.card['patients']:,})" if counted else ""
        text = (
            f" Images count as drawn independently, though a patient may have several{several}: intervals, those of "
            "differences too, are somewhat too narrow."
        )
    else:
        text = " The data name no patients: images count as drawn independently."
    if results.folds:
        text += " That folds share training images is not counted."
    lucky = results.methods.index[
        (results.methods.acc_hi - results.methods.acc_lo) / 2 < 1.96 * results.methods.acc_se_images
    ]
    if len(lucky):
        text += (
            " Seeds that agree by luck make the interval narrower than the test images alone would, 1.96 standard "
            f"errors each way, for {', '.join(lucky)}."
        )
    return text


def tuning(results: Results) -> Table:
    """Validation accuracy at every learning rate of the grid."""
    raw = results.tuning
    rates = sorted(raw.lr.unique())
    rows = []
    at_edge = []
    for method in [name for name in results.methods.index if name in set(raw.method)]:
        own = raw[raw.method == method].set_index("lr")
        runs = {}
        for rate in rates:
            shown = number(own.val_acc.get(rate, float("nan")), ".3f")
            runs[number(rate, "g")] = f"{shown} *" if own.chosen.get(rate, False) else shown
        rows.append({"Method": method, **runs})
        if len(rates) > 1 and own.chosen.get(rates[-1], False):
            at_edge.append(method)
    note = "Best validation accuracy of a short run at each learning rate, on one seed; * marks the rate chosen."
    if results.folds:
        note += (
            " With folds, images that this seed trained and validated on are test images of other seeds, so the rate "
            "was chosen with some sight of them."
        )
    if at_edge:
        note += f" At the largest rate tried, where a larger one might do better: {', '.join(at_edge)}."
    stated = [method for method, seeds in results.methods.seeds.items() if seeds and method not in set(raw.method)]
    if stated:
        note += f" A method whose rate is stated, not chosen, has no trials: {', '.join(stated)}."
    return Table("tuning", "Learning rates tried", note, raw, pd.DataFrame(rows))


def recall(results: Results) -> Table:
    """Share of each true class that is recognised."""
    table = results.confusion.assign(
        true=results.confusion["true"].astype(str), predicted=results.confusion.predicted.astype(str)
    )
    classes = list(dict.fromkeys(table["true"]))
    total = (
        table.groupby(["method", "true"])["count"].sum().unstack().reindex(index=results.methods.index, columns=classes)
    )
    hits = table[table["true"] == table.predicted].groupby(["method", "true"])["count"].sum().unstack()
    share = hits.reindex(index=results.methods.index, columns=classes) / total
    text = share.map(lambda v: number(v, ".3f")).rename_axis("Method", axis=0).rename_axis(None, axis=1).reset_index()
    raw = share.rename_axis("method", axis=0).rename_axis(None, axis=1).reset_index()
    return Table(
        "recall",
        f"Recall by class: {results.label}",
        "Share of a true class that is recognised, over all seeds.",
        raw if classes else raw.iloc[:0],
        text,
    )


def cost(results: Results) -> Table:
    """Training time, its range over seeds, and its multiple of full fine-tuning's; the forward pass's FLOPs."""
    runs = results.complete.groupby("method")
    epoch_s = runs.epoch_s.agg(["median", "min", "max"]).reindex(results.methods.index).astype(float)
    whole = epoch_s["median"].get(results.reference, float("nan"))
    raw = pd.DataFrame({
        "method": epoch_s.index, "epoch_s": epoch_s["median"], "epoch_s_min": epoch_s["min"],
        "epoch_s_max": epoch_s["max"], "epoch_relative": epoch_s["median"] / whole,
        "total_s": runs.total_s.median().reindex(results.methods.index), "flops": results.methods.flops,
    })  # fmt: skip
    text = pd.DataFrame({
        "Method": raw.method, "s/epoch": [seconds(v) for v in raw.epoch_s],
        "Lowest to highest seed": [DASH if pd.isna(lo) else f"{seconds(lo)} to {seconds(hi)}"
                                   for lo, hi in zip(raw.epoch_s_min, raw.epoch_s_max, strict=True)],
        f"Time × {results.reference or 'full'}": [number(v, ".2f") for v in raw.epoch_relative],
        "Run, s": [number(v, ",.0f") for v in raw.total_s],
    })  # fmt: skip
    note = f"Run: a whole run, with validation and test. {machines(results)} {SIDE_BY_SIDE}"
    if raw.flops.notna().any():
        text["FLOPs"] = [DASH if pd.isna(v) else scaled(v) for v in raw.flops]
        note = f"{FLOPS} {note}"
    return Table("cost", f"Cost of training, medians over seeds: {results.label}", note, raw, text)


def beside_paper(results: Results) -> Table:
    """Measured accuracy beside every figure of the paper for a method of the same name."""
    paper = counterparts(results)
    ours = results.methods.reindex(paper.method).reset_index(drop=True)
    raw = pd.DataFrame({
        "method": paper.method, "measured_backbone": ours.backbone, "measured_accuracy": ours.acc_mean,
        "measured_lo": ours.acc_lo,
        "measured_hi": ours.acc_hi, "measured_auc": ours.auc_mean, "paper_backbone": paper.backbone,
        "paper_dataset": paper.dataset, "paper_training_set": paper.training_set, "paper_accuracy": paper.accuracy,
        "paper_accuracy_sd": paper.accuracy_sd, "paper_auc": paper.auc, "source": paper.source,
    })  # fmt: skip
    text = pd.DataFrame({
        "Method": raw.method, "Paper's setting": [_setting(row) for row in paper.itertuples()],
        "Source": raw.source,
        "Paper's accuracy": [mean_sd(m, s, 3) for m, s in zip(raw.paper_accuracy, raw.paper_accuracy_sd, strict=True)],
        "Measured": [f"{number(m, '.3f')} {interval(lo, hi)}" if pd.notna(m) else DASH
                     for m, lo, hi in zip(raw.measured_accuracy, raw.measured_lo, raw.measured_hi, strict=True)],
        "Paper's AUC": [number(v, ".3f") for v in raw.paper_auc],
        "Measured AUC": [number(v, ".3f") for v in raw.measured_auc],
    })  # fmt: skip
    title = f"The paper's figures beside those measured here, with their 95 % interval (measured: {results.label})"
    note = comparability(results)
    if paper.source.str.contains("pointwise only").any():
        note += (
            " The paper calls its 0.933 that of a pointwise-only update; by its 0.91M trained parameters it is a "
            "depthwise-only one (910,084 on VGG16, where pointwise-only has 2,499,332), so it stands beside that method."
        )
    return Table("beside_paper", title, note, raw, text, left=3)


def _setting(figure) -> str:
    """A paper's backbone, data set, image size and training set, as far as they are stated."""
    size = "" if pd.isna(figure.image_size) else f" at {figure.image_size:.0f} px"
    images = "" if pd.isna(figure.training_set) else f", {figure.training_set}"
    return f"{figure.backbone}, {figure.dataset}{size}{images}"


def holes(results: Results) -> Table:
    """Runs without a result."""
    raw = results.holes[["method", "seed", "status", "failure"]]
    text = raw.fillna(DASH).astype(str).rename(columns=str.capitalize)
    note = "The figures of these methods come from the seeds that remain."
    return Table("holes", f"Runs without a result (profile {results.profile})", note, raw, text, left=4)


def comparability(results: Results) -> str:
    """What separates the measured figures from the paper's."""
    known = set(results.paper.dataset)
    methods = results.methods[results.methods.index.isin(counterparts(results).method)]
    backbones = sorted({str(b) for b in methods.backbone[methods.group == "CNN"].dropna()} - {"vgg16"})
    quoted = methods.index[~methods.group.isin(["CNN", "ViT"])]
    foreign = f" The figures for {', '.join(quoted)} come from other papers" if len(quoted) else ""
    foreign += ": resolution, training set and protocol may differ." if foreign else ""
    if results.dataset in known and not backbones:
        return f"Same data set and backbone; training details differ where the settings in the run records do.{foreign}"
    parts = [] if results.dataset in known else ["on other data than OCTMNIST"]
    parts += [f"with {', '.join(backbones)} where the paper mostly has vgg16"] if backbones else []
    return (
        f"The measured figures are {' and '.join(parts)}: the order of the methods may be compared, the values may not."
        + foreign
    )


def start(weights) -> str | None:
    """Where a method's body started; None where no run says it."""
    if pd.isna(weights):
        return None
    return "from scratch" if weights == "random" else "pretrained"


def machines(results: Results) -> str:
    """On what the times were taken, with a warning where that is more than one kind of machine."""
    runs = results.complete
    names = sorted(
        {
            f"{row.gpu}" if pd.notna(row.gpu) else f"{row.cpu}, {row.threads:.0f} thread{'s' * (row.threads != 1)}"
            for row in runs.itertuples()
            if pd.notna(row.gpu) or pd.notna(row.threads)
        }
    )
    if len(names) > 1:
        return f"Taken on different machines ({'; '.join(names)}): times are comparable within one of them only."
    return f"Taken on: {names[0]}." if names else "The machine was not recorded."
