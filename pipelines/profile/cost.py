"""The section about measuring costs."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.profile.base import Section


class Cost(Section):
    """What `pipelines.cost` measures: every method at the profile's image size, and what stands here.

    `rounds`: turns of each method; six or more give intervals. `batch_sizes`: the recipe's where none is stated.
    `peers_of`: CoLoRA methods that get peers, the first on each backbone where none is stated. `inference_batch`: images
    of the larger requests; the smaller have one. `block_s`: seconds of steps that one turn times at least. `images`:
    training images of an epoch where no data are prepared to count them. `layers`: whether the selective scan and the
    KAN layers are measured on their own too, beside a reference and a floor.
    """

    class Setting(Section):
        """Some methods on another backbone, at another image size, in another precision, or compiled."""

        backbone: str
        image_size: int = Field(gt=0)
        batch_sizes: list[Annotated[int, Field(gt=0)]] = Field(min_length=1)
        methods: list[str] = Field(min_length=1)
        precision: Literal["float32", "bfloat16"] | None = None
        compile: bool | None = None

    class Growth(Section):
        """Sweeps of one value each, the others being the profile's: how time and memory grow."""

        methods: list[str] = Field(min_length=1)
        batch_sizes: list[Annotated[int, Field(gt=0)]] = []
        image_sizes: list[Annotated[int, Field(gt=0)]] = []
        ranks: list[Annotated[int, Field(gt=0)]] = []
        rounds: int = Field(7, gt=0)

    rounds: int = Field(20, gt=0)
    batch_sizes: list[Annotated[int, Field(gt=0)]] = []
    peers_of: list[str] | None = None
    inference_batch: int = Field(32, gt=1)
    block_s: float = Field(0.05, gt=0)
    images: int | None = Field(None, gt=0)
    settings: list[Setting] = []
    growth: Growth | None = None
    layers: bool = False
