"""Sections about data: their source, and how much of them is trained on."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from pipelines.profile.base import Place, Section


class Phantom(Section):
    """Seeded generator of OCT-like B-scans; `domain` picks the scanner the pictures imitate."""

    train: int = Field(gt=0)
    val: int = Field(gt=0)
    test: int = Field(gt=0)
    seed: int = 0
    domain: Literal["source", "target"] = "target"


class Folder(Section):
    """Class folders of images, split into patient-grouped folds."""

    path: Place
    pattern: str = r"(?P<label>[^-]+)-(?P<patient>[^-]+)-(?P<index>[^-]+)"
    folds: int = Field(5, ge=2)
    val_share: float = Field(0.125, gt=0, lt=1)


class MedMNIST(Section):
    """A 2-D MedMNIST set, by medmnist's own name and download."""

    dataset: str = "octmnist"
    cache: Place = Path("~/.medmnist")


class Balanced(Section):
    """The first `per_class` training images of each class."""

    per_class: int = Field(7754, gt=0)


class Distilled(Section):
    """Per class, ascending by predictive entropy, ranks keep[0] up to but not including keep[1]."""

    entropies: Place
    keep: Annotated[tuple[int, int], Strict(False)] = (690, 7730)


class Data(Section):
    source: Literal["phantom", "folder", "medmnist"]
    image_size: int = Field(gt=0)
    mode: Literal["full", "balanced", "distilled"] = "full"
    # Of the training patients (images, where the data name none): nested subsets that methods may train on (train.share).
    shares: list[Annotated[float, Field(gt=0, lt=1)]] = []
    phantom: Phantom | None = None
    folder: Folder | None = None
    medmnist: MedMNIST | None = None
    balanced: Balanced | None = None
    distilled: Distilled | None = None

    @model_validator(mode="after")
    def _sections_present(self):
        if getattr(self, self.source) is None:
            raise ValueError(f"source is {self.source!r}, so a section data.{self.source} is needed")
        if self.mode != "full" and self.balanced is None:
            raise ValueError(f"mode {self.mode!r} needs a section data.balanced")
        if self.mode == "distilled" and self.distilled is None:
            raise ValueError("mode 'distilled' needs a section data.distilled")
        if len({train_split({"share": share}) for share in self.shares}) < len(self.shares):
            raise ValueError(f"shares: each counts once, found {self.shares}")
        return self


def train_split(train: dict) -> str:
    """The name of the split that a recipe trains on: "train", or "train@0.1" for a tenth of its patients."""
    return "train" if train["share"] == 1 else f"train@{train['share']:g}"
