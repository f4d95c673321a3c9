"""CoLoRA on the spatial convolutions of chosen blocks: a thin caller of the `colora` library."""

import colora
from baselines import Family
from baselines.backbones import Classifier

FAMILY = Family(label="CoLoRA", colours={"CNN": "#D55E00"})


def adapt(
    model: Classifier,
    *,
    blocks: tuple[int, int] = (2, 5),
    components: str = "both",
    pointwise_bias: bool = False,
    merge_reset: bool = False,
) -> Classifier:
    """`merge_reset` merges every branch into its kernel after each epoch and starts it again at zero (paper v1)."""
    model.freeze_backbone()
    config = colora.ColoraConfig(
        target_modules=model.convolutions(blocks),
        modules_to_save=["head"],
        components=components,
        pointwise_bias=pointwise_bias,
    )
    colora.inject(model, config)
    if merge_reset:
        model.epoch_end = merge_and_reset
    return model


def merge_and_reset(model):
    """The optimizer keeps its moments of the branch that is merged away."""
    colora.merge(model)
    colora.reset(model)
