"""The ResNets that MedMNIST publishes as its baselines, from scratch (Yang et al., arXiv:2110.14795).

Their recipe belongs to the method's `train` section: Adam at 1e-3, batch 128, 100 epochs, the rate divided by ten after
half and three quarters of them, images scaled to -1..1, no augmentation.
"""

import torchvision
from torch import nn
from torch.nn import functional as F


class Resized(nn.Module):
    """The network on images resized to `size` px, antialiased: (batch, 3, H, W) to the network's output."""

    def __init__(self, network: nn.Module, size: int):
        super().__init__()
        self.network, self.size = network, size

    def forward(self, x):
        return self.network(F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True))


def network(*, num_classes: int, image_size: int, depth: int = 18, input_size: int | None = None) -> nn.Module:
    """ResNet-18 or -50 on the images as they are, or resized to `input_size` px.

    Up to 32 px the stem is a 3x3 convolution of stride 1 without pooling, as theirs for 28 px; above, ImageNet's.
    """
    if depth not in (18, 50):
        raise ValueError(f"depth: found {depth}, expected 18 or 50")
    size = image_size if input_size is None else input_size
    if size < 8:
        raise ValueError(f"{'image_size' if input_size is None else 'input_size'}: found {size}, expected at least 8")
    net = torchvision.models.get_model(f"resnet{depth}", num_classes=num_classes)
    if size <= 32:
        net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.maxpool = nn.Identity()
    return net if size == image_size else Resized(net, size)
