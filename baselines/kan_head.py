"""A Kolmogorov-Arnold head (Liu et al., arXiv:2404.19756) on a pretrained network: pooled features, LayerNorm, KAN.

A spline acts only inside its grid, so the features must lie there whatever the backbone's scale: LayerNorm gives them
mean 0 and variance 1, and the grids span [-3, 3], not efficient-kan's [-1, 1]. Of a pretrained ResNet's pooled features
2% then lie outside, the few strongest channels, where the SiLU term alone acts; with [-1, 1] it would be 7 to 12%. The
hidden layer starts with a standard deviation of 0.5 and has room to grow.
"""

from torch import nn

from baselines import Family
from baselines.backbones import Classifier
from baselines.layers.kan import kan_layers

FAMILY = Family(label="KAN head", group="KAN", colours="#0A6B4F")
GRID_RANGE = (-3, 3)


def adapt(
    model: Classifier, *, finetune: bool = False, hidden: int = 64, grid_size: int = 5, kan: str = "torch"
) -> Classifier:
    """Replace the head; the backbone is frozen, or trains as well with `finetune`.

    `kan` is whose layers, "torch" (ours) or "efficient-kan".

    Raises:
        ValueError: hidden or grid_size below 1, or a package that is not installed.
    """
    if hidden < 1:
        raise ValueError(f"hidden: found {hidden}, expected at least 1")
    _, layers = kan_layers(kan)
    channels = model.feature_shape[0]
    model.head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(channels),
        layers([channels, hidden, model.num_classes], grid_size=grid_size, grid_range=GRID_RANGE),
    )  # fmt: skip
    if finetune:
        model.requires_grad_(True)
    else:
        model.freeze_backbone()
    return model
