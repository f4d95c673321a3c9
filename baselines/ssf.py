"""SSF: a trained factor and shift a channel after every convolution, linear layer and normalisation (Lian et al.,
arXiv:2210.08823). They start at 1 and 0, the pretrained function; the authors' code draws them closely around that.
"""

import torch
from torch import nn

from baselines import Family
from baselines.backbones import Classifier
from baselines.layers.kinds import NORMS, modules_in

FAMILY = Family(label="SSF", colours={"CNN": "#1F5FD0", "ViT": "#8F1D78"})


class Scaled(nn.Module):
    """`module` and factor * y + shift on its output, whose channels are at dimension 1, or at the `last`."""

    def __init__(self, module: nn.Module, channels: int, last: bool):
        super().__init__()
        self.module, self.last = module, last
        self.factor, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        y = self.module(x)
        if self.last:
            return torch.addcmul(self.shift, y, self.factor)
        shape = (-1, *[1] * (y.dim() - 2))
        return torch.addcmul(self.shift.view(shape), y, self.factor.view(shape))


def adapt(model: Classifier, *, blocks: tuple[int, int] = (1, 5)) -> Classifier:
    model.freeze_backbone()
    for name, module in modules_in(model, blocks, (nn.Conv2d, nn.Linear, *NORMS)).items():
        model.set_submodule(name, Scaled(module, _channels(module), _channels_last(module)))
    return model


def _channels(module):
    for attribute in ("out_channels", "out_features", "num_features", "num_channels"):
        if hasattr(module, attribute):
            return getattr(module, attribute)
    return module.normalized_shape[-1]


def _channels_last(module):
    # timm's LayerNorm2d is a LayerNorm that normalises (batch, channels, height, width) over its channels.
    return isinstance(module, (nn.Linear, nn.LayerNorm)) and not type(module).__name__.endswith("2d")
