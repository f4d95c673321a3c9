"""The section about measuring costs."""

from typing import Annotated

from pydantic import Field

from pipelines.profile.base import Section


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
