"""Grad-CAM: where in an image a network found the class it named.

Source: Selvaraju et al., arXiv:1610.02391, equations 1 and 2: the channels of the last map A before the head, each
weighted by its mean gradient, mean_xy d logit_c / d A_k(x, y), summed and cut off below zero.
"""

import torch
from torch import nn

from baselines.backbones import Classifier
from baselines.medkan import MedKAN
from baselines.medmamba import MedMamba
from baselines.medmnist import Resized
from baselines.vim import Vim


def gradcam(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Maps (B, h, w) in 0..1 for the class that the network names on each image (B, 3, H, W).

    The strongest position of an image is 1, or the whole map 0 where nothing speaks for the class. h and w are those of
    the map: 7 x 7 for a ResNet at 224 px, a ViT's grid of patches.

    Raises:
        ValueError: a network whose last map is not known; add it to `last_map`.
    """
    layer, to_map = last_map(model)
    kept = []

    def keep(_module, _inputs, output):
        # A leaf of its own, so that a frozen body has a gradient there too; copied, since what follows may be in place.
        leaf = output.detach().requires_grad_()
        kept.append(leaf)
        torch.set_grad_enabled(True)  # from here on; the body before the map takes no more memory than in a test
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
    """The module that puts out the last spatial map, and what makes (B, C, h, w) of its output."""
    if isinstance(model, Resized):
        return last_map(model.network)
    if isinstance(model, Classifier):
        if not hasattr(model.body, "num_prefix_tokens"):
            return model.body, lambda x: x
        # A ViT's head sees its class token, which hears of the patches in the last layer's attention for the last time.
        return model.body.blocks[-1].norm1, lambda x: _grid(x[:, model.body.num_prefix_tokens :])
    if isinstance(model, MedMamba):
        return model.stages[-1], lambda x: x.permute(0, 3, 1, 2)
    if isinstance(model, MedKAN):
        return model.stages[-1], lambda x: x
    if isinstance(model, Vim):
        if model.token is None:
            return model.blocks, _grid
        # As in a ViT: what the last block reads is the last that the class token, in the middle, hears of the patches.
        return model.blocks[-1].norm, lambda x: _grid(torch.cat([x[:, : model.middle], x[:, model.middle + 1 :]], 1))
    if hasattr(model, "layer4"):  # torchvision's ResNets
        return model.layer4, lambda x: x
    raise ValueError(f"Grad-CAM: the last map of a {type(model).__name__} is not known; add it to gradcam.last_map")


def _grid(tokens):
    """Tokens (B, side * side, C) as a map (B, C, side, side)."""
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side))
