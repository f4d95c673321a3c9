"""A convolutional Kolmogorov-Arnold network of the MedKAN kind (Yang et al., arXiv:2502.18416). Trained from scratch.

From the paper: a convolution stem, a patch embedding, then stacked LIK modules (local information: a
grouped KAN convolution with a residual, LGCK, and a spatial feed-forward network, SFFN) and GIK modules (global
information by KAN layers); three sizes, the smallest with 11.5M parameters. The authors' code and the widths, depths
and inside of GIK are not at hand, so these are ours: B-splines on [-3, 3], BatchNorm or LayerNorm before every KAN so
that its inputs lie there; a LIK and a GIK in turn; GIK as KANs over positions and over channels of a pooled map, whose
cost beyond the pooling does not grow with the image; the stages, and the linear head. Results are not the paper's.

The defaults come to 11,514,752 parameters with 4 classes at 128 px; widths (32, 64, 128, 160) and depths (1, 1, 1, 1)
to 1.87M; for 32 px, widths (16, 32, 64) and depths (1, 1, 1) to 0.23M.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from baselines import Family
from baselines.layers.images import check_square
from baselines.layers.kan import KANConv2d, kan_layers

FAMILY = Family(label="MedKAN", group="KAN", colours="#0A6B4F")
GRID_RANGE = (-3, 3)


def _convolution(channels: int, width: int, stride: int = 1):
    conv = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.SiLU())


class LocalKAN(nn.Module):
    """LGCK: x + grouped 3x3 KAN convolution of BatchNorm(x); (batch, channels, h, w) to the same shape."""

    def __init__(self, channels: int, *, groups: int, **spline):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = KANConv2d(channels, channels, 3, padding=1, groups=groups, **spline)

    def forward(self, x):
        return x + self.conv(self.norm(x))


class GlobalKAN(nn.Module):
    """x + context: (batch, channels, h, w) to the same shape; every position hears of every other.

    The map is averaged over a grid of at most tokens x tokens cells. One KAN mixes the cells, the same for all
    channels; one mixes the channels, the same for all cells; their sum is interpolated back to the map.
    """

    def __init__(self, channels: int, *, size: int, tokens: int, reduction: int, kan: str = "torch", **spline):
        super().__init__()
        linear, stack = kan_layers(kan)
        side = min(tokens, size)
        # As matrices, because CUDA's own adaptive pooling and interpolation have no reproducible backward pass.
        pool = F.adaptive_avg_pool1d(torch.eye(size).unsqueeze(0), side)[0].T
        spread = F.interpolate(torch.eye(side).unsqueeze(0), size=size, mode="linear")[0].T
        self.register_buffer("pool", pool.contiguous(), persistent=False)  # side, size
        self.register_buffer("spread", spread.contiguous(), persistent=False)  # size, side
        self.norm_cells, self.norm_channels = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.mix_cells = linear(side**2, side**2, **spline)
        self.mix_channels = stack([channels, channels // reduction, channels], **spline)

    def forward(self, x):
        cells = _resample(x.permute(0, 2, 3, 1), self.pool)
        flat = cells.flatten(1, 2)
        across = self.mix_cells(self.norm_cells(flat).transpose(1, 2)).transpose(1, 2)
        context = across + self.mix_channels(self.norm_channels(flat + across))
        return x + _resample(context.view_as(cells), self.spread).permute(0, 3, 1, 2)


def _resample(x, matrix):
    """Apply (new, old) along height and width: (batch, old, old, channels) to (batch, new, new, channels)."""
    x = (matrix @ x.flatten(2)).unflatten(-1, x.shape[2:])
    return matrix @ x


class FeedForward(nn.Module):
    """SFFN: x + pointwise(SiLU(depthwise 3x3(pointwise(x)))), widened by `expansion` in between, BatchNorm first."""

    def __init__(self, channels: int, expansion: int):
        super().__init__()
        inner = expansion * channels
        self.norm = nn.BatchNorm2d(channels)
        self.widen = nn.Conv2d(channels, inner, 1)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.narrow = nn.Conv2d(inner, channels, 1)

    def forward(self, x):
        return x + self.narrow(F.silu(self.depthwise(self.widen(self.norm(x)))))


class MedKAN(nn.Module):
    """(batch, 3, size, size) float images to (batch, classes) logits."""

    def __init__(
        self, num_classes: int, image_size: int, widths, depths, *, groups, expansion, tokens, reduction, kan, spline
    ):
        super().__init__()
        self.image_size = image_size
        self.stem = _convolution(3, widths[0], stride=2)
        self.embed = _convolution(widths[0], widths[0], stride=2)
        size = -(-image_size // 4)
        self.stages = nn.ModuleList()
        for stage, (width, depth) in enumerate(zip(widths, depths)):
            layers = []
            if stage:
                layers.append(_convolution(widths[stage - 1], width, stride=2))
                size = -(-size // 2)
            for _ in range(depth):
                local = LocalKAN(width, groups=groups, **spline)
                context = GlobalKAN(width, size=size, tokens=tokens, reduction=reduction, kan=kan, **spline)
                layers += [local, FeedForward(width, expansion), context, FeedForward(width, expansion)]
            self.stages.append(nn.Sequential(*layers))
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x):
        check_square(x, self.image_size)
        x = self.embed(self.stem(x))
        for stage in self.stages:
            x = stage(x)
        return self.head(self.norm(x.mean((2, 3))))

    def last_map(self):
        return self.stages[-1], lambda x: x


def network(
    *,
    num_classes: int,
    image_size: int,
    widths: Sequence[int] = (64, 128, 256, 384),
    depths: Sequence[int] = (2, 2, 2, 1),
    groups: int = 8,
    expansion: int = 4,
    tokens: int = 7,
    reduction: int = 4,
    grid_size: int = 5,
    spline_order: int = 3,
    kan: str = "torch",
) -> MedKAN:
    """MedKAN.

    Args:
        widths, depths: channels, and pairs of a LIK and a GIK, in each stage. The stem and the embedding quarter the
            image's size and every further stage halves it.
        groups: of the KAN convolutions; divides every width.
        expansion: of the SFFNs.
        tokens: side of the pooled map in GIK, in cells.
        reduction: by which GIK's KAN over channels narrows them; no more than the smallest width.
        grid_size, spline_order: of all splines.
        kan: whose linear KAN layers, "torch" (ours) or "efficient-kan"; the convolutions are ours.

    Raises:
        ValueError: an option out of range, or an image too small for the stages.
    """
    if not widths or len(widths) != len(depths):
        raise ValueError(f"depths: found {list(depths)} for widths {list(widths)}, expected one number a stage in each")
    numbers = {"widths": min(widths), "depths": min(depths), "groups": groups, "expansion": expansion}
    numbers |= {"tokens": tokens, "reduction": reduction}
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name}: found {value}, expected at least 1")
    if any(width % groups for width in widths):
        raise ValueError(f"groups: found {groups}, expected a divisor of every width in {list(widths)}")
    if reduction > min(widths):
        raise ValueError(f"reduction: found {reduction}, expected 1 to {min(widths)} (the smallest width)")
    halvings = len(widths) + 1
    if image_size < 2**halvings:
        raise ValueError(
            f"image_size: found {image_size}, expected at least {2**halvings} "
            f"(halved {halvings} times in {len(widths)} stages)"
        )
    spline = {"grid_size": grid_size, "spline_order": spline_order, "grid_range": GRID_RANGE}
    return MedKAN(
        num_classes, image_size, widths, depths,
        groups=groups, expansion=expansion, tokens=tokens, reduction=reduction, kan=kan, spline=spline,
    )  # fmt: skip
