"""Sections about training and what is asked of trained networks."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.profile.base import Section
from pipelines.profile.data import Phantom


class Train(Section):
    """The training recipe. A method may override any of these under `method.NAME.train`.

    `lr`: the learning rate, or the highest of a schedule that changes it. `patience`: stop after so many epochs without
    a better one. `class_weights`: of the loss; "balanced" is images / (classes * images of the class). `sampler`:
    "balanced" draws with replacement, every class as often. `select`: what the best epoch is chosen by, on validation
    images. `share`: of the training patients (images, where the data name none). `micro_batch`: a batch in pieces of
    this many, where it does not fit the memory. `compile`: by torch.compile. `keep`: which weights of the best epoch
    are kept in models/; by default what training changed where the backbone is frozen, else all of them.
    """

    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    eval_batch_size: int = Field(128, gt=0)
    lr: float = Field(gt=0)
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    weight_decay: float = Field(1e-5, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # of sgd
    schedule: Literal["constant", "one-cycle", "cosine", "step"] = "constant"
    loss: Literal["cross-entropy", "binary-cross-entropy"] = "cross-entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["balanced"] | list[Annotated[float, Field(gt=0)]] | None = None
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    select: Literal["acc", "balanced_acc", "auc", "loss"] = "acc"
    patience: int | None = Field(None, gt=0)
    augment: Literal["none", "authors", "flip", "standard"] = "flip"
    input: Literal["imagenet", "unit", "half", "raw"] = "imagenet"
    precision: Literal["float32", "bfloat16"] = "float32"
    deterministic: bool = True
    save_entropies: bool = False
    share: float = Field(1.0, gt=0, le=1)
    micro_batch: int | None = Field(None, gt=0)
    compile: bool = False
    keep: Literal["none", "adapter", "all"] | None = None


class Tune(Section):
    """Learning rates that every method tries on the validation split of one seed; without this section the rate is
    `train.lr`, as it is for a method whose own section states one.

    `epochs`: of a trial; null: three eighths of the method's own. `widen`: where the best rate is the lowest or highest tried, the grid grows by one more rate in its own steps, at
    most this many times.
    """

    lrs: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)
    epochs: int | None = Field(gt=0)
    widen: int = Field(2, ge=0)
    seed: int = 0

    def epochs_of(self, recipe_epochs: int) -> int:
        """Epochs of a trial of a method that trains for so many."""
        return self.epochs or max(1, round(3 * recipe_epochs / 8))


class Probe(Section):
    """What trained networks are asked beyond their test: corrupted test images, and where they looked (Grad-CAM).

    `seeds`, `methods`: of which runs, all by default. `images`: at most this many of the test images, spread evenly.
    """

    seeds: list[int] | None = None
    methods: list[str] | None = None
    images: int | None = Field(None, gt=0)


class Pretrain(Section):
    """Train the small backbones of the quick profile on another phantom domain, whatever recipe the methods have."""

    backbones: list[str] = Field(min_length=1)
    phantom: Phantom
    epochs: int = Field(gt=0)
    lr: float = Field(gt=0)
    batch_size: int = Field(gt=0)
    seed: int = 0
