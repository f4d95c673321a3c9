"""Seeded corruptions of OCT images at five severities, for robustness tests.

The idea of kinds and severities is that of Hendrycks & Dietterich, ICLR 2019 (arXiv:1903.12261); kinds and numbers
are our own, chosen on retinal B-scans at 128 pixels: 1 is barely visible, at 5 the layers can still be made out.

speckle: x * n, n Gamma distributed with mean 1 and variance 1 / L, one n a pixel: speckle of L looks averaged
    (Goodman, Speckle Phenomena in Optics, 2007). Published scans are log-compressed, so on them it is a model of a
    noisier scan, not physics. L holds for a pixel at any image size.
blur: Gaussian, sigma = strength * side in pixels, of rows and columns apart; edges mirrored.
contrast: mean + strength * (x - mean), with the mean of the image.
gamma: x ** strength (darker) or x ** (1 / strength) (brighter), a coin for each image.
downsampling: to min(strength, side) samples a side with antialiasing, and back, both bilinear.
motion: each column (A-scan) moves along the depth axis, as the eye moves while the beam goes from left to right: drift
    as a random walk and, in every second image on average, a jump (saccade). For the artefact see Sánchez Brea et al.,
    Applied Sciences 9(13):2700, 2019; the walk is a simplification of our own. Shift in pixels = strength * rows *
    (walk + jump), of standard deviation about 1/2; edge pixels repeated.

So blur, downsampling and motion mean the same part of the scan at every image size. What is smaller than a pixel then
does nothing: at 32 pixels, blur of severity 1 and 2 and downsampling of 1 to 3 change no grey level.
"""

import math

import torch
from torch.nn import functional as F

# What each number is: see above. One for each severity, 1 to 5.
STRENGTHS = {
    "speckle": (100, 36, 16, 8, 4),
    "blur": (0.005, 0.008, 0.012, 0.017, 0.023),
    "contrast": (0.85, 0.7, 0.55, 0.4, 0.25),
    "gamma": (1.15, 1.35, 1.6, 2.0, 2.5),
    "downsampling": (80, 58, 42, 30, 22),
    "motion": (0.008, 0.016, 0.03, 0.05, 0.08),
}
KINDS = tuple(STRENGTHS)
SEVERITIES = (1, 2, 3, 4, 5)
WALK_STEPS = 16  # over the width of a scan


@torch.no_grad()
def corrupt(images: torch.Tensor, kind: str, severity: int, generator: torch.Generator) -> torch.Tensor:
    """New images: `images`, float32 or float64 (B, C, H, W) with C 1 or 3 and values in 0..1, corrupted.

    Random numbers come from `generator`, a CPU generator, image after image and alike for all channels: the same on
    every device, and however the images are cut into batches. blur, contrast and downsampling draw none.
    Works under `torch.use_deterministic_algorithms(True)`.

    Raises:
        ValueError: unknown kind or severity; images or a generator other than described.
    """
    _check(images, kind, severity, generator)
    return _APPLY[kind](images, STRENGTHS[kind][severity - 1], generator).clamp(0, 1)


def _check(images, kind, severity, generator):
    if kind not in KINDS:
        raise ValueError(f"kind: found {kind!r}, expected one of {', '.join(KINDS)}")
    if severity not in SEVERITIES or not isinstance(severity, int):
        raise ValueError(f"severity: found {severity!r}, expected an integer from 1 to 5")
    if generator.device.type != "cpu":
        raise ValueError(f"generator: found one on {generator.device}, expected a CPU generator: draws are made there")
    if images.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"images: found {images.dtype}, expected float32 or float64 in 0..1; divide bytes by 255")
    if images.dim() != 4 or images.shape[1] not in (1, 3) or images.numel() == 0:
        raise ValueError(f"images: found shape {tuple(images.shape)}, expected (B, 1 or 3, H, W), none of them 0")
    low, high = (value.item() for value in images.aminmax())
    if not (low >= 0 and high <= 1):  # also true of NaN
        raise ValueError(f"images: found values from {low} to {high}, expected 0..1; corrupt before normalising")


def _each(images, draw):
    """What `draw()` gives for each image, (B, ...) in the images' type on their device."""
    return torch.stack([draw() for _ in images]).to(images)


def _speckle(images, looks, generator):
    normal = _each(images, lambda: torch.randn(images.shape[-2:], generator=generator)).unsqueeze(1)
    # Wilson & Hilferty, PNAS 17:684, 1931: the cube root of a Gamma variable is nearly normal. Mean and variance
    # are within 0.1 % for 4 looks, from one draw a pixel; the sum of exponentials would take one for each look.
    c = 1 / (9 * looks)
    return images * normal.mul_(math.sqrt(c)).add_(1 - c).clamp_(min=0).pow_(3)


def _blur(images, strength, generator):
    rows, columns = (_gaussian(side, strength * side).to(images) for side in images.shape[-2:])
    # Matrix products, not convolutions: those may run in TF32 on a GPU by default.
    return rows @ images @ columns.T


def _gaussian(side, sigma):
    """The matrix (side, side) that filters a column with a Gaussian cut at 4 sigma, its ends mirrored."""
    offsets = torch.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    source = (torch.arange(side)[:, None] + offsets) % (2 * side)
    source = torch.minimum(source, 2 * side - 1 - source)
    return torch.zeros(side, side).double().scatter_add_(1, source, (weights / weights.sum()).expand(source.shape))


def _contrast(images, strength, generator):
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + strength * (images - mean)


def _gamma(images, strength, generator):
    darker = _each(images, lambda: torch.rand(1, generator=generator)).view(-1, 1, 1, 1) < 0.5
    return torch.where(darker, images**strength, images ** (1 / strength))


def _downsampling(images, samples, generator):
    height, width = images.shape[-2:]
    small = F.interpolate(images, (min(samples, height), min(samples, width)), mode="bilinear", antialias=True)
    return F.interpolate(small, (height, width), mode="bilinear")


def _motion(images, strength, generator):
    height, width = images.shape[-2:]
    shift = _each(images, lambda: _eye_path(width, generator)).view(-1, 1, 1, width) * (strength * height)
    rows = torch.arange(height, device=images.device, dtype=images.dtype).view(1, 1, -1, 1)
    source = (rows + shift).clamp_(0, height - 1)
    above = source.floor()
    part = source - above
    above = above.long()
    below = (above + 1).clamp_(max=height - 1)
    above, below = (images.gather(2, index.expand(images.shape)) for index in (above, below))
    return torch.lerp(above, below, part)


def _eye_path(width, generator):
    """One path over the columns, mean 0: a walk of unit length in all, and with probability 1/2 a jump by 1.

    The draws do not depend on the width, so a path is the same at every image size.
    """
    walk = torch.randn(WALK_STEPS, generator=generator).cumsum(0) / math.sqrt(WALK_STEPS)
    has_jump, place, up = torch.rand(3, generator=generator).tolist()
    path = F.interpolate(walk.view(1, 1, -1), width, mode="linear").view(width)
    if has_jump < 0.5:
        path[round((0.1 + 0.8 * place) * width) :] += 1 if up < 0.5 else -1
    return path - path.mean()


_APPLY = dict(zip(KINDS, (_speckle, _blur, _contrast, _gamma, _downsampling, _motion)))
