"""Norm tuning: only the factors and shifts of the normalisations train, with the head (BatchNorm: Frankle et al.,
arXiv:2003.00152; LayerNorm: Zhao et al., arXiv:2312.11420). Running statistics follow the profile's policy.
"""

from baselines import Family
from baselines.backbones import Classifier
from baselines.layers.kinds import NORMS, modules_in

FAMILY = Family(label="norm tuning", colours={"CNN": "#1F5FD0", "ViT": "#8F1D78"})


def adapt(model: Classifier, *, blocks: tuple[int, int] = (1, 5)) -> Classifier:
    """
    Raises:
        ValueError: the blocks hold no normalisation with a factor or shift, as in VGG16.
    """
    model.freeze_backbone()
    found = [p for norm in modules_in(model, blocks, NORMS).values() for p in norm.parameters(recurse=False)]
    if not found:
        raise ValueError(
            f"blocks: {list(blocks)} of this backbone hold no BatchNorm, LayerNorm or GroupNorm that could train "
            "(VGG16 has none at all); choose other blocks, or a backbone with normalisations such as resnet18"
        )
    for parameter in found:
        parameter.requires_grad_(True)
    return model
