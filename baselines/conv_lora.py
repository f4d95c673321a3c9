"""LoRA on convolutions: conv(x; K0) + (alpha / rank) * up(down(x)), up starting at zero (arXiv:2106.09685).

`form="1x1"` is the CoLoRA paper's pair: `down` is a 1x1 convolution with the layer's stride, so the update
touches the kernel's centre only. `form="kxk"` is the usual one (loralib, peft): `down` has the layer's own
kernel, stride, padding and dilation.
"""

import math

from torch import nn

from baselines import Family
from baselines.backbones import Classifier

FAMILY = Family(label="conv LoRA", colours={"CNN": "#1F5FD0"})


class ConvLora(nn.Module):
    """A frozen convolution with a low-rank branch: (batch, in, h, w) -> (batch, out, h', w')."""

    def __init__(self, base: nn.Conv2d, rank: int, alpha: float, form: str):
        super().__init__()
        self.base = base
        if form == "kxk":
            geometry = dict(
                kernel_size=base.kernel_size, stride=base.stride, padding=base.padding, dilation=base.dilation,
                padding_mode=base.padding_mode,
            )  # fmt: skip
        else:
            reach = [d * (k - 1) for d, k in zip(base.dilation, base.kernel_size)]
            if base.padding != "same" and [2 * p for p in base.padding] != reach:
                raise ValueError(
                    f"form: '1x1' needs a convolution that keeps the image's size up to its stride, found {base}; "
                    "form 'kxk' takes any"
                )
            geometry = dict(kernel_size=1, stride=base.stride)
        self.down = nn.Conv2d(base.in_channels, rank, bias=False, groups=1, **geometry)
        self.up = nn.Conv2d(rank, base.out_channels, 1, bias=False)
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.scale * self.up(self.down(x))


def adapt(
    model: Classifier, *, rank: int, alpha: float, blocks: tuple[int, int] = (2, 5), form: str = "1x1"
) -> Classifier:
    if rank < 1:
        raise ValueError(f"rank: found {rank}, expected at least 1")
    if form not in ("1x1", "kxk"):
        raise ValueError(f"form: found {form!r}, expected '1x1' or 'kxk'")
    model.freeze_backbone()
    for name in model.convolutions(blocks):
        model.set_submodule(name, ConvLora(model.get_submodule(name), rank, alpha, form))
    return model
