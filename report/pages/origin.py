"""Where the numbers come from: the data, the weights, versions and machines, and every run with its record."""

import re

import pandas as pd

from pipelines.files.markdown import code
from report.reading import Results
from report.text import DASH, Table, markdown, span

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
    if results.source in ("medmnist", "torchvision"):
        return f"Data: {results.dataset} of {results.source}, {sizes}."
    if results.source == "unknown":
        return f"Data: {sizes}. No data card was found; run `python -m pipelines.prepare`."
    return f"Data: own images, {sizes}."


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
        who = "every method" if not named else ", ".join(scratch)
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
    hashes = runs.weights_sha256.map(lambda sha: "" if pd.isna(sha) else f" (sha256 {sha[:12]})")
    runs = runs.assign(weights=runs.weights.mask(runs.weights.notna(), runs.weights.astype(str) + hashes))
    rows = []
    for column, name in _FACTS.items():
        if runs[column].isna().all():
            continue
        counts = runs[column].astype(object).where(runs[column].notna(), "none").map(_short).value_counts(sort=False)
        shown = [
            value if len(counts) == 1 else f"{value} ({n} run{'s' * (n != 1)})" for value, n in sorted(counts.items())
        ]
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
    paths = [f"results/{results.profile}/runs/{row.method}/{row.seed}/record.json" for row in runs.itertuples()]

    def words(name, change=str):
        return [DASH if pd.isna(value) else change(value) for value in runs[name]]

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
        "Software": software, "Run": words("date", lambda v: v[:10]), "Why missing": words("failure"), "Record": paths,
    })  # fmt: skip
    note = (
        "Every figure of a method on this page is computed from its rows here. A record states the run's settings, its "
        "fingerprint, timings and environment; curves.csv and predictions.npz lie beside it. The commit is the code's."
    )
    return Table("records", f"Runs: profile {results.profile}", note, runs.assign(record=paths), text)
