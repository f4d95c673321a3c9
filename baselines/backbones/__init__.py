"""Pretrained networks cut into five blocks, each with a new classification head.

A backbone keeps its library's own parameter names (torchvision's or timm's), so their checkpoints load without their
classifier. Blocks are numbered 1 to 5 as the paper numbers VGG16's: in a ResNet the stem is block 1 and its stages are
2 to 5; in a ViT the patch embedding is block 1 and its layers are shared out over 2 to 5.
"""

import difflib
import functools

from baselines.backbones.classifier import Classifier
from baselines.backbones.libraries import library
from baselines.backbones.nets import BACKBONES
from baselines.backbones.weights import WeightsError, load_into

__all__ = ["BACKBONES", "Classifier", "WeightsError", "classifier"]


def classifier(
    *,
    backbone: str,
    num_classes: int,
    image_size: int,
    weights: str | None = None,
    head: str = "paper",
    batchnorm: str = "frozen",
    input_size: int | None = None,
) -> Classifier:
    """A backbone with its pretrained weights and a new head.

    Args:
        backbone: one of `BACKBONES`, or `timm/NAME` or `torchvision/NAME` for any classification network of theirs.
        weights: "imagenet" (torchvision's or timm's own download), "random" (said, never assumed), or the path of a
            safetensors file with their keys. A ViT's position embedding is resampled to the image size.
        head: "paper" (1x1 convolution to 128, ReLU, flatten, linear 128, ReLU, linear) or "linear" (global
            average pool, linear).
        batchnorm: "frozen" or "updated": whether running statistics move in methods that freeze the backbone.
        input_size: the network works on images resized to so many px, where those of the data are too small for it.

    Raises:
        ValueError: unknown backbone, head or policy, or an image size that the backbone cannot take.
        WeightsError: weights missing, unreadable, or of another model.
        ModuleNotFoundError: timm is not installed.
    """
    net = BACKBONES.get(backbone) or library(backbone)
    if net is None:
        close = difflib.get_close_matches(backbone, BACKBONES, n=2)
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise ValueError(
            f"backbone: no {backbone!r}{hint}; backbones: {', '.join(BACKBONES)}, timm/NAME, torchvision/NAME"
        )
    if batchnorm not in ("frozen", "updated"):
        raise ValueError(f"batchnorm: found {batchnorm!r}, expected 'frozen' or 'updated'")
    size = image_size if input_size is None else input_size
    name = "image_size" if input_size is None else "input_size"
    if size < 1 or size % net.patch:
        raise ValueError(f"{name}: found {size}, {backbone} needs a multiple of its patch, {net.patch}")
    try:
        network, blocks = net.make(size)
    except (RuntimeError, AssertionError) as error:  # of the network itself, on an image of this size
        raise ValueError(f"{name}: {backbone} cannot take {size} px images ({error}); use another") from None
    if weights != "random":
        fetch = functools.partial(net.fetch, size) if net.published else None
        load_into(network, backbone, weights, fetch, net.classifier)
    return Classifier(
        network,
        blocks,
        num_classes=num_classes,
        image_size=size,
        head=head,
        batchnorm=batchnorm,
        resizes=size != image_size,
    )
