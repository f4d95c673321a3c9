"""Sections about data: their source, and how much of them is trained on."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from pipelines.profile.base import Place, Section


class Phantom(Section):
    """Seeded generator of OCT-like B-scans."""

    train: int = Field(gt=0)
    """Images to train on."""
    val: int = Field(gt=0)
    """Images to validate on."""
    test: int = Field(gt=0)
    """Images to test on."""
    seed: int = Field(0, ge=0)
    """Of the generator."""
    domain: Literal["source", "target"] = "target"
    """Which scanner the pictures imitate."""


class Folder(Section):
    """Class folders of images, split into patient-grouped folds; or train, val and test with class folders in each."""

    path: Place
    """The folder."""
    pattern: str | None = r"(?P<label>[^-]+)-(?P<patient>[^-]+)-(?P<index>[^-]+)"
    """A regular expression searched for in a file's name; its group `patient` says whose image it is. null where
    names tell no patient."""
    folds: int = Field(5, ge=2)
    """Groups of patients; seed s tests on fold s mod folds of repeat s div folds."""
    val_share: float = Field(0.125, gt=0, le=0.5)
    """Of the patients that are not tested on: how many validate, as one part of 1 / val_share, rounded."""
    follow_links: bool = False
    """Links may lead out of the folder."""


class Manifest(Section):
    """A CSV file that lists images: columns image and label, and where known patient and split (train, val, test)."""

    path: Place
    """The CSV file; the paths in it start at its folder."""
    folds: int = Field(5, ge=2)
    """As in `data.folder`, where the file names no split."""
    val_share: float = Field(0.125, gt=0, le=0.5)
    """As in `data.folder`, where the file names no split."""
    follow_links: bool = False
    """Links may lead out of the file's folder."""


class External(Section):
    """Labelled images of the same classes that every run is tested on once and never trained on."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]
    """Of `results/<profile>/data/external-<name>.csv` and of the runs' files."""
    path: Place
    """A folder of class folders, or a CSV file."""
    pattern: str | None = None
    """As in `data.folder`, and by default the same as there for a folder, none for a CSV file; refused where that has a
    column patient. `(?P<patient>.+)` makes every image a patient."""
    follow_links: bool = False
    """Links may lead out of the folder."""


class MedMNIST(Section):
    """A 2-D MedMNIST set, by medmnist's own name and download."""

    dataset: str = "octmnist"
    """medmnist's own name."""
    cache: Place = Path("~/.medmnist")
    """Where its download lies."""


class Torchvision(Section):
    """CIFAR-10 or CIFAR-100, by torchvision's own name and download."""

    dataset: Literal["CIFAR10", "CIFAR100"] = "CIFAR100"
    """torchvision's own name."""
    cache: Place = Path("~/.cache/torchvision")
    """Where its download lies."""
    val_share: float = Field(0.1, gt=0, lt=1)
    """Of the training images: how many validate."""


class Balanced(Section):
    """The first training images of each class."""

    per_class: int = Field(7754, gt=0)
    """Images of each class."""


class Distilled(Section):
    """Of the balanced images, those of middle predictive entropy: of each class, in ascending order, some ranks."""

    entropies: Place
    """An entropies.npz that a run with train.save_entropies left."""
    keep: Annotated[tuple[int, int], Strict(False)] = (690, 7730)
    """Ranks keep[0] up to but not including keep[1]."""


class Data(Section):
    """The images, and how many of them are trained on."""

    source: Literal["phantom", "folder", "manifest", "medmnist", "torchvision"]
    """Where the images come from; its own section says more."""
    image_size: int = Field(gt=0)
    """Height and width in pixels."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """How a file becomes a square: its centre, the whole with black beside it, or the whole stretched."""
    mode: Literal["full", "balanced", "distilled"] = "full"
    """All training images, `data.balanced` of them, or of these `data.distilled`."""
    shares: list[Annotated[float, Field(gt=0, lt=1)]] = []
    """Nested parts of the training patients (images, where the data name none) for train.share."""
    phantom: Phantom | None = None
    folder: Folder | None = None
    manifest: Manifest | None = None
    medmnist: MedMNIST | None = None
    torchvision: Torchvision | None = None
    balanced: Balanced | None = None
    distilled: Distilled | None = None
    external: list[External] = []
    """More labelled images that every run is tested on once."""

    @property
    def pattern(self) -> str | None:
        """What reads patients from the names of files in folders, where nothing else is said."""
        return self.folder.pattern if self.folder and self.source == "folder" else None

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
        if "test" in self.external_names:
            raise ValueError("external: 'test' is what results call the profile's own test images; choose another name")
        if len(set(self.external_names)) < len(self.external):
            raise ValueError(f"external: each name counts once, found {self.external_names}")
        if len({train_split({"share": share}) for share in self.shares}) < len(self.shares):
            raise ValueError(f"shares: each counts once, found {self.shares}")
        return self


def train_split(recipe) -> str:
    """The name of the split that a recipe trains on: "train", or "train@0.1" for a tenth of its patients.

    Args:
        recipe: a `Train`, or one read back from a record.
    """
    share = recipe["share"] if isinstance(recipe, dict) else recipe.share
    return "train" if share == 1 else f"train@{share:g}"
