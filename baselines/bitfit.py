"""BitFit: only bias terms train, with the head (Ben Zaken et al., arXiv:2106.10199).

In networks whose convolutions have no bias (ResNets), the biases are the shifts of BatchNorm.
"""

from baselines import Family
from baselines.backbones import Classifier

FAMILY = Family(label="BitFit", colours={"CNN": "#1F5FD0", "ViT": "#8F1D78"})


def adapt(model: Classifier, *, blocks: tuple[int, int] = (1, 5)) -> Classifier:
    model.freeze_backbone()
    for bias in model.biases(blocks):
        bias.requires_grad_(True)
    return model
