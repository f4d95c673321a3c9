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
    """Class folders of images, split into patient-grouped folds; or train, val and test with class folders in each.

    `pattern`: a regular expression that is searched for in a file's name, its group `patient` says whose image it is;
    null where names tell no patient. `follow_links`: links may lead out of the folder.
    """

    path: Place
    pattern: str | None = r"(?P<label>[^-]+)-(?P<patient>[^-]+)-(?P<index>[^-]+)"
    folds: int = Field(5, ge=2)
    val_share: float = Field(0.125, gt=0, lt=1)
    follow_links: bool = False


class Manifest(Section):
    """A CSV file that lists images: columns image and label, and where known patient and split (train, val, test).

    Without splits they are made as for a folder: `folds` by patient. Paths start at the file's own folder.
    """

    path: Place
    folds: int = Field(5, ge=2)
    val_share: float = Field(0.125, gt=0, lt=1)
    follow_links: bool = False


class External(Section):
    """Labelled images of the same classes that every run is tested on once and never trained on: a folder of class
    folders, or a CSV file as `data.manifest` reads it.

    `pattern`: as in `data.folder`, and the same as there where none is stated; `(?P<patient>.+)` makes every image a
    patient of its own.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]
    path: Place
    pattern: str | None = None
    follow_links: bool = False


class MedMNIST(Section):
    """A 2-D MedMNIST set, by medmnist's own name and download."""

    dataset: str = "octmnist"
    cache: Place = Path("~/.medmnist")


class Torchvision(Section):
    """CIFAR-10 or CIFAR-100 by torchvision's own name and download; `val_share` of its training images are validation."""

    dataset: Literal["CIFAR10", "CIFAR100"] = "CIFAR100"
    cache: Place = Path("~/.cache/torchvision")
    val_share: float = Field(0.1, gt=0, lt=1)


class Balanced(Section):
    """The first `per_class` training images of each class."""

    per_class: int = Field(7754, gt=0)


class Distilled(Section):
    """Per class, ascending by predictive entropy, ranks keep[0] up to but not including keep[1]."""

    entropies: Place
    keep: Annotated[tuple[int, int], Strict(False)] = (690, 7730)


class Data(Section):
    """`fit`: how an image file becomes a square: its centre, the whole with black beside it, or the whole stretched."""

    source: Literal["phantom", "folder", "manifest", "medmnist", "torchvision"]
    image_size: int = Field(gt=0)
    fit: Literal["crop", "pad", "stretch"] = "crop"
    mode: Literal["full", "balanced", "distilled"] = "full"
    # Of the training patients (images, where the data name none): nested subsets that methods may train on (train.share).
    shares: list[Annotated[float, Field(gt=0, lt=1)]] = []
    phantom: Phantom | None = None
    folder: Folder | None = None
    manifest: Manifest | None = None
    medmnist: MedMNIST | None = None
    torchvision: Torchvision | None = None
    balanced: Balanced | None = None
    distilled: Distilled | None = None
    external: list[External] = []

    @property
    def external_names(self) -> list[str]:
        return [external.name for external in self.external]

    @model_validator(mode="after")
    def _sections_present(self):
        if getattr(self, self.source) is None:
            raise ValueError(f"source is {self.source!r}, so a section data.{self.source} is needed")
        if self.mode != "full" and self.balanced is None:
            raise ValueError(f"mode {self.mode!r} needs a section data.balanced")
        if self.mode == "distilled" and self.distilled is None:
            raise ValueError("mode 'distilled' needs a section data.distilled")
        if len(set(self.external_names)) < len(self.external):
            raise ValueError(f"external: each name counts once, found {self.external_names}")
        if len({train_split({"share": share}) for share in self.shares}) < len(self.shares):
            raise ValueError(f"shares: each counts once, found {self.shares}")
        return self


def train_split(recipe) -> str:
    """The name of the split that a recipe (a `Train`, or one read back from a record) trains on: "train", or "train@0.1" for a tenth of its patients."""
    share = recipe["share"] if isinstance(recipe, dict) else recipe.share
    return "train" if share == 1 else f"train@{share:g}"
