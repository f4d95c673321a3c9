"""Bottleneck adapters after each block (Houlsby et al., arXiv:1902.00751, with 1x1 convolutions as in
Rebuffi et al., arXiv:1705.08045): y + up(relu(down(y))), zero at the start.

The CoLoRA paper reports adapters of 1.50M trained parameters but not their design. After every VGG16 block
2-5 with reduction 2 they come to 1.48M with the head.
"""

from torch import nn

from baselines import Family
from baselines.backbones import Classifier

FAMILY = Family(label="adapters", colours={"CNN": "#1F5FD0"})


class Adapted(nn.Module):
    """`module` followed by a residual bottleneck on its (batch, channels, height, width) output."""

    def __init__(self, module: nn.Module, channels: int, reduction: int):
        super().__init__()
        self.module = module
        self.down = nn.Conv2d(channels, channels // reduction, 1)
        self.up = nn.Conv2d(channels // reduction, channels, 1)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x):
        y = self.module(x)
        return y + self.up(nn.functional.relu(self.down(y)))


def adapt(model: Classifier, *, blocks: tuple[int, int] = (2, 5), reduction: int = 2) -> Classifier:
    model.freeze_backbone()
    model.block_modules(blocks)  # checks the range
    ends = [model.blocks[number][-1] for number in range(blocks[0], blocks[1] + 1)]
    for name, channels in zip(ends, model.output_channels(ends), strict=True):
        if not 1 <= reduction <= channels:
            raise ValueError(f"reduction: found {reduction}, expected 1 to {channels} (the channels of {name})")
        model.set_submodule(name, Adapted(model.get_submodule(name), channels, reduction))
    return model
