"""Random changes of training images, drawn from a CPU generator so that they are the same on every device."""

import torch
from torch.nn import functional as F


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device; from the CPU to a GPU through pinned memory, so that nothing waits for the copy."""
    if tensor.device.type == device.type:
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def augmented(images: torch.Tensor, kind: str, generator: torch.Generator) -> torch.Tensor:
    """Augment images (B, C, H, W) in 0..1; draws per image from a CPU generator.

    "authors": brightness shifted by up to 0.1 on the 0..255 scale and a left-right flip of every image, as the
    authors' cleaned script has it. "flip": each image flipped with probability 1/2. "standard": flip, then
    rotation up to 5 degrees, shifts up to 5 % of the size, zoom up to 5 %, brightness and contrast up to 10 %.
    """
    if kind == "none":
        return images

    def uniform(low, high):
        return moved(low + (high - low) * torch.rand(len(images), generator=generator), images.device)

    if kind == "authors":
        return images.flip(-1) + uniform(-0.1 / 255, 0.1 / 255).view(-1, 1, 1, 1)
    mirror = uniform(0, 1) < 0.5
    if kind == "flip":
        return torch.where(mirror.view(-1, 1, 1, 1), images.flip(-1), images)
    if kind != "standard":
        raise ValueError(f"augment: found {kind!r}, expected 'none', 'authors', 'flip' or 'standard'")
    angle, zoom = uniform(-5, 5).deg2rad(), uniform(0.95, 1.05)
    sign = torch.where(mirror, -1.0, 1.0)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    # In the grid's units the image is 2 wide, so 5 % of it is 0.1.
    affine = torch.stack([cos * sign, -sin, uniform(-0.1, 0.1), sin * sign, cos, uniform(-0.1, 0.1)], dim=1).view(
        -1, 2, 3
    )
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast, brightness = uniform(0.9, 1.1).view(-1, 1, 1, 1), uniform(-0.1, 0.1).view(-1, 1, 1, 1)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean + brightness).clamp_(0, 1)
