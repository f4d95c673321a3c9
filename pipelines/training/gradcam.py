"""Grad-CAM: where in an image a network found the class it named.

Source: Selvaraju et al., arXiv:1610.02391, equations 1 and 2: the channels of the last map A before the head, each
weighted by its mean gradient, mean_xy d logit_c / d A_k(x, y), summed and cut off below zero.
"""

import torch
from torch import nn

from pipelines.files.errors import UserError


def gradcam(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Maps (B, h, w) in 0..1 for the class that the network names on each image (B, 3, H, W).

    The strongest position of an image is 1, or the whole map 0 where nothing speaks for the class. h and w are those of
    the map: 7 x 7 for a ResNet at 224 px, a ViT's grid of patches.

    Raises:
        UserError: as `last_map`.
    """
    layer, to_map = last_map(model)
    kept = []

    def keep(_module, _inputs, output):
        # A leaf of its own, so that a frozen backbone has a gradient there too; copied, since what follows may be in place.
        leaf = output.detach().requires_grad_()
        kept.append(leaf)
        torch.set_grad_enabled(True)  # from here on; the backbone before the map takes no more memory than in a test
        return leaf.clone()

    model.eval()
    handle = layer.register_forward_hook(keep)
    try:
        with torch.no_grad():
            logits = model(images)
    finally:
        handle.remove()
    # One class an image, though in bfloat16 two may be level.
    named = nn.functional.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)
    (gradient,) = torch.autograd.grad(logits, kept, named)
    maps, weights = to_map(kept[0].detach()).float(), to_map(gradient).float()
    cam = (weights.mean((2, 3), keepdim=True) * maps).sum(1).relu()
    peak = cam.amax((1, 2), keepdim=True)
    return cam / torch.where(peak > 0, peak, 1)


def last_map(model: nn.Module):
    """The module that puts out the last spatial map, and what makes (B, C, h, w) of its output, as the network says.

    Raises:
        UserError: it does not say; found out before training, so that no hour is lost.
    """
    if not hasattr(model, "last_map"):
        raise UserError(
            f"Grad-CAM: {type(model).__name__} has no method last_map(); add one to the family's network (see "
            "baselines/__init__.py), or leave out the profile's `probe`"
        )
    try:
        return model.last_map()
    except ValueError as error:
        raise UserError(f"Grad-CAM: {error}") from None
