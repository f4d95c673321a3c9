"""Sections about training, what is asked of trained networks, and what is measured."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.profile.base import Section, Seed
from pipelines.profile.data import Phantom


class Train(Section):
    """The training recipe. A method may override any of these under `method.NAME.train`."""

    epochs: int = Field(gt=0)
    """Passes over the training images."""
    batch_size: int = Field(gt=0)
    """Images of a step."""
    eval_batch_size: int = Field(128, gt=0)
    """Images of a batch that is not trained on."""
    lr: float = Field(gt=0)
    """The learning rate, or the highest of a schedule that changes it."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """torch's own."""
    weight_decay: float = Field(1e-5, ge=0)
    """Of the optimizer."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of sgd."""
    schedule: Literal["constant", "one-cycle", "cosine", "step"] = "constant"
    """Of the learning rate, a step at a time; step: a tenth after half and after three quarters of them."""
    loss: Literal["cross-entropy", "binary-cross-entropy"] = "cross-entropy"
    """Of logits against classes; binary: against each class as yes or no."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Of cross-entropy."""
    class_weights: Literal["balanced"] | list[Annotated[float, Field(gt=0)]] | None = None
    """Of the loss, by class; "balanced": images / (classes * images of the class)."""
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """"balanced" draws with replacement, every class as often."""
    select: Literal["acc", "balanced_acc", "auc", "loss"] = "acc"
    """What the best epoch is chosen by, on validation images."""
    patience: int | None = Field(None, gt=0)
    """Stop after so many epochs without a better one."""
    augment: Literal["none", "authors", "flip", "standard"] = "flip"
    """Of training images. flip: mirrored by chance; authors: all mirrored, brightness shifted by a trace, as their
    script has it; standard: flip, rotation, shift, zoom, brightness and contrast.
    """
    input: Literal["imagenet", "unit", "half", "raw"] = "imagenet"
    """Pixels as ImageNet's mean and deviation, 0..1, -1..1, or 0..255."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is for GPUs; on CPUs without its instructions it is 10 to 40 times slower."""
    deterministic: bool = True
    """Reproducible kernels on GPUs."""
    save_entropies: bool = False
    """Keep the predictive entropy of every training image, for data.distilled."""
    share: float = Field(1.0, gt=0, le=1)
    """Of the training patients (images, where the data name none), one of data.shares."""
    micro_batch: int | None = Field(None, gt=0)
    """A batch in pieces of this many, where it does not fit the memory."""
    compile: bool = False
    """By torch.compile."""
    keep: Literal["none", "adapter", "all"] | None = None
    """Weights of the best epoch kept in models/; by default what training changed where the backbone is
    frozen, else all."""


class Tune(Section):
    """Learning rates that every method tries on validation images; without this section the rate is `train.lr`, as it
    is for a method whose own section states one.
    """

    lrs: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)
    """The rates."""
    epochs: int | None = Field(gt=0)
    """Of a trial; null: three eighths of the method's own."""
    widen: int = Field(2, ge=0)
    """Where the best rate is the lowest or highest tried, the grid grows by one rate in its own steps, this
    often at most."""
    seeds: list[Seed] = Field([0], min_length=1)
    """Whose training and validation images they are tried on: on the first's every rate, on the others' those near
    its best; the best mean over all is chosen."""
    within: float = Field(0.03, ge=0)
    """How near, in the score of `train.select`: 0.03 is three points of accuracy or AUC; of the loss, 0.03."""

    @property
    def expected_trials(self) -> int:
        """Of a method, for forecasts: the rates, and on each further seed two."""
        return len(self.lrs) + min(2, len(self.lrs)) * (len(self.seeds) - 1)

    def epochs_of(self, recipe_epochs: int) -> int:
        """Epochs of a trial of a method that trains for so many."""
        return self.epochs or max(1, round(3 * recipe_epochs / 8))


class Probe(Section):
    """What trained networks are asked beyond their test: corrupted test images, and where they looked (Grad-CAM)."""

    seeds: list[int] | None = None
    """Of which runs; all by default."""
    methods: list[str] | None = None
    """Of which runs; all by default."""
    images: int | None = Field(None, gt=0)
    """At most this many of the test images, spread evenly."""


class Report(Section):
    """What the report is about."""

    paper: bool | None = None
    """Whether it judges the paper's claims; by default where the data set is one of the paper's."""


class Pretrain(Section):
    """Train the small backbones of the quick profile on another phantom domain, whatever recipe the methods have."""

    backbones: list[str] = Field(min_length=1)
    """Their names."""
    phantom: Phantom
    """As `data.phantom`."""
    epochs: int = Field(gt=0)
    """As `train.epochs`."""
    lr: float = Field(gt=0)
    """As `train.lr`."""
    batch_size: int = Field(gt=0)
    """As `train.batch_size`."""
    seed: int = Field(0, ge=0)
    """Of the training."""


class Cost(Section):
    """What `pipelines.cost` measures: every method at the profile's image size, and what stands here."""

    class Growth(Section):
        """Sweeps of one value each, the others being the profile's: how time and memory grow."""

        methods: list[str] = Field(min_length=1)
        """Their names."""
        batch_sizes: list[Annotated[int, Field(gt=0)]] = []
        """Swept."""
        image_sizes: list[Annotated[int, Field(gt=0)]] = []
        """Swept."""
        ranks: list[Annotated[int, Field(gt=0)]] = []
        """Swept, alpha along with them, by methods that have one."""
        rounds: int = Field(7, gt=0)
        """Of each point."""

    methods: list[str] | None = Field(None, min_length=1)
    """Those that are measured at the profile's size; by default all."""
    processes: int = Field(3, gt=0)
    """Each measures all anew, and intervals are over them; one alone has intervals over its rounds."""
    rounds: int = Field(20, gt=0)
    """Of every method in a process."""
    batch_sizes: list[Annotated[int, Field(gt=0)]] = []
    """By default the recipe's."""
    references_of: list[str] | None = None
    """CoLoRA methods that stand beside reference implementations; by default the first on each backbone."""
    inference_batch: int = Field(32, gt=1)
    """Images of the larger requests; the smaller have one."""
    block_s: float = Field(0.05, gt=0)
    """Seconds of steps that one round times at least."""
    images: int | None = Field(None, gt=0)
    """Training images of an epoch, where no data are prepared to count them."""
    growth: Growth | None = None
    layers: bool = False
    """Whether selective scan and KAN layers are measured on their own, beside a reference and a floor."""
