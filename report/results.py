"""Old reader of the results, until no page is made by it; `report.reading` is the new one.

What `pipelines.summarise` and `pipelines.prepare` left for a profile, read once and checked."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from report import style
from report.text import span

PAPER = Path(__file__).with_name("paper.csv")
_RUNS = [
    "method", "seed", "status", "family", "backbone", "weights", "weights_sha256", "test_acc", "test_auc", "epoch_s",
    "total_s", "n_train", "n_val", "n_test",
]  # fmt: skip
_SUMMARY = [
    "acc_mean", "acc_sd", "acc_lo", "acc_hi", "acc_max", "auc_mean", "auc_sd", "auc_lo", "auc_hi", "trainable", "total",
    "epoch_s", "best_epoch_mean", "lr", "seeds",
]  # fmt: skip
# Columns that hold words whatever they look like, and those that hold numbers, in any of the files.
_WORDS = {
    "method", "against", "reference", "status", "family", "backbone", "weights", "true", "predicted", "class", "kind",
    "best",
}  # fmt: skip
_NUMBERS = {
    "seed", "test_acc", "test_auc", "epoch_s", "total_s", "n_train", "n_val", "n_test", "epoch", "val_acc", "count",
    "difference", "lo", "hi", "seeds", "p_holm", "p_swap_holm", "prob_improvement", "margin", "seeds_needed",
    "mcnemar_seeds", "mean_rank", "methods", "cd", "friedman_chi2", "friedman_p", "lr", "threads", "flops", "accuracy",
    "severity", "clean", "kept", "kept_lo", "kept_hi", "test_images",
    "share", "images", "patients", "acc_mean", "acc_lo", "acc_hi", "auc_mean", "auc_lo", "auc_hi",
}  # fmt: skip
LARGEST = 2**28  # bytes of a file
_LABELS = [
    "method", "method", "share", "images", "patients", "acc_mean", "acc_lo", "acc_hi", "auc_mean", "auc_lo", "auc_hi",
    "best", "difference", "lo", "hi", "margin",
]  # fmt: skip


class ReportError(ValueError):
    """A result file that is missing or not as expected; the message names it and the stage that writes it."""


@dataclass(frozen=True)
class Results:
    """The frames of one profile.

    methods: one row a method (index: its name), in the order shown: by group, then by family, then as in the profile. The
        columns of summary.json with family, backbone, weights, planned (seeds asked for), group and block (methods that
        stand together: a family of CNN methods, or another group), color, ink (for text), and shown: the name, with
        '(4/5)' behind it where only four of five seeds are there. A method without a run has NaN. `flops` is NaN too
        where records do not state it. share: of the labels that it is trained on.
    runs, curves, confusion, comparisons, tuning, ranks: the CSV files of the same names; `runs` holds the holes too.
    labels: likewise; empty where all methods are trained on one share of the labels.
    card: the data card, empty where there is none.
    paper: figures of the CoLoRA paper and of those it quotes.
    """

    profile: str
    directory: Path
    methods: pd.DataFrame
    runs: pd.DataFrame
    curves: pd.DataFrame
    confusion: pd.DataFrame
    comparisons: pd.DataFrame
    tuning: pd.DataFrame
    ranks: pd.DataFrame
    labels: pd.DataFrame
    card: dict
    paper: pd.DataFrame

    @property
    def complete(self) -> pd.DataFrame:
        return self.runs[self.runs.status == "complete"]

    @property
    def holes(self) -> pd.DataFrame:
        return self.runs[self.runs.status != "complete"]

    @property
    def reference(self) -> str | None:
        """The method to which times are related: the first fully fine-tuned one that has a run, on all of the labels."""
        found = self.whole[(self.whole.family == "full") & (self.whole.seeds > 0)]
        return found.index[0] if len(found) else None

    @property
    def whole(self) -> pd.DataFrame:
        """The methods that are trained on the largest share of the labels; all, where there is one share."""
        return self.methods[self.methods.share == self.methods.share.max()]

    @property
    def source(self) -> str:
        """The kind of data source: 'phantom', 'folder', 'medmnist'; 'unknown' without a data card."""
        return str(self.card.get("settings", {}).get("source", "unknown"))

    @property
    def dataset(self) -> str:
        """The data's short name: the MedMNIST flag, or the kind of source."""
        medmnist = self.card.get("settings", {}).get("medmnist") or {}
        return medmnist.get("dataset", "octmnist") if self.source == "medmnist" else self.source

    @property
    def folds(self) -> bool:
        """Whether seeds test different folds of the images, patients kept together; only folders are split so."""
        return self.source == "folder"

    @property
    def patients(self) -> bool:
        """Whether the statistics knew whose each test image is."""
        known = self.complete.get("n_test_patients")
        return known is not None and len(known) > 0 and bool(known.notna().all())

    @property
    def label(self) -> str:
        """What every figure of test results says about where its numbers come from."""
        return self.describe("test")

    @property
    def origin(self) -> str:
        """Profile and data."""
        data = {
            "phantom": "synthetic phantom scans",
            "folder": "image folder, patient-grouped folds",
            "unknown": "data card missing",
        }.get(self.source, self.dataset)
        return f"profile {self.profile} ({data}; {span(self.complete.n_train)} training images)"

    def describe(self, split: str) -> str:
        """Profile, data, and the numbers of seeds and of the split's images."""
        kind = {"val": "validation"}.get(split, split)
        images = f"{span(self.complete[f'n_{split}'])} {kind} images a seed"
        return f"{self.origin}, {span(self.methods.seeds)} seeds, {images}"


def load(directory: Path) -> Results:
    """Read results/<profile>/.

    Raises:
        ReportError: a file is missing, unreadable, lacks a column or key, or has words where numbers belong.
    """
    directory = Path(directory)
    summary = _json(directory / "summary.json", "python -m pipelines.summarise")
    runs = _csv(directory / "runs.csv", _RUNS)
    card = directory / "data" / "card.json"
    about = runs.groupby("method", sort=False)
    for method, figures in summary.items():
        if not _are_figures(figures):
            raise ReportError(
                f"{directory / 'summary.json'}: {method!r} should have numbers or null under {', '.join(_SUMMARY)} and a "
                "count under seeds; run `python -m pipelines.summarise` again"
            )
    methods = pd.DataFrame.from_dict(summary, orient="index").astype(float)
    missing = sorted(set(summary) ^ set(runs.method))
    if missing:
        raise ReportError(
            f"{directory}: {', '.join(missing)} not in both summary.json and runs.csv; "
            "run `python -m pipelines.summarise` again"
        )
    first = about[["family", "backbone", "weights"]].first()
    methods = methods.reindex(columns=methods.columns.union(["flops", "acc_se_images"], sort=False))
    labels = directory / "labels.csv"  # not written before there were shares
    labels = _csv(labels, _LABELS) if labels.is_file() else pd.DataFrame(columns=_LABELS)
    shares = labels.set_index("method").share.reindex(methods.index).fillna(1.0).astype(float)
    methods = _styled(methods.join(first).assign(planned=about.seed.size(), share=shares).astype({"seeds": int}))
    return Results(
        profile=directory.name, directory=directory, methods=methods, runs=runs,
        curves=_csv(directory / "curves.csv", ["method", "seed", "epoch", "val_acc"]),
        confusion=_csv(directory / "confusion.csv", ["method", "true", "predicted", "count"]),
        comparisons=_csv(
            directory / "comparisons.csv",
            ["method", "against", "reference", "difference", "lo", "hi", "seeds", "p_holm", "p_swap_holm",
             "prob_improvement", "margin", "equivalent", "seeds_needed", "mcnemar_seeds"],
        ),
        ranks=_csv(directory / "ranks.csv", ["method", "mean_rank", "seeds", "methods", "cd", "friedman_chi2", "friedman_p"]),
        labels=labels,
        tuning=_csv(directory / "tuning.csv", ["method", "lr", "val_acc", "chosen"]),
        card=_card(card) if card.is_file() else {},
        paper=_csv(PAPER, ["method", "backbone", "dataset", "training_set", "accuracy", "source"]),
    )  # fmt: skip


def _styled(methods: pd.DataFrame) -> pd.DataFrame:
    """The methods in the order shown, with the columns that say how."""
    shown = [
        name if found == planned else f"{name} ({found}/{planned})"
        for name, found, planned in zip(methods.index, methods.seeds, methods.planned, strict=True)
    ]
    group = [style.group(family, backbone) for family, backbone in zip(methods.family, methods.backbone, strict=True)]
    kinds = list(zip(group, methods.family, strict=True))
    order = style.in_order(kinds)
    color = [style.colors(order)[kind] for kind in kinds]
    block = [family if name == "CNN" else name for name, family in kinds]
    methods = methods.assign(shown=shown, group=group, block=block, color=color, ink=[style.ink(c) for c in color])
    return methods.iloc[sorted(range(len(methods)), key=lambda place: order.index(kinds[place]))]


def counterparts(results: Results) -> pd.DataFrame:
    """The paper's figures for the methods of this profile, a row a figure: paper.csv's columns, `method` being ours.

    A figure counts when the method has the same name (a backbone named in it aside) and the data set is the same, or
    OCTMNIST where the profile's own data is in no paper. The method's backbone is preferred; where the paper has none
    of its figures, VGG16's are shown for CNN methods, but not for ViTs, whose methods only share a name. A network trained
    from scratch stands beside the one of its name. Figures without an accuracy are left out.
    """
    paper = results.paper[results.paper.accuracy.notna()]
    paper = paper[paper.dataset == (results.dataset if results.dataset in set(paper.dataset) else "octmnist")]
    return pd.concat(
        [_stated(paper, method, row).assign(method=method) for method, row in results.methods.iterrows()]
    ).reset_index(drop=True)


def _stated(paper: pd.DataFrame, method: str, row: pd.Series) -> pd.DataFrame:
    """The figures of `paper` for one method."""
    bare = method.removeprefix(f"{row.backbone}-").removesuffix(f"-{row.backbone}")
    same = paper[paper.method == (method if method in set(paper.method) else bare)]
    own = same[same.backbone == row.backbone]
    if len(own) or row.group not in ("CNN", "ViT"):  # the other groups' networks have names of their own in the paper
        return own if len(own) else same
    return same[same.backbone == ("vgg16" if row.group == "CNN" else row.backbone)]


def _are_figures(figures) -> bool:
    """Whether a method's entry of summary.json has every key, and numbers or nothing under all it has."""
    return (
        isinstance(figures, dict)
        and set(_SUMMARY) <= set(figures)
        and isinstance(figures["seeds"], int)
        and 0 <= figures["seeds"] <= 2**31
        and all(v is None or isinstance(v, (int, float)) and abs(v) < 2**63 for v in figures.values())
    )


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


def _csv(path: Path, needed: list[str]) -> pd.DataFrame:
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST:,} bytes")
        header = list(pd.read_csv(path, nrows=0))
        # Words like "None" or "nan" may be class names; only an empty field is a missing value.
        words = {name: str for name in _WORDS & set(header)}
        frame = pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in header}, dtype=words)
    except FileNotFoundError:
        raise ReportError(f"{path}: no such file; run `python -m pipelines.summarise` first") from None
    except Exception as error:  # pandas raises many types for text that is no table
        raise ReportError(f"{path}: not readable as CSV ({error}); run `python -m pipelines.summarise` again") from None
    missing = [name for name in needed if name not in frame]
    if missing:
        raise ReportError(
            f"{path}: columns {', '.join(missing)} are missing; run `python -m pipelines.summarise` again"
        )
    numbers = [name for name in needed if name in _NUMBERS and len(frame)]  # a column without rows has no type
    odd = [name for name in numbers if not pd.api.types.is_numeric_dtype(frame[name])]
    odd += [name for name in ("method", "seed") if name in needed and frame[name].isna().any()]
    if odd:
        raise ReportError(
            f"{path}: columns {', '.join(odd)} hold something else than expected; run `python -m pipelines.summarise` "
            "again"
        )
    return frame
