"""MedMamba: a pyramid of blocks that are half convolution, half 2-D selective scan. Trained from scratch.

Source: Yue and Li, arXiv:2403.03849, section 3; the 2-D scan (SS2D) is VMamba's, Liu et al., arXiv:2401.10166,
section 4. Maps inside are channels-last: (batch, height, width, channels). The defaults are MedMamba-T;
`drop_path`, which its parameters do not tell, is VMamba-style code's customary 0.1.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import silu
from torchvision.ops import StochasticDepth

from baselines import Family
from baselines.layers.images import check_size
from baselines.layers.ssm import SelectiveSSM, check_scan, init_linear

FAMILY = Family(label="MedMamba", group="state space", colours="#E0A000")


def four_ways(x):
    """A map (batch, c, h, w) as sequences (batch, 4, c, h * w): by rows, by columns, and both reversed."""
    forward = torch.stack([x.flatten(2), x.transpose(2, 3).flatten(2)], dim=1)
    return torch.cat([forward, forward.flip(-1)], dim=1)


def merge_ways(y, height: int, width: int):
    """The sum of the four sequences of `four_ways`, each put back in row order: (batch, c, h * w)."""
    rows, columns = (y[:, :2] + y[:, 2:].flip(-1)).unbind(1)
    return rows + columns.unflatten(-1, (width, height)).transpose(2, 3).flatten(2)


class SS2D(nn.Module):
    """VMamba's gated 2-D selective scan: (batch, h, w, channels) to the same shape."""

    def __init__(self, channels: int, *, d_state: int, scan: str, expand: int = 2):
        super().__init__()
        inner = expand * channels
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.ssm = SelectiveSSM(inner, directions=4, d_state=d_state, dt_rank=math.ceil(channels / 16), scan=scan)
        self.norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)

    def forward(self, x):
        x, z = self.in_proj(x).chunk(2, dim=-1)
        x = silu(self.conv(x.permute(0, 3, 1, 2)))
        y = merge_ways(self.ssm(four_ways(x)), *x.shape[2:])
        return self.out_proj(self.norm(y.transpose(1, 2)).view_as(z) * silu(z))


class SSConvSSM(nn.Module):
    """x + shuffle(convolutions(first half of the channels), SS2D(second half)): (batch, h, w, channels)."""

    def __init__(self, channels: int, *, d_state: int, scan: str, drop_path: float):
        super().__init__()
        half = channels // 2
        self.conv = nn.Sequential(
            nn.BatchNorm2d(half), nn.Conv2d(half, half, 3, padding=1),
            nn.BatchNorm2d(half), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1),
            nn.BatchNorm2d(half), nn.ReLU(), nn.Conv2d(half, half, 1), nn.ReLU(),
        )  # fmt: skip
        self.norm = nn.LayerNorm(half)
        self.ss2d = SS2D(half, d_state=d_state, scan=scan)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x):
        left, right = x.chunk(2, dim=-1)
        left = self.conv(left.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        right = self.drop_path(self.ss2d(self.norm(right)))
        # Concatenation and channel shuffle with two groups in one: the halves' channels alternate.
        return x + torch.stack([left, right], dim=-1).flatten(-2)


class PatchMerging(nn.Module):
    """Each 2x2 neighbourhood to one position: (batch, h, w, channels) to (batch, h / 2, w / 2, width)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduce = nn.Linear(4 * channels, width, bias=False)

    def forward(self, x):
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # batch, h / 2, row, w / 2, column, channels
        return self.reduce(self.norm(x.permute(0, 1, 3, 4, 2, 5).flatten(3)))


class MedMamba(nn.Module):
    """(batch, 3, h, w) float images to (batch, classes) logits; h and w multiples of patch * 2**(stages - 1)."""

    def __init__(self, num_classes: int, depths, widths, patch: int, d_state: int, drop_path: float, scan: str):
        super().__init__()
        self.multiple = patch * 2 ** (len(depths) - 1)
        self.embed = nn.Conv2d(3, widths[0], patch, stride=patch)
        self.norm = nn.LayerNorm(widths[0])
        rates = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())  # deeper blocks drop more
        self.stages = nn.ModuleList()
        for stage, (depth, width) in enumerate(zip(depths, widths)):
            merging = [PatchMerging(widths[stage - 1], width)] if stage else []
            blocks = [SSConvSSM(width, d_state=d_state, scan=scan, drop_path=next(rates)) for _ in range(depth)]
            self.stages.append(nn.Sequential(*merging, *blocks))
        self.head = nn.Linear(widths[-1], num_classes)
        self.apply(init_linear)

    def forward(self, x):
        multiple = self.multiple
        fits = x.shape[2] % multiple == 0 and x.shape[3] % multiple == 0
        check_size(x, fits, f"sides that are multiples of {multiple} px (patches, halved between stages)")
        x = self.norm(self.embed(x).permute(0, 2, 3, 1))
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean(dim=(1, 2)))

    def last_map(self):
        return self.stages[-1], lambda x: x.permute(0, 3, 1, 2)


def network(
    *,
    num_classes: int,
    image_size: int,
    depths: Sequence[int] = (2, 2, 4, 2),
    widths: Sequence[int] = (96, 192, 384, 768),
    d_state: int = 16,
    patch: int = 4,
    drop_path: float = 0.1,
    scan: str = "auto",
) -> MedMamba:
    """MedMamba; `depths` and `widths` are blocks and channels a stage, `drop_path` the last block's drop rate.

    Raises:
        ValueError: an option out of range, or an image whose size the patches and mergings do not divide.
    """
    if not depths or len(depths) != len(widths):
        raise ValueError(f"depths: found {list(depths)} for widths {list(widths)}, expected one number a stage in each")
    if min(depths) < 1:
        raise ValueError(f"depths: found {list(depths)}, expected at least 1 in each stage")
    if min(widths) < 2 or any(width % 2 for width in widths):
        raise ValueError(f"widths: found {list(widths)}, expected positive even numbers (a block halves the channels)")
    for name, value in (("d_state", d_state), ("patch", patch)):
        if value < 1:
            raise ValueError(f"{name}: found {value}, expected at least 1")
    if not 0 <= drop_path < 1:
        raise ValueError(f"drop_path: found {drop_path}, expected 0 <= drop_path < 1")
    check_scan(scan)
    multiple = patch * 2 ** (len(depths) - 1)
    if image_size < multiple or image_size % multiple:
        raise ValueError(
            f"image_size: found {image_size}, expected a multiple of {multiple} "
            f"(patch {patch}, halved {len(depths) - 1} times between {len(depths)} stages)"
        )
    return MedMamba(num_classes, depths, widths, patch, d_state, drop_path, scan)
