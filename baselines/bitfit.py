"""BitFit: only bias terms train, with the head (Ben Zaken et al., arXiv:2106.10199).

In networks whose convolutions have no bias (ResNets), the biases are the shifts of BatchNorm.
"""

from baselines.backbones import Classifier


def adapt(model: Classifier, *, blocks: tuple[int, int] = (1, 5)) -> Classifier:
    model.freeze_body()
    for bias in model.biases(blocks):
        bias.requires_grad_(True)
    return model
