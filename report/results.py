"""What `pipelines.summarise` and `pipelines.prepare` left for a profile, read once and checked."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from report import style

PAPER = Path(__file__).with_name("paper.csv")
_CELLS = [
    "arm", "seed", "status", "family", "backbone", "weights", "weights_sha256", "test_acc", "test_auc", "epoch_s",
    "total_s",
]  # fmt: skip


class ReportError(ValueError):
    """A result file that is missing or not as expected; the message names it and the stage that writes it."""


@dataclass(frozen=True)
class Results:
    """The frames of one profile.

    arms: one row an arm (index: its name), in the order shown: by group, then by family, then as in the profile. The
        columns of summary.json with family, backbone, weights, planned (seeds asked for), group and block (arms that
        stand together: a family of CNN arms, or another group), color, ink (for text), and shown: the name, with
        '(4/5)' behind it where only four of five seeds are there. An arm without a cell has NaN. `flops` is NaN too
        where records do not state it.
    cells, curves, confusion, comparisons, tuning, ranks: the CSV files of the same names; `cells` holds the holes too.
    card: the data card, empty where there is none.
    paper: figures of the CoLoRA paper and of those it quotes.
    """

    profile: str
    directory: Path
    arms: pd.DataFrame
    cells: pd.DataFrame
    curves: pd.DataFrame
    confusion: pd.DataFrame
    comparisons: pd.DataFrame
    tuning: pd.DataFrame
    ranks: pd.DataFrame
    card: dict
    paper: pd.DataFrame

    @property
    def complete(self) -> pd.DataFrame:
        return self.cells[self.cells.status == "complete"]

    @property
    def holes(self) -> pd.DataFrame:
        return self.cells[self.cells.status != "complete"]

    @property
    def reference(self) -> str | None:
        """The arm to which times are related: the first fully fine-tuned one that has a cell."""
        found = self.arms[(self.arms.family == "full") & (self.arms.seeds > 0)]
        return found.index[0] if len(found) else None

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

    def describe(self, split: str) -> str:
        """Profile, data, and the numbers of seeds and of the split's images."""
        data = {
            "phantom": "synthetic phantom scans",
            "folder": "image folder, patient-grouped folds",
            "unknown": "data card missing",
        }.get(self.source, self.dataset)
        kind = {"val": "validation"}.get(split, split)
        return (
            f"profile {self.profile} ({data}; {span(self.complete.n_train)} training images), "
            f"{span(self.arms.seeds)} seeds, {span(self.complete[f'n_{split}'])} {kind} images a seed"
        )


def load(directory: Path) -> Results:
    """Read results/<profile>/.

    Raises:
        ReportError: a file is missing, unreadable or lacks a column.
    """
    directory = Path(directory)
    summary = _json(directory / "summary.json", "python -m pipelines.summarise")
    cells = _csv(directory / "cells.csv", _CELLS)
    card = directory / "data" / "card.json"
    about = cells.groupby("arm", sort=False)
    arms = pd.DataFrame.from_dict(summary, orient="index").astype(float)
    missing = sorted(set(summary) ^ set(cells.arm))
    if missing:
        raise ReportError(
            f"{directory}: {', '.join(missing)} not in both summary.json and cells.csv; "
            "run `python -m pipelines.summarise` again"
        )
    first = about[["family", "backbone", "weights"]].first()
    arms = arms.reindex(columns=arms.columns.union(["flops", "acc_se_images"], sort=False))
    arms = _styled(arms.join(first).assign(planned=about.seed.size()).astype({"seeds": int}))
    return Results(
        profile=directory.name, directory=directory, arms=arms, cells=cells,
        curves=_csv(directory / "curves.csv", ["arm", "seed", "epoch", "val_acc"]),
        confusion=_csv(directory / "confusion.csv", ["arm", "true", "predicted", "count"]),
        comparisons=_csv(
            directory / "comparisons.csv",
            ["arm", "against", "reference", "difference", "lo", "hi", "seeds", "p_holm", "p_swap_holm",
             "prob_improvement", "margin", "equivalent", "seeds_needed", "mcnemar_seeds"],
        ),
        ranks=_csv(directory / "ranks.csv", ["arm", "mean_rank", "seeds", "arms", "cd", "friedman_chi2", "friedman_p"]),
        tuning=_csv(directory / "tuning.csv", ["arm", "lr", "val_acc", "chosen"]),
        card=_json(card, "python -m pipelines.prepare") if card.is_file() else {},
        paper=_csv(PAPER, ["arm", "backbone", "dataset", "training_set", "accuracy", "source"]),
    )  # fmt: skip


def _styled(arms: pd.DataFrame) -> pd.DataFrame:
    """The arms in the order shown, with the columns that say how."""
    shown = [
        name if found == planned else f"{name} ({found}/{planned})"
        for name, found, planned in zip(arms.index, arms.seeds, arms.planned, strict=True)
    ]
    group = [style.group(family, backbone) for family, backbone in zip(arms.family, arms.backbone, strict=True)]
    kinds = list(zip(group, arms.family, strict=True))
    order = style.in_order(kinds)
    color = [style.colors(order)[kind] for kind in kinds]
    block = [family if name == "CNN" else name for name, family in kinds]
    arms = arms.assign(shown=shown, group=group, block=block, color=color, ink=[style.ink(c) for c in color])
    return arms.iloc[sorted(range(len(arms)), key=lambda place: order.index(kinds[place]))]


def counterparts(results: Results) -> pd.DataFrame:
    """The paper's figures for the arms of this profile, a row a figure: paper.csv's columns, `arm` being ours.

    A figure counts when the arm has the same name (a backbone named in it aside) and the data set is the same, or
    OCTMNIST where the profile's own data is in no paper. The arm's backbone is preferred; where the paper has none
    of its figures, VGG16's are shown for CNN arms, but not for ViTs, whose arms only share a name. A network trained
    from scratch stands beside the one of its name. Figures without an accuracy are left out.
    """
    paper = results.paper[results.paper.accuracy.notna()]
    paper = paper[paper.dataset == (results.dataset if results.dataset in set(paper.dataset) else "octmnist")]
    return pd.concat([_stated(paper, arm, row).assign(arm=arm) for arm, row in results.arms.iterrows()]).reset_index(
        drop=True
    )


def _stated(paper: pd.DataFrame, arm: str, row: pd.Series) -> pd.DataFrame:
    """The figures of `paper` for one arm."""
    bare = arm.removeprefix(f"{row.backbone}-").removesuffix(f"-{row.backbone}")
    same = paper[paper.arm == (arm if arm in set(paper.arm) else bare)]
    own = same[same.backbone == row.backbone]
    if len(own) or row.group not in ("CNN", "ViT"):  # the other groups' networks have names of their own in the paper
        return own if len(own) else same
    return same[same.backbone == ("vgg16" if row.group == "CNN" else row.backbone)]


def span(values) -> str:
    """Whole numbers as one, or as a range where they differ: '5', '798-801'; zero stands for a hole and is left out."""
    values = sorted({int(v) for v in values if pd.notna(v) and v > 0})
    if not values:
        return "no"
    return f"{values[0]:,}" if values[0] == values[-1] else f"{values[0]:,}\N{EN DASH}{values[-1]:,}"


def _json(path: Path, stage: str) -> dict:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ReportError(f"{path}: no such file; run `{stage}` first") from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: not readable as JSON ({error}); run `{stage}` again") from None
    if not isinstance(content, dict) or not content and path.name == "summary.json":
        raise ReportError(f"{path}: expected a JSON object that is not empty; run `{stage}` again")
    return content


def _csv(path: Path, needed: list[str]) -> pd.DataFrame:
    try:
        # Words like "None" or "nan" may be class names; only an empty field is a missing value.
        frame = pd.read_csv(path, keep_default_na=False, na_values={c: [""] for c in _header(path)})
    except FileNotFoundError:
        raise ReportError(f"{path}: no such file; run `python -m pipelines.summarise` first") from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: not readable as CSV ({error}); run `python -m pipelines.summarise` again") from None
    missing = [name for name in needed if name not in frame]
    if missing:
        raise ReportError(
            f"{path}: columns {', '.join(missing)} are missing; run `python -m pipelines.summarise` again"
        )
    return frame


def _header(path: Path) -> list[str]:
    return list(pd.read_csv(path, nrows=0))
