"""What `summarise`, `cost`, `explain` and `prepare` left for a profile: read once, checked, in typed frames."""

import json
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from pipelines.evidence import schemas
from report import drawing
from report.reading.explained import Explained, read_explained, read_scans
from report.reading.problems import ReportError
from report.text import span

PAPER = Path(__file__).parents[1] / "claims" / "paper.csv"
PAPER_COLUMNS = ["method", "backbone", "dataset", "training_set", "accuracy", "source"]
NEEDED = ("runs", "curves", "confusion", "tuning")  # of what summarise writes; without the others sections are left out
LARGEST = 2**28  # bytes of a file
_SUMMARY = [
    "acc_mean", "acc_sd", "acc_lo", "acc_hi", "auc_mean", "auc_sd", "auc_lo", "auc_hi", "trainable", "total",
    "epoch_s", "best_epoch_mean", "lr", "seeds",
]  # fmt: skip


@dataclass(frozen=True)
class Results:
    """The frames of one profile.

    methods: one row a method (index: its name),
    in the profile's order. The columns of summary.json with family, backbone,
        weights, planned (seeds asked for), share (of the labels that it is trained on), group, kind and color
        (as drawing.looks), ink (for text), and shown: the name, with '(4/5)'
        behind it where only four of five seeds are there. A method without a run has NaN.
    explained: what explain.npz holds; None where there is none.
    scans: pixels of the images of hard_scans by their numbers; empty where hard_scans.npz is not there.
    card: the data card, empty where there is none.
    paper: figures of the CoLoRA paper and of those it quotes.
    All else: the CSV files of the same names, with the columns of `pipelines.evidence.schemas`; no rows where the file
    is not there. `runs` holds the holes too.
    """

    profile: str
    directory: Path
    methods: pd.DataFrame
    card: dict
    paper: pd.DataFrame
    explained: Explained | None
    scans: dict
    runs: pd.DataFrame
    curves: pd.DataFrame
    confusion: pd.DataFrame
    tuning: pd.DataFrame
    contrasts: pd.DataFrame
    pairs: pd.DataFrame
    external: pd.DataFrame
    scores: pd.DataFrame
    class_scores: pd.DataFrame
    clinical: pd.DataFrame
    roc: pd.DataFrame
    reliability: pd.DataFrame
    stability: pd.DataFrame
    robustness: pd.DataFrame
    robustness_pairs: pd.DataFrame
    labels: pd.DataFrame
    hard_scans: pd.DataFrame
    cost: pd.DataFrame
    cost_growth: pd.DataFrame
    cost_layers: pd.DataFrame

    @property
    def complete(self) -> pd.DataFrame:
        return self.runs[self.runs.status == "complete"]

    @property
    def holes(self) -> pd.DataFrame:
        return self.runs[self.runs.status != "complete"]

    @property
    def whole(self) -> pd.DataFrame:
        """The methods of the largest share of the labels that was run; all, where there is one share."""
        run = self.methods.share[self.methods.seeds > 0]
        return self.methods[self.methods.share == (run if len(run) else self.methods.share).max()]

    @property
    def reference(self) -> str | None:
        """The first fully fine-tuned method that has a run, on all of the labels: what costs are related to."""
        found = self.whole[(self.whole.family == "full") & (self.whole.seeds > 0)]
        return found.index[0] if len(found) else None

    @property
    def learnt(self) -> list[str]:
        """The methods whose mean training accuracy is nearer to the best one's than to chance, for findings."""
        reached = self.complete.groupby("method").train_acc.mean().reindex(self.methods.index)
        chance = 1 / max(self.confusion["true"].nunique(), 1)
        unknown = reached.isna() & (self.methods.seeds > 0)
        return list(reached.index[unknown | (reached >= (chance + reached.max()) / 2)])

    @property
    def never_named(self) -> dict[str, list[str]]:
        """By method, the classes that it names for no test image in any run."""
        counts = self.confusion.groupby(["method", "predicted"], sort=False)["count"].sum()
        never = counts[counts == 0].reset_index()
        return {method: list(own.predicted) for method, own in never.groupby("method", sort=False)}

    @property
    def declared(self) -> list[str]:
        """The declared method and its comparators, in the order of claims.yaml; empty where the profile has no such
        method, as it is then about something else.
        """
        rows = self.contrasts[(self.contrasts.data == "test") & (self.contrasts.metric == "accuracy")]
        rows = rows[rows.method.isin(self.whole.index)]
        return [name for name in dict.fromkeys([*rows.method[:1], *rows.against]) if name in self.methods.index]

    @property
    def declared_contrasts(self) -> pd.DataFrame:
        """The declared accuracy contrasts on the profile's own test images, at the smallest share of the labels that
        was run: that of a profile of several shares is what it is about.
        """
        own = self.contrasts[(self.contrasts.data == "test") & (self.contrasts.metric == "accuracy")]
        run = own.share[own.difference.notna()]
        return own[own.share == (run if len(run) else own.share).min()].reset_index(drop=True)

    def leading(self, count: int = 6) -> list[str]:
        """Methods that stand for all where only `count` can be shown: the declared ones that have a run, one of every
        kind first; without any declared, the first of every kind.
        """
        found = self.whole[self.whole.seeds > 0]
        declared = found.loc[[name for name in self.declared if name in found.index]]
        ordered = declared if len(declared) else found
        return list(dict.fromkeys([*ordered.drop_duplicates("kind").index, *ordered.index]))[:count]

    def varied(self, count: int, among: Collection[str]) -> list[str]:
        """At most `count` methods for figures of a panel each, in the profile's order: the leading ones, one of every
        other kind, then whoever comes first; only those in `among`.
        """
        ordered = [*self.leading(count), *self.whole.drop_duplicates("kind").index, *self.whole.index]
        names = [name for name in dict.fromkeys(ordered) if name in among][:count]
        return [name for name in self.methods.index if name in names]

    @property
    def source(self) -> str:
        """The kind of data source: 'phantom', 'folder', 'medmnist', ...; 'unknown' without a data card."""
        return str(self.card.get("settings", {}).get("source", "unknown"))

    @property
    def dataset(self) -> str:
        """The data's short name: of MedMNIST or torchvision their own, in small letters; else the kind of source."""
        named = self.card.get("settings", {}).get(self.source) or {}
        defaults = {"medmnist": "octmnist", "torchvision": "cifar100"}
        return str(named.get("dataset", defaults[self.source])).lower() if self.source in defaults else self.source

    @property
    def folds(self) -> bool:
        """Whether seeds test different folds of the images, patients kept together; only folders are split so."""
        return self.source == "folder"

    @property
    def patients(self) -> bool:
        """Whether the statistics knew whose each test image is."""
        return len(self.complete) > 0 and bool(self.complete.n_test_patients.notna().all())

    @property
    def origin(self) -> str:
        """Profile and data."""
        data = {
            "phantom": "synthetic phantom scans",
            "folder": "image folder, patient-grouped folds",
            "unknown": "data card missing",
        }.get(self.source, self.dataset)
        return f"profile {self.profile} ({data}; {span(self.complete.n_train)} training images)"

    @property
    def label(self) -> str:
        """Where the numbers of a table or figure of test results come from."""
        return self.describe("test")

    def describe(self, split: str) -> str:
        """Profile, data, and the numbers of seeds and of the split's images."""
        name = {"val": "validation"}.get(split, split)
        images = f"{span(self.complete[f'n_{split}'])} {name} images a seed"
        return f"{self.origin}, {span(self.methods.seeds)} seeds, {images}"


def load(directory: Path) -> Results:
    """Read results/<profile>/.

    Raises:
        ReportError: a file is missing, unreadable, lacks a column or key, or has words where numbers belong.
    """
    directory = Path(directory)
    summary = _json(directory / "summary.json", "python -m pipelines.summarise")
    tables = {
        field.name: _table(directory, field.name)
        for field in fields(Results)
        if field.type is pd.DataFrame and field.name not in ("methods", "paper")
    }
    card = directory / "data" / "card.json"
    methods = _methods(directory, summary, tables["runs"], tables["labels"])
    return Results(
        profile=directory.name, directory=directory, methods=methods, card=_card(card) if card.is_file() else {},
        paper=_paper(PAPER), explained=read_explained(directory / "explain.npz", methods.index),
        scans=read_scans(directory / "hard_scans.npz"), **tables,
    )  # fmt: skip


def _methods(directory: Path, summary: dict, runs: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The methods' frame, from summary.json and what the runs say of each."""
    for method, figures in summary.items():
        if not _are_figures(figures):
            raise ReportError(
                f"{directory / 'summary.json'}: {method!r} should have numbers or null under {', '.join(_SUMMARY)} "
                "and a count under seeds; run `python -m pipelines.summarise` again"
            )
    if missing := sorted(set(summary) ^ set(runs.method)):
        raise ReportError(
            f"{directory}: {', '.join(missing)} not in both summary.json and runs.csv; "
            "run `python -m pipelines.summarise` again"
        )
    methods = pd.DataFrame.from_dict(summary, orient="index").astype(float)
    methods = methods.reindex(columns=methods.columns.union(["flops", "acc_se_images"], sort=False))
    about = runs.groupby("method", sort=False)
    methods = methods.join(about[["family", "backbone", "weights"]].first())
    methods["planned"] = about.seed.size()
    methods["share"] = labels.set_index("method").share.reindex(methods.index).fillna(1.0).astype(float)
    methods["seeds"] = methods.seeds.astype(int)
    looks = [drawing.looks(row.family, row.backbone) for row in methods.itertuples()]
    return methods.assign(
        group=[own.group for own in looks], kind=[own.kind for own in looks], color=[own.color for own in looks],
        ink=[drawing.ink(own.color) for own in looks],
        shown=[
            name if found == planned else f"{name} ({found}/{planned})"
            for name, found, planned in zip(methods.index, methods.seeds, methods.planned, strict=True)
        ],
    )  # fmt: skip


def _are_figures(figures) -> bool:
    """Whether a method's entry of summary.json has every key, and numbers or nothing under all it has."""
    return (
        isinstance(figures, dict)
        and set(_SUMMARY) <= set(figures)
        and isinstance(figures["seeds"], int)
        and 0 <= figures["seeds"] <= 2**31
        and all(v is None or isinstance(v, (int, float)) and abs(v) < 2**63 for v in figures.values())
    )


def _table(directory: Path, name: str) -> pd.DataFrame:
    """One of the CSV files; without rows where it is not there and the report can do without."""
    if name not in NEEDED and not (directory / f"{name}.csv").is_file():
        return schemas.frame(name, [])
    try:
        return schemas.read(directory, name)
    except schemas.SchemaError as error:
        raise ReportError(str(error)) from None


def _paper(path: Path) -> pd.DataFrame:
    """The paper's figures, which are part of this project."""
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: not readable as CSV ({error})") from None
    if missing := [name for name in PAPER_COLUMNS if name not in frame]:
        raise ReportError(f"{path}: no column {', '.join(missing)}")
    return frame


def _card(path: Path) -> dict:
    """The data card, with what is read of it in its form."""
    card = _json(path, "python -m pipelines.prepare")
    settings = card.get("settings", {})
    sections = isinstance(settings, dict) and isinstance(settings.get("medmnist") or {}, dict)
    if not sections or not all(isinstance(card.get(name) or 0, int) for name in ("patients", "count")):
        raise ReportError(f"{path}: not a data card; run `python -m pipelines.prepare` again")
    return card


def _json(path: Path, stage: str) -> dict:
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"{path}: no such file; run `{stage}` first") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ReportError(f"{path}: not readable as JSON ({error}); run `{stage}` again") from None
    if not isinstance(content, dict) or not content and path.name == "summary.json":
        raise ReportError(f"{path}: expected a JSON object that is not empty; run `{stage}` again")
    return content
