"""The ResNets that MedMNIST publishes as its baselines, from scratch (Yang et al., arXiv:2110.14795).

Their recipe belongs to the method's `train` section: Adam at 1e-3, batch 128, 100 epochs, the rate divided by ten after
half and three quarters of them, images scaled to -1..1, no augmentation.
"""

from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from baselines import Family

FAMILY = Family(label="ResNet from scratch", group="CNN from scratch", colours="#4FB3E0")
SIZES = {18: (BasicBlock, [2, 2, 2, 2]), 50: (Bottleneck, [3, 4, 6, 3])}


class MedMNISTNet(ResNet):
    """torchvision's ResNet on images resized to `size` px, antialiased: (batch, 3, h, w) to (batch, classes) logits.

    Up to 32 px the stem is a 3x3 convolution of stride 1 without pooling, as theirs for 28 px; above, ImageNet's.
    """

    def __init__(self, depth: int, num_classes: int, size: int):
        super().__init__(*SIZES[depth], num_classes=num_classes)
        self.size = size
        if size <= 32:
            self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
            self.maxpool = nn.Identity()

    def forward(self, x):
        if x.shape[-1] != self.size:
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)
        return super().forward(x)

    def last_map(self):
        return self.layer4, lambda x: x


def network(*, num_classes: int, image_size: int, depth: int = 18, input_size: int | None = None) -> nn.Module:
    """ResNet-18 or -50 on the images as they are, or resized to `input_size` px.

    Raises:
        ValueError: an option out of range.
    """
    if depth not in SIZES:
        raise ValueError(f"depth: found {depth}, expected 18 or 50")
    size = image_size if input_size is None else input_size
    if size < 8:
        raise ValueError(f"{'image_size' if input_size is None else 'input_size'}: found {size}, expected at least 8")
    return MedMNISTNet(depth, num_classes, size)
