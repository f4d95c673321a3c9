"""What `summarise`, `cost`, `explain` and `prepare` left for a profile: read once, checked, in typed frames."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from pipelines.evidence import schemas
from pipelines.files.errors import UserError
from pipelines.files.records import read_json
from report import drawing
from report.reading.explained import Explained, read_explained, read_scans
from report.text import plural, span

PAPER = Path(__file__).parents[1] / "claims" / "paper.csv"
NEEDED = ("runs", "curves", "confusion", "tuning")  # of what summarise writes; without the others sections are left out
_SUMMARY = [
    "acc_mean", "acc_sd", "acc_lo", "acc_hi", "auc_mean", "auc_sd", "auc_lo", "auc_hi", "trainable", "total",
    "epoch_s", "best_epoch_mean", "lr", "seeds",
]  # fmt: skip
_FIGURES = TypeAdapter(dict[str, dict[str, float | None]])


@dataclass(frozen=True)
class Results:
    """The frames of one profile.

    methods: one row a method (index: its name), in the profile's order. The columns of summary.json with family,
        backbone, weights, planned (seeds asked for), share (of the labels that it is trained on), group, kind and color
        (as drawing.looks), ink (for text), and shown: the name, with '(4/5)' behind it where only four of five seeds
        are there. A method without a run has NaN.
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
    def ranked(self) -> pd.DataFrame:
        """The methods of `whole` that findings may rank."""
        return ranked(self.whole)

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

    @property
    def machines(self) -> pd.Series:
        """What each method's runs were made on."""
        return pd.Series({method: machines(runs) for method, runs in self.complete.groupby("method")}, dtype=object)

    def unlike(self, method: str, against: str) -> str:
        """In what the training of `against` was unlike that of `method`, beyond what is compared: 'trained from scratch
        and on another machine' (than on the same seeds, as far as it is known), or ''.
        """
        scratch, runs = self.methods.weights == "random", self.complete
        on = runs.assign(machine=runs.gpu.fillna(runs.cpu)).pivot(index="seed", columns="method", values="machine")
        on = on.reindex(columns=[method, against]).dropna()
        other = (on[method] != on[against]).mean() if method != against else 0
        how = ["from scratch"] * bool(scratch.get(against) and not scratch.get(method))
        how += [f"{'' if other == 1 else 'partly '}on another machine"] * bool(other > 0)
        return f"trained {' and '.join(how)}" if how else ""

    def called(self, row) -> str:
        """The comparator of a row of contrasts, and in what its training was unlike the method's."""
        return f"{row.comparator} {self.unlike(row.method, row.against)}".rstrip()

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
    def patients(self) -> bool:
        """Whether the statistics knew whose each test image is."""
        return len(self.complete) > 0 and bool(self.complete.n_test_patients.notna().all())

    @property
    def drawn_anew(self) -> str:
        """For what an interval of a method's own figure stands: 'new seeds and new patients'."""
        units, seeds = "patients" if self.patients else "test images", self.methods.seeds[self.methods.seeds > 0]
        if (seeds == 1).all():
            return f"new {units} alone, of one run"
        return f"new seeds and new {units}" + (f" (of a single run new {units} alone)" if (seeds == 1).any() else "")

    @property
    def splitting(self) -> str:
        """How the images came into splits: 'patient-grouped folds', 'folds by image' or 'one split'."""
        if not self.card.get("folds"):
            return "one split"
        return "folds by image" if self.card.get("patients") is None else "patient-grouped folds"

    @property
    def origin(self) -> str:
        """Profile and data."""
        data = {
            "phantom": "synthetic phantom scans",
            "folder": f"image folder, {self.splitting}",
            "unknown": "data card missing",
        }.get(self.source, self.dataset)
        return f"profile {self.profile} ({data}; {span(self.complete.n_train)} training images)"

    @property
    def label(self) -> str:
        """Where the numbers of a table or figure of test results come from."""
        return self.describe("test")

    def describe(self, split: str) -> str:
        """Profile, data, and the numbers of seeds and of the split's images."""
        images = f"{span(self.complete[f'n_{split}'])} {'validation' if split == 'val' else split} images a seed"
        return f"{self.origin}, {span(self.methods.seeds)} seeds, {images}"

    @property
    def cost_machine(self) -> str:
        """On what costs were measured: the GPU of cost.json, or else its CPU and threads.

        Raises:
            UserError: cost.json cannot be read.
        """
        path = self.directory / "cost.json"
        content = read_json(path, "run `python -m pipelines.cost --again`") if path.is_file() else {}
        found = content.get("environment") or {}
        if not found.get("gpu") and not found.get("cpu"):
            return "a machine that cost.json does not name"
        return found.get("gpu") or f"{found['cpu']}, {plural(found['threads'], 'thread')}"


def machines(runs: pd.DataFrame) -> str:
    """What runs were made on: GPUs, or else CPUs."""
    return ", ".join(sorted(runs.gpu.fillna(runs.cpu).dropna().unique())) or "machine not recorded"


def ranked(methods: pd.DataFrame) -> pd.DataFrame:
    """Those with as many runs as any method should have, for the mean of fewer folds is not told beside theirs; where
    there is none, all with a run. A method counts once: its second run is left out.
    """
    run = methods[(methods.seeds > 0) & ~methods.second]
    whole = run.seeds >= methods.planned.min()
    return run[whole] if whole.any() else run


def load(directory: Path) -> Results:
    """Read results/<profile>/.

    Raises:
        UserError: a file is missing, unreadable, lacks a column or key, or has words where numbers belong.
    """
    directory = Path(directory)
    summary = read_json(directory / "summary.json", "run `python -m pipelines.summarise`")
    tables = {}
    for name in (field.name for field in fields(Results) if field.name in schemas.TABLES):
        there = name in NEEDED or (directory / f"{name}.csv").is_file()
        tables[name] = schemas.read(directory, name) if there else schemas.frame(name, [])
    card = directory / "data" / "card.json"
    methods = _methods(directory, summary, tables["runs"], tables["labels"])
    again = tables["pairs"].query("role == 'again'")
    same = again.method.map(methods.lr) == again.reference.map(methods.lr)
    methods["second"] = methods.index.isin(again.method[same])
    return Results(
        profile=directory.name, directory=directory, methods=methods, card=_card(card) if card.is_file() else {},
        paper=pd.read_csv(PAPER), explained=read_explained(directory / "explain.npz", methods.index),
        scans=read_scans(directory / "hard_scans.npz"), **tables,
    )  # fmt: skip


def beside(results: Results) -> list[Results]:
    """The results of every profile in the same folder, these among them, by name."""
    found = sorted(results.directory.parent.glob("*/summary.json"))
    return [results if path.parent == results.directory else load(path.parent) for path in found]


def _methods(directory: Path, summary: dict, runs: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The methods' frame, from summary.json and what the runs say of each."""
    try:
        methods = pd.DataFrame.from_dict(_FIGURES.validate_python(summary), orient="index").astype(float)
        methods[_SUMMARY]
    except (ValidationError, KeyError):
        raise UserError(
            f"{directory / 'summary.json'}: every method should have numbers or null under {', '.join(_SUMMARY)}; "
            "run `python -m pipelines.summarise` again"
        ) from None
    if missing := sorted(set(summary) ^ set(runs.method)):
        raise UserError(
            f"{directory}: {', '.join(missing)} not in both summary.json and runs.csv; "
            "run `python -m pipelines.summarise` again"
        )
    about = runs.groupby("method", sort=False)
    methods = methods.join(about[["family", "backbone", "weights"]].first())
    methods["planned"] = about.seed.size()
    methods["share"] = labels.set_index("method").share.reindex(methods.index).fillna(1.0).astype(float)
    methods["seeds"] = runs.status.eq("complete").groupby(runs.method).sum()
    looks = pd.DataFrame([drawing.looks(row.family, row.backbone) for row in methods.itertuples()], methods.index)
    return methods.join(looks).assign(
        ink=looks.color.map(drawing.ink),
        shown=[
            name if found == planned else f"{name} ({found}/{planned})"
            for name, found, planned in zip(methods.index, methods.seeds, methods.planned, strict=True)
        ],
    )  # fmt: skip


def _card(path: Path) -> dict:
    """The data card, with what is read of it in its form."""
    card = read_json(path, "run `python -m pipelines.prepare`")
    settings = card.get("settings", {})
    sections = isinstance(settings, dict) and isinstance(settings.get("medmnist") or {}, dict)
    if not sections or not all(isinstance(card.get(name) or 0, int) for name in ("patients", "count")):
        raise UserError(f"{path}: not a data card; run `python -m pipelines.prepare` again")
    return card
