"""The report's page: what was found in sentences, tables and figures, the data card, where it all came from."""

import re

import pandas as pd

from pipelines.files.markdown import code, plain
from report import claims, comparisons, cost, cost_shares, gradcam, label_efficiency, ranks, robustness, tables
from report.results import Results, counterparts, span
from report.tables import Table

SIDE_BY_SIDE = "Methods within 1 % of one another are drawn side by side."
CAPTIONS = {
    "accuracy": "Every seed is a dot. The dashed line is the mean of full fine-tuning. Behind a name, (4/5) means "
                "that four of five seeds have a result.",
    "label_efficiency": label_efficiency.CAPTION,
    "critical_difference": "{ranks}{whole}",
    "parameters": f"Trained parameters include the head. {SIDE_BY_SIDE}{{whole}}",
    "flops": f"{tables.FLOPS} {SIDE_BY_SIDE}{{whole}}",
    "learning_curves": "The epoch kept for the test is the one with the highest validation accuracy, seed by seed. The "
                       "lowest first epochs may lie below the panels.",
    "stability": "The table below defines the measures. Intervals are over seeds alone; with two seeds most are too "
                 "wide for any comparison, and some short by accident. Undefined: too few seeds or epochs. No bar: a "
                 "single seed, or all seeds alike.",
    "reliability": "A network whose probabilities can be believed lies on the line. Predictions of all seeds are "
                   "pooled, so that an image which several seeds are tested on counts once for each. ECE: mean over "
                   "seeds of the expected calibration error; chance: the ECE that a perfectly calibrated network would "
                   "show on as many images. Hollow dots stand for too few predictions to mean much.",
    "cost_ratios": "{cost}",
    "cost_shares": cost_shares.CAPTION,
    "cost_growth": "{growth}",
    "cost": "An epoch's time is the median over its seed's epochs after the first, training only. {machines} "
            + tables.SIDE_BY_SIDE,
    "confusion": "Rows are true classes and sum to 100 %, up to rounding.{abbreviations}",
    "robustness": "{robustness}",
    "gradcam": "{gradcam}",
    "beside_paper": "{comparability}",
}  # fmt: skip
TITLES = {
    "claims": "Claims of the paper",
    "audit": "The paper's own figures",
    "accuracy": "Accuracy and AUC",
    "label_efficiency": "Label efficiency",
    "critical_difference": "Ranks",
    "parameters": "Accuracy and trained parameters",
    "flops": "Accuracy and forward FLOPs",
    "learning_curves": "Learning curves",
    "stability": "Stability of training",
    "cost_ratios": "Cost side by side",
    "cost_shares": "Where the time of a step goes",
    "cost_growth": "How cost grows",
    "layer_costs": "Selective scan and KAN layers",
    "cost": "Cost of training",
    "tuning": "Learning rates",
    "confusion": "Confusion matrices",
    "scores": "More than accuracy",
    "reliability": "Calibration",
    "robustness": "Robustness to corrupted images",
    "gradcam": "Where networks looked",
    "beside_paper": "Beside the paper",
}  # fmt: skip
BELOW = {
    "claims": ["claims"],
    "audit": ["audit"],
    "accuracy": ["main", "comparisons"],
    "label_efficiency": ["label_accuracy", "label_needs"],
    "cost_ratios": ["side_by_side"],
    "layer_costs": ["layer_costs"],
    "cost": ["cost"],
    "tuning": ["tuning"],
    "stability": ["stability"],
    "scores": ["scores"],
    "robustness": ["robustness"],
    "confusion": ["recall"],
    "beside_paper": ["beside_paper"],
}


def render(results: Results, written: dict[str, Table], drawn: list[str]) -> str:
    """The whole page in Markdown; tables and figures are those that exist."""
    parts = [f"# Report: profile `{results.profile}`", about_data(results), *findings(results)]
    if "holes" in written:
        parts.append(
            f"**{len(results.holes)} of {len(results.runs)} runs have no result** "
            f"([list](#runs-without-a-result)); tables and figures show where."
        )
    for name in TITLES:
        below = [t for t in BELOW.get(name, []) if t in written]
        if name not in drawn and not below:
            continue
        parts.append(f"## {TITLES[name]}")
        if name == "claims":
            parts.append(claims.tally(results))
        if name in drawn:
            files = _files("figures", name, "svg", "pdf")
            parts += [f"![{TITLES[name]}](figures/{name}.png)", f"*{plain(caption(results, name))}* ({files})"]
        for table in below:
            parts += [
                tables.markdown(written[table]).rstrip(),
                f"{written[table].note} ({_files('tables', table, 'csv', 'tex')})",
            ]
        if name == "scores" and "class_scores" in written:
            parts.append(f"Class by class: {_files('tables', 'class_scores', 'md', 'csv', 'tex')}.")
    if "holes" in written:
        parts += ["## Runs without a result", tables.markdown(written["holes"]).rstrip(), written["holes"].note]
    parts += data_card(results)
    parts += ["## Provenance", provenance(results)]
    return "\n\n".join(parts) + "\n"


def about_data(results: Results) -> str:
    """Whose images these are, what may be concluded from them, and the weights that training started from."""
    return f"{_data(results)} {_weights(results)}".rstrip()


def _data(results: Results) -> str:
    train, val, test = (span(results.complete[f"n_{split}"]) for split in ("train", "val", "test"))
    sizes = f"{train} training, {val} validation and {test} test images a seed"
    if results.source == "phantom":
        return (
            f"Data: synthetic phantom scans, {sizes}. They exercise the whole pipeline in minutes; results on them say "
            "nothing about real OCT images."
        )
    if results.source == "folder":
        return (
            f"Data: a folder of images split into patient-grouped folds, {sizes}. **This is a small-data problem "
            f"({train} training images), not OCTMNIST** (97,477): its figures are not to be set against published "
            "OCTMNIST results."
        )
    if results.source == "medmnist":
        return f"Data: {results.dataset} of MedMNIST, {sizes}."
    return (
        f"Data: {sizes}. No data card was found, so their source is not stated here; run `python -m pipelines.prepare`."
    )


def _weights(results: Results) -> str:
    """The pretrained weights by name, where methods differ with the methods of all but the most common; who had none."""
    started = results.complete.drop_duplicates("method").dropna(subset="weights").set_index("method").weights
    started = started.reindex([method for method in results.methods.index if method in started.index])
    scratch = started.index[started == "random"]
    pretrained = started[started != "random"]
    methods = pretrained.groupby(pretrained).groups
    named = [code(name) for name in methods]
    if len(methods) > 1:
        most = max(methods, key=lambda name: len(methods[name]))
        named = [code(most)] + [f"{code(name)} ({', '.join(own)})" for name, own in methods.items() if name != most]
    sentences = [f"Weights: {', '.join(named)}."] if named else []
    if len(scratch):
        who = "every method" if not named else ", ".join(scratch)
        sentences.append(f"Trained from scratch, with random initial weights: {who}.")
    return " ".join(sentences)


def findings(results: Results) -> list[str]:
    """The comparison in sentences, computed."""
    methods = results.methods[results.methods.seeds > 0]
    if methods.empty:
        return ["No method has a result yet."]
    best = methods.acc_mean.idxmax()
    first = (
        f"{len(results.methods)} methods, {span(results.methods.planned)} seeds each. The highest mean test accuracy is "
        f"{methods.acc_mean[best]:.3f} {tables.interval(methods.acc_lo[best], methods.acc_hi[best])} (`{best}`)."
    )
    lines = [first]
    chosen = chosen_colora(results)
    if chosen:
        row = methods.loc[chosen]
        text = (
            f"The CoLoRA method with the best validation accuracy on {row.backbone}, `{chosen}`, trains "
            f"{100 * row.trainable / row.total:.1f} % of its {row.total:,.0f} parameters and reaches "
            f"{row.acc_mean:.3f} {tables.interval(row.acc_lo, row.acc_hi)} on the test images."
        )
        pairs = results.comparisons[(results.comparisons.method == chosen) & results.comparisons.difference.notna()]
        text += "".join(f" {comparisons.sentence(pair)}" for pair in pairs.itertuples())
        lines.append(text)
    lines += comparisons.tally(results)
    lines += label_efficiency.finding(results)
    if (results.methods.planned < 5).any():
        lines.append(
            f"With {span(results.methods.planned)} seeds little is known of how much seeds differ. Intervals count that "
            "and are wide: what is undecided here is not shown to be equal."
        )
    return ["\n".join(f"- {line}" for line in lines)]


def chosen_colora(results: Results) -> str | None:
    """The CoLoRA method with the best mean validation accuracy, of those on the first one's backbone.

    Choosing it on the test images would flatter it, and what it is compared with is on one backbone too.
    """
    methods = results.whole[results.whole.family == "colora"]
    methods = methods[methods.backbone == methods.backbone.iloc[0]] if len(methods) else methods
    runs = results.complete[results.complete.method.isin(methods.index)]
    # Rounded, so that `pipelines.comparisons`, which adds in another order, picks the same of two that tie.
    return runs.groupby("method", sort=False).val_acc.mean().round(9).idxmax() if len(runs) else None


def data_card(results: Results) -> list[str]:
    """data/card.md, its headings lowered to fit below this page's, its links turned to where it lies."""
    path = results.directory / "data" / "card.md"
    if not path.is_file():
        return []
    card = path.read_text(encoding="utf-8").strip()
    card = re.sub(r"^# .*\n+", "", card)
    card = re.sub(r"^(#+) ", r"#\1 ", card, flags=re.MULTILINE)
    card = re.sub(r"\]\((?![a-z]+:|#)", f"](../../results/{results.profile}/data/", card)
    return ["## Data card", card]


def provenance(results: Results) -> str:
    """Weights, versions, machines, commits and dates of the runs, each with how many runs it stands for."""
    runs = results.complete
    hashes = runs.weights_sha256.map(lambda sha: "" if pd.isna(sha) else f" (sha256 {sha[:12]})")
    runs = runs.assign(weights=runs.weights.mask(runs.weights.notna(), runs.weights.astype(str) + hashes))
    rows = []
    for column, name in (
        ("weights", "Weights"),
        ("commit", "Commit"),
        ("dirty", "Uncommitted changes"),
        ("python", "Python"),
        ("torch", "torch"),
        ("torchvision", "torchvision"),
        ("cuda", "CUDA"),
        ("gpu", "GPU"),
        ("driver", "Driver"),
        ("cpu", "CPU"),
        ("threads", "Threads"),
        ("platform", "Platform"),
    ):
        if column not in runs or runs[column].isna().all():
            continue
        counts = runs[column].astype(object).where(runs[column].notna(), "none").map(_short).value_counts(sort=False)
        shown = [
            value if len(counts) == 1 else f"{value} ({n} run{'s' * (n != 1)})" for value, n in sorted(counts.items())
        ]
        rows.append({"What": name, "Value": "; ".join(shown)})
    dates = sorted(runs["date"].dropna().astype(str).str[:10]) if "date" in runs else []
    if dates:
        rows.append({"What": "Run", "Value": dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"})
    rows.append(
        {
            "What": "Runs",
            "Value": f"{len(runs)} complete of {len(results.runs)}; records in "
            f"results/{results.profile}/runs/METHOD/SEED/record.json",
        }
    )
    text = pd.DataFrame(rows)
    return tables.markdown(Table("provenance", "", "", text, text, left=2)).rstrip()


def _short(value) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = {"True": "yes", "False": "no"}.get(str(value), str(value))
    return text[:12] if re.fullmatch(r"[0-9a-f]{40}", text) else text


def caption(results: Results, name: str) -> str:
    """How to read a figure, as plain text."""
    from report.layout import abbreviated

    classes = dict.fromkeys(results.confusion["true"].astype(str))
    short = [f"{abbreviated(c)} {c}" for c in classes if abbreviated(c) != c]
    return CAPTIONS[name].format(
        machines=tables.machines(results),
        ranks=ranks.caption(results),
        cost=cost.caption(results),
        growth=cost.growth_caption(results),
        robustness=robustness.caption(results),
        gradcam=gradcam.caption(results),
        whole=label_efficiency.only_largest(results),
        comparability=tables.comparability(results) if len(counterparts(results)) else "",
        abbreviations=f" Abbreviated: {', '.join(short)}." if short else "",
    )


def _files(folder: str, name: str, *suffixes: str) -> str:
    return ", ".join(f"[{suffix.upper()}]({folder}/{name}.{suffix})" for suffix in suffixes)
