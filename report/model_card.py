"""report/<profile>/MODEL_CARD.md: what the CoLoRA method is, what it was tested on, and what it must not be used for.

The headings are those of Mitchell et al., "Model Cards for Model Reporting", arXiv:1810.03993.
"""

from pathlib import Path

import pandas as pd

from report import comparisons, page, tables
from report.results import Results, span

METRICS = (
    "Accuracy and macro AUC on test images, after the epoch was chosen on validation images; recall, precision and "
    "specificity of each class. Intervals are 95 % intervals of the mean, for new seeds and new test {units}."
)
ETHICS = (
    "Research only. A network trained here has not been examined for bias between groups of patients: the data say "
    "nothing of age, sex, ethnicity, device or clinic."
)


def write(results: Results, out: Path) -> None:
    """Write the card to a report's folder; without a CoLoRA method none is left there."""
    text = render(results)
    if text is None:
        (out / "MODEL_CARD.md").unlink(missing_ok=True)
    else:
        (out / "MODEL_CARD.md").write_text(text, encoding="utf-8")


def render(results: Results) -> str | None:
    """The card in Markdown of the CoLoRA method chosen on validation images; None where there is no such method."""
    method = page.chosen_colora(results)
    if method is None:
        return None
    row = results.methods.loc[method]
    runs = results.complete[results.complete.method == method]
    card = f"`results/{results.profile}/data/card.md`, also in [the report](README.md#data-card)"
    sections = {
        "Model details": _details(results, method, row, runs),
        "Intended use": _use(results),
        "Factors": _factors(results),
        "Metrics": METRICS.format(units="patients" if results.patients else "images"),
        "Training and evaluation data": f"{page.about_data(results)} Data card: {card}.",
        "Quantitative analyses": _analyses(results, method, row),
        "Ethical considerations": ETHICS,
        "Caveats and recommendations": _caveats(results, row),
    }
    parts = [f"# Model card: `{_code(method)}`, profile `{results.profile}`"]
    for title, text in sections.items():
        parts += [f"## {title}", text]
    return "\n\n".join(parts) + "\n"


def _details(results, method, row, runs) -> str:
    weights = ", ".join(f"`{_code(name)}`" for name in runs.weights.dropna().unique()) or "not recorded"
    dates = sorted(runs["date"].dropna().astype(str).str[:10]) if "date" in runs else []
    commits = ", ".join(f"`{str(c)[:12]}`" for c in runs.commit.dropna().unique()) if "commit" in runs else ""
    commits = f", by the code of commit {commits}" if commits else ""
    when = f", trained {dates[0]}" + (f" to {dates[-1]}" if dates[0] != dates[-1] else "") if dates else ""
    return (
        f"A {row.backbone} classifier of {len(classes(results))} classes, adapted by CoLoRA (arXiv:2505.18315): frozen "
        f"convolutions with trained depthwise(pointwise(x)) branches that merge into their kernels. "
        f"{row.trainable:,.0f} of {row.total:,.0f} parameters train. Starting weights: {weights}. "
        f"{span(results.methods.seeds[[method]])} networks, one a seed{when}{commits}. Weights of the trained networks are "
        f"not kept; `python -m pipelines.train --method {_code(method)}` makes them anew. Code under the MIT licence; the "
        "starting weights keep their own."
    )


def _use(results) -> str:
    what = (
        "It is trained on synthetic phantom scans: it shows that the pipeline works and is of no other use."
        if results.source == "phantom"
        else "To compare ways of adapting a pretrained network, by researchers."
    )
    return f"{what} Not for diagnosis, triage or any decision about a patient."


def _factors(results) -> str:
    return (
        f"Classes: {', '.join(_code(name) for name in classes(results))}. Nothing else about a scan is known to the "
        "results, so performance is not broken down by device, image quality or patient group."
    )


def _analyses(results, method, row) -> str:
    lines = [
        f"Test accuracy {row.acc_mean:.3f} {tables.interval(row.acc_lo, row.acc_hi)}, AUC {row.auc_mean:.4f} "
        f"{tables.interval(row.auc_lo, row.auc_hi)}, {row.seeds:.0f} seeds."
    ]
    pairs = results.comparisons[(results.comparisons.method == method) & results.comparisons.difference.notna()]
    lines += [comparisons.sentence(pair) for pair in pairs.itertuples()]
    path = results.directory / "class_scores.csv"
    text = " ".join(lines)
    if path.is_file():
        scores = pd.read_csv(path, dtype={"method": str, "class": str})
        own = (
            scores[scores.method == method].groupby("class", sort=False)[["recall", "precision", "specificity"]].mean()
        )
        shown = own.map(lambda v: tables.number(v, ".3f")).reset_index().rename(columns=str.capitalize)
        text += "\n\n" + tables.markdown(tables.Table("classes", "", "", own, shown)).rstrip() + "\n\nMeans over seeds."
    return text


def _caveats(results, row) -> str:
    caveats = {
        "folder": f"{span(results.complete.n_train)} training images are few, all from one published collection.",
        "phantom": "Phantom scans are no OCT images.",
    }.get(results.source, "")
    seeds = "" if row.seeds >= 5 else f" {row.seeds:.0f} seeds say little about how much networks differ."
    return (
        f"{caveats}{seeds} Probabilities are not calibrated beyond what the report's calibration figure shows. The "
        "claims ledger in [the report](README.md) says which of the paper's statements hold on these data."
    ).strip()


def classes(results: Results) -> list[str]:
    return list(dict.fromkeys(results.confusion["true"].astype(str)))


def _code(text) -> str:
    """Text from data where Markdown would read it: no backtick, no line break, no HTML."""
    return str(text).translate(str.maketrans({"`": "'", "\n": " ", "<": "&lt;", ">": "&gt;", "|": "\\|"}))
