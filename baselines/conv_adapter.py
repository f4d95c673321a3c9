"""Conv-Adapter beside every spatial convolution (Chen et al., arXiv:2208.07463, their "convolution parallel"):
conv(x) + scale * pointwise(relu(depthwise(x))), the scale a channel, zero at the start.

The depthwise convolution has the layer's own kernel, stride, padding and dilation and narrows its channels by
`reduction`, each group of so many to one; as in the authors' code there are no biases.
"""

import torch
from torch import nn

from baselines import Family
from baselines.backbones import Classifier

FAMILY = Family(label="Conv-Adapter", colours={"CNN": "#1F5FD0"})


class Paralleled(nn.Module):
    """A frozen convolution with its adapter: (batch, in, h, w) -> (batch, out, h', w')."""

    def __init__(self, base: nn.Conv2d, reduction: int):
        super().__init__()
        self.base = base
        width = base.in_channels // reduction
        self.depthwise = nn.Conv2d(
            base.in_channels, width, base.kernel_size, stride=base.stride, padding=base.padding,
            dilation=base.dilation, groups=width, bias=False, padding_mode=base.padding_mode,
        )  # fmt: skip
        self.pointwise = nn.Conv2d(width, base.out_channels, 1, bias=False)
        self.scale = nn.Parameter(torch.zeros(base.out_channels, 1, 1))

    def forward(self, x):
        return torch.addcmul(self.base(x), self.scale, self.pointwise(nn.functional.relu(self.depthwise(x))))


def adapt(model: Classifier, *, blocks: tuple[int, int] = (2, 5), reduction: int = 4) -> Classifier:
    """
    Raises:
        ValueError: a convolution whose input channels `reduction` does not divide, such as a network's first, or blocks
            without one.
    """
    names = model.convolutions(blocks)
    for name in names:
        channels = model.get_submodule(name).in_channels
        if reduction < 1 or channels % reduction:
            raise ValueError(
                f"reduction: found {reduction}, expected a divisor of the {channels} input channels of {name}; "
                "choose another, or leave that block out"
            )
    model.freeze_backbone()
    for name in names:
        model.set_submodule(name, Paralleled(model.get_submodule(name), reduction))
    return model
