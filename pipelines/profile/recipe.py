"""Sections about training and what is asked of trained networks."""

from typing import Literal

from pydantic import Field

from pipelines.profile.base import Section
from pipelines.profile.data import Phantom


class Train(Section):
    """The training recipe. A method may override any of these under `method.NAME.train`."""

    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    eval_batch_size: int = Field(128, gt=0)
    lr: float = Field(gt=0)
    optimizer: Literal["adamw", "adam"] = "adamw"
    weight_decay: float = Field(1e-5, ge=0)
    schedule: Literal["constant", "one-cycle", "step"] = "constant"
    loss: Literal["cross-entropy", "binary-cross-entropy"] = "cross-entropy"
    augment: Literal["none", "authors", "flip", "standard"] = "flip"
    input: Literal["imagenet", "unit", "half", "raw"] = "imagenet"
    precision: Literal["float32", "bfloat16"] = "float32"
    deterministic: bool = True
    save_entropies: bool = False
    share: float = Field(1.0, gt=0, le=1)  # of the training patients (images, where the data name none)
    micro_batch: int | None = Field(None, gt=0)  # a batch in pieces of this many, where it does not fit the memory
    compile: bool = False  # by torch.compile


class Tune(Section):
    """Learning rates that every method tries on the validation split of one seed; without this section the rate is
    `train.lr`, as it is for a method whose own section states one."""

    lrs: list[float] = Field(min_length=1)
    epochs: int = Field(gt=0)
    seed: int = 0


class Probe(Section):
    """What trained networks are asked beyond their test: corrupted test images, and where they looked (Grad-CAM).

    `seeds`: of which runs, all by default. `images`: at most this many of the test images, spread evenly.
    """

    seeds: list[int] | None = None
    images: int | None = Field(None, gt=0)


class Evidence(Section):
    """What the statistics take for a difference that matters: `margin`, of accuracy, for equivalence and power."""

    margin: float = Field(0.01, gt=0, lt=1)


class Pretrain(Section):
    """Train the small backbones of the quick profile on another phantom domain, whatever recipe the methods have."""

    backbones: list[str] = Field(min_length=1)
    phantom: Phantom
    epochs: int = Field(gt=0)
    lr: float = Field(gt=0)
    batch_size: int = Field(gt=0)
    seed: int = 0
