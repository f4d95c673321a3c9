"""Vision Mamba: patches as a sequence, read forwards and backwards by each block. Trained from scratch.

Source: Zhu et al., arXiv:2401.09417, section 3 (algorithm 1; class token in the middle, table 3). Normalisation is
LayerNorm; expansion 2 and convolutions of 4 are the paper's.
"""

import math

import torch
from torch import nn
from torch.nn.functional import silu

from baselines import Family
from baselines.layers.images import check_square
from baselines.layers.ssm import SelectiveSSM, check_scan, init_linear

FAMILY = Family(label="Vim", group="state space", colours="#E0A000")

POOLS = ("middle", "mean")


class BiMamba(nn.Module):
    """The bidirectional Mamba mixer: (batch, length, width) to the same shape.

    The projections in and out and the gate are shared; convolution and SSM are each direction's own
    (direction 0 reads forwards, 1 backwards).
    """

    def __init__(self, width: int, *, d_state: int, scan: str, expand: int = 2, kernel: int = 4):
        super().__init__()
        inner = expand * width
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv = nn.Conv1d(2 * inner, 2 * inner, kernel, padding=kernel - 1, groups=2 * inner)
        self.ssm = SelectiveSSM(inner, directions=2, d_state=d_state, dt_rank=math.ceil(width / 16), scan=scan)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        length = x.shape[1]
        x, z = self.in_proj(x).chunk(2, dim=-1)
        x = x.transpose(1, 2)
        both = torch.cat([x, x.flip(-1)], dim=1)
        both = silu(self.conv(both)[..., :length])  # padded at both ends, cut at the second: causal
        forward, backward = self.ssm(both.unflatten(1, (2, -1))).unbind(1)
        y = (forward + backward.flip(-1)).transpose(1, 2)
        return self.out_proj(y * silu(z))


class Block(nn.Module):
    """x + BiMamba(norm(x)): (batch, length, width)."""

    def __init__(self, width: int, *, d_state: int, scan: str):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mixer = BiMamba(width, d_state=d_state, scan=scan)

    def forward(self, x):
        return x + self.mixer(self.norm(x))


class Vim(nn.Module):
    """(batch, 3, size, size) float images to (batch, classes) logits, at the one size its positions are for."""

    def __init__(self, num_classes: int, image_size: int, patch: int, width: int, depth: int, d_state: int, pool: str,
                 scan: str):  # fmt: skip
        super().__init__()
        self.image_size = image_size
        patches = (image_size // patch) ** 2
        self.embed = nn.Conv2d(3, width, patch, stride=patch)
        self.token = nn.Parameter(torch.empty(1, 1, width)) if pool == "middle" else None
        self.middle = patches // 2
        self.positions = nn.Parameter(torch.empty(1, patches + (pool == "middle"), width))
        self.blocks = nn.Sequential(*[Block(width, d_state=d_state, scan=scan) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        self.apply(init_linear)
        nn.init.trunc_normal_(self.positions, std=0.02)
        if self.token is not None:
            nn.init.trunc_normal_(self.token, std=0.02)

    def forward(self, x):
        check_square(x, self.image_size)
        x = self.embed(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([x[:, : self.middle], self.token.expand(len(x), -1, -1), x[:, self.middle :]], dim=1)
        x = self.blocks(x + self.positions)
        return self.head(self.norm(x.mean(dim=1) if self.token is None else x[:, self.middle]))

    def last_map(self):
        if self.token is None:
            return self.blocks, _as_map
        # As in a ViT: what the last block reads is the last that the class token, in the middle, hears of the patches.
        return self.blocks[-1].norm, lambda x: _as_map(torch.cat([x[:, : self.middle], x[:, self.middle + 1 :]], 1))


def _as_map(tokens):
    """Patches (batch, side * side, width) as a map (batch, width, side, side)."""
    side = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def network(
    *,
    num_classes: int,
    image_size: int,
    patch: int = 16,
    width: int = 192,
    depth: int = 12,
    d_state: int = 16,
    pool: str = "middle",
    scan: str = "auto",
) -> Vim:
    """Vision Mamba; `pool` is what the head reads: a class token in the "middle", or the "mean" of the patches.

    Raises:
        ValueError: an option out of range, or an image whose size is no multiple of the patch.
    """
    for name, value in (("patch", patch), ("width", width), ("depth", depth), ("d_state", d_state)):
        if value < 1:
            raise ValueError(f"{name}: found {value}, expected at least 1")
    if pool not in POOLS:
        raise ValueError(f"pool: found {pool!r}, expected 'middle' or 'mean'")
    check_scan(scan)
    if image_size < patch or image_size % patch:
        raise ValueError(f"image_size: found {image_size}, expected a multiple of patch {patch}")
    return Vim(num_classes, image_size, patch, width, depth, d_state, pool, scan)
