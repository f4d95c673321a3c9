"""Where the numbers come from: the data, the weights, versions and machines, and every run with its record."""

import re

import pandas as pd

from pipelines.files.markdown import code
from report.reading import Results
from report.text import DASH, Table, markdown, plural, span

_FACTS = {
    "weights": "Weights", "commit": "Commit", "dirty": "Uncommitted changes", "python": "Python", "torch": "torch",
    "torchvision": "torchvision", "cuda": "CUDA", "gpu": "GPU", "driver": "Driver", "cpu": "CPU", "threads": "Threads",
    "platform": "Platform",
}  # fmt: skip


def about(results: Results) -> str:
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
    if results.source == "folder" and len(results.paper):
        return (
            f"Data: a folder of images, {results.splitting}, {sizes}. **This is a small-data problem "
            f"({train} training images), not OCTMNIST** (97,477): its figures are not to be set against published "
            "OCTMNIST results."
        )
    if results.source == "unknown":
        return f"Data: {sizes}. No data card was found; run `python -m pipelines.prepare`."
    named = results.source in ("medmnist", "torchvision")
    return f"Data: {f'{results.dataset} of {results.source}' if named else 'own images'}, {sizes}."


def _weights(results: Results) -> str:
    """The pretrained weights by name, where methods differ with the methods of all but the commonest; who had none."""
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
        who = ", ".join(scratch) if named else "every method"
        sentences.append(f"Trained from scratch, with random initial weights: {who}.")
    return " ".join(sentences)


def data_card(results: Results) -> str:
    """data/card.md, its headings lowered to fit below a page's, its links turned to where it lies; "" without one."""
    path = results.directory / "data" / "card.md"
    if not path.is_file():
        return ""
    card = path.read_text(encoding="utf-8").strip()
    card = re.sub(r"^# .*\n+", "", card)
    card = re.sub(r"^(#+) ", r"##\1 ", card, flags=re.MULTILINE)
    return re.sub(r"\]\((?![a-z]+:|#)", f"](../../results/{results.profile}/data/", card)


def provenance(results: Results) -> str:
    """Weights, versions, machines, commits and dates of the runs, each with the number of its runs, in Markdown."""
    runs = results.complete
    runs = runs.assign(weights=runs.weights + (" (sha256 " + runs.weights_sha256.str[:12] + ")").fillna(""))
    rows = []
    for column, name in _FACTS.items():
        if runs[column].isna().all():
            continue
        counts = runs[column].astype(object).fillna("none").map(_short).value_counts().sort_index()
        shown = [f"{value} ({plural(n, 'run')})" for value, n in counts.items()] if len(counts) > 1 else counts.index
        rows.append({"What": name, "Value": "; ".join(shown)})
    dates = sorted(runs["date"].dropna().astype(str).str[:10])
    if dates:
        rows.append({"What": "Run", "Value": dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"})
    records = f"results/{results.profile}/runs/METHOD/SEED/record.json"
    rows.append({"What": "Runs", "Value": f"{len(runs)} complete of {len(results.runs)}; records in {records}"})
    text = pd.DataFrame(rows)
    return markdown(Table("provenance", "", "", text, text, left=2)).rstrip()


def _short(value) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = {"True": "yes", "False": "no"}.get(str(value), str(value))
    return text[:12] if re.fullmatch(r"[0-9a-f]{40}", text) else text


def records(results: Results) -> Table:
    """A row a run, holes included, with its record's path."""
    runs = results.runs
    paths = f"results/{results.profile}/runs/" + runs.method + "/" + runs.seed.astype(str) + "/record.json"

    def words(name, change=str):
        return [DASH if pd.isna(value) else change(value) for value in runs[name]]

    threads = words("threads", lambda v: plural(int(v), "thread"))
    machine = runs.gpu.fillna(runs.cpu + ", " + threads).fillna(DASH)
    commits = runs.commit.str[:12].fillna(DASH) + runs.dirty.eq("True").map({True: " + changes", False: ""})
    software = [
        ", ".join(f"{name} {value}" for name, value in zip(("Python", "torch", "CUDA"), row) if value != DASH) or DASH
        for row in zip(words("python"), words("torch"), words("cuda"), strict=True)
    ]
    text = pd.DataFrame({
        "Method": runs.method, "Seed": runs.seed.astype(str), "State": runs.status,
        "Accuracy": words("test_acc", lambda v: f"{v:.4f}"), "AUC": words("test_auc", lambda v: f"{v:.4f}"),
        "Epoch kept": words("best_epoch", lambda v: f"{v:.0f}"), "LR": words("lr", lambda v: f"{v:g}"),
        "Weights (sha256)": words("weights_sha256", lambda v: v[:12]), "Commit": commits, "Machine": machine,
        "Software": software, "Run": words("date", lambda v: v[:10]), "Why missing": words("failure"), "Record": paths,
    })  # fmt: skip
    note = (
        "Every figure of a method on this page is computed from its rows here. A record states the run's settings, its "
        "fingerprint, timings and environment; curves.csv and predictions.npz lie beside it. The commit is the code's."
    )
    return Table("records", f"Runs: profile {results.profile}", note, runs.assign(record=paths), text)
