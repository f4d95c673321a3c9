"""A model card for every method whose trained weights are on disk: what the networks are, how they did, what not to do.

The headings are those of Mitchell et al., "Model Cards for Model Reporting", arXiv:1810.03993.
"""

from pathlib import Path

import pandas as pd

from pipelines.files.markdown import code, plain
from report.pages import origin
from report.reading import Results
from report.text import Table, gap, interval, markdown, number

ETHICS = (
    "Research only. A network trained here has not been examined for bias between groups of patients: the data say "
    "nothing of age, sex, ethnicity, device or clinic."
)


def write_all(results: Results, models: Path, out: Path) -> list[Path]:
    """Write out/<method>.md for every method with a result and weights in models/<method>/<seed>/; returns them."""
    written = []
    for method in results.methods.index[results.methods.seeds > 0]:
        weights = sorted((models / method).glob("*/*.safetensors"))
        if weights:
            out.mkdir(parents=True, exist_ok=True)
            written.append(out / f"{method}.md")
            written[-1].write_text(render(results, method, weights), encoding="utf-8")
    return written


def render(results: Results, method: str, weights: list[Path]) -> str:
    """The card in Markdown of one method, whose trained networks lie in `weights`."""
    row = results.methods.loc[method]
    runs = results.complete[results.complete.method == method]
    use = f"Research on images like those it was trained on: `python -m pipelines.predict --method {method}`."
    caveats = [f"{row.seeds} seeds say little about how much networks differ."] if row.seeds < 5 else []
    caveats.append("Probabilities are not calibrated beyond what the report's calibration figure shows.")
    if results.source == "phantom":
        use = "It is trained on synthetic phantom scans: it shows that the pipeline works and is of no other use."
        caveats.insert(0, "Phantom scans are no OCT images.")
    sections = {
        "Model details": _details(results, method, runs, weights),
        "Intended use": f"{use} Not for diagnosis, triage or any decision about a patient.",
        "Factors": f"Classes: {', '.join(map(plain, _classes(results)))}. Nothing else about an image is known to the "
        "results, so performance is not broken down by device, image quality or patient group.",
        "Metrics": "Accuracy and macro AUC on test images, after the epoch was chosen on validation images; recall, "
        "precision and specificity of each class. Intervals are 95 % intervals of the mean over seeds, for "
        f"{results.drawn_anew}.",
        "Training and evaluation data": f"{origin.about(results)} Data card: results/{results.profile}/data/card.md.",
        "Quantitative analyses": _analyses(results, method, row),
        "Ethical considerations": ETHICS,
        "Caveats and recommendations": " ".join(caveats),
    }
    parts = [f"# Model card: {code(method)}, profile {code(results.profile)}"]
    for title, text in sections.items():
        parts += [f"## {title}", text]
    return "\n\n".join(parts) + "\n"


def _details(results: Results, method: str, runs: pd.DataFrame, weights: list[Path]) -> str:
    row = results.methods.loc[method]
    start = ", ".join(code(name) for name in runs.weights.dropna().unique()) or "not recorded"
    commits = ", ".join(code(c[:12]) for c in runs.commit.dropna().unique())
    dates = sorted(runs.date.dropna().str[:10])
    when = f" Trained {dates[0]} to {dates[-1]}" if dates else ""
    if when:
        when += f" by the code of commit {commits}." if commits else "."
    files = "\n".join(f"- {code(file)} ({file.stat().st_size / 1e6:.1f} MB)" for file in weights)
    return (
        f"A {plain(row.backbone)} classifier of {len(_classes(results))} classes, of family {code(row.family)}: "
        f"{row.trainable:,.0f} of {row.total:,.0f} parameters train. Starting weights: {start}.{when} Code under the "
        "MIT licence; the starting weights keep their own. The networks, each with a JSON file that states classes, "
        f"input size and normalisation:\n\n{files}"
    )


def _analyses(results: Results, method: str, row: pd.Series) -> str:
    lines = [
        f"Test accuracy {row.acc_mean:.3f} {interval(row.acc_lo, row.acc_hi)}, AUC {row.auc_mean:.4f} "
        f"{interval(row.auc_lo, row.auc_hi)}, {row.seeds} seeds."
    ]
    rows = results.contrasts[(results.contrasts.method == method) & (results.contrasts.metric == "accuracy")]
    lines += [
        f"Minus {code(own.against)} on {plain(own.data)} data: {gap(own)} (more accurate: {own.higher}"
        + (f"; it was {unlike})." if (unlike := results.unlike(method, own.against)) else ").")
        for own in rows.dropna(subset="difference").itertuples()
    ]
    text = "\n".join(f"- {line}" for line in lines)
    scores = results.class_scores[results.class_scores.method == method]
    if len(scores):
        by_class = scores.groupby("class", sort=False)[["recall", "precision", "specificity"]]
        means = by_class.agg(lambda own: own.mean(skipna=False))
        shown = means.map(lambda v: number(v, ".3f")).reset_index().rename(columns=str.capitalize)
        text += f"\n\n{markdown(Table('classes', '', '', means, shown))}\nMeans over seeds."
    return text


def _classes(results: Results) -> list[str]:
    return list(dict.fromkeys(results.confusion["true"].astype(str)))
