"""`Classifier`: a backbone in five blocks with a classification head."""

import copy
import math
from collections import Counter
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from baselines.backbones.cutting import units_of
from baselines.layers.images import check_square


class Classifier(nn.Module):
    """`head(backbone(x))`: (batch, 3, size, size) float images to (batch, classes) logits.

    Attributes:
        backbone: the network up to its last feature map (batch, C, h, w), or up to a vector (batch, C), such as a ViT's
            class token, which counts as a 1x1 map.
        head: the classifier on that map; always trained.
        blocks: block number to the names of the modules (in this network) that make it up.
        feature_shape: (C, h, w) of what the head receives.
        num_classes: outputs of the head.
        image_size, resizes: px of the images that the backbone sees, and whether they are resized to it first.
        freezes_statistics: the backbone's BatchNorm layers stay in evaluation mode while training, so their
            running statistics do not move.
        epoch_end: called by the training loop with the network after each epoch.
    """

    def __init__(
        self,
        backbone: nn.Module,
        blocks: dict[int, list[str]],
        *,
        num_classes: int,
        image_size: int,
        head: str = "paper",
        batchnorm: str = "frozen",
        resizes: bool = False,
    ):
        super().__init__()
        self.backbone, self.resizes = backbone, resizes
        self.blocks = {number: [f"backbone.{name}" for name in names] for number, names in blocks.items()}
        self.image_size, self.num_classes, self.batchnorm = image_size, num_classes, batchnorm
        shape = self._feature_shape()
        self.features_are_vectors = len(shape) == 1
        self.feature_shape = shape if len(shape) == 3 else (*shape, 1, 1)
        self.head = _head(head, self.feature_shape, num_classes)
        self.freezes_statistics = False
        self.epoch_end: Callable[[nn.Module], None] | None = None

    def forward(self, x, from_depth: int = 0):
        """Logits of images, or, with `from_depth`, of what `forward_features` gives at that depth.

        Raises:
            ValueError: images of another size than the network's own, where its backbone or head has parameters for
                that size (a ViT's positions; a head that flattens the map).
        """
        features = _chain(self.layers()[from_depth:], x) if from_depth else self.backbone(self._resized(x))
        return self.head(_as_map(features))

    def layers(self) -> list[nn.Module]:
        """What the backbone does one after the other: the members of its (nested) Sequentials, or itself as a whole."""
        return list(_members(self.backbone))

    def frozen_depth(self) -> int:
        """How many layers at the backbone's beginning always give the same for an image: in them nothing trains, no
        statistics move, and nothing is drawn at random. In training mode, as the network is.
        """
        count = 0
        for layer in self.layers():
            if not _is_constant(layer):
                break
            count += 1
        return count

    def forward_features(self, x, depth: int):
        """What leaves the first `depth` layers of the backbone, for images (batch, 3, size, size)."""
        return _chain(self.layers()[:depth], self._resized(x))

    def last_map(self) -> tuple[nn.Module, Callable]:
        """Where Grad-CAM looks: the module that puts out the last map, and what makes (B, C, h, w) of its output."""
        if not self.features_are_vectors:
            return self.backbone, lambda x: x
        units = [unit for unit in units_of(self.backbone, self.image_size) if unit.positions > 1]
        if units[-1].layout != "tokens":
            last = self.backbone.get_submodule(units[-1].name)
            return last, (lambda x: x) if units[-1].layout == "map" else (lambda x: x.permute(0, 3, 1, 2))
        kind = Counter(unit.kind for unit in units if unit.layout == "tokens").most_common(1)[0][0]
        blocks = [unit for unit in units if unit.kind == kind]
        layer = self.backbone.get_submodule(blocks[-1].name)
        prefix = blocks[-1].positions - math.isqrt(blocks[-1].positions) ** 2
        if prefix:  # The head sees the class token, which hears of the patches in the last block for the last time.
            reads = getattr(layer, "norm1", None)  # of timm's blocks
            layer = reads if reads is not None else self.backbone.get_submodule(blocks[-2].name)
        return layer, lambda x: tokens_as_map(x[:, prefix:])

    def train(self, mode: bool = True):
        super().train(mode)
        if mode and self.freezes_statistics:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def freeze_backbone(self):
        """No gradient for the backbone; its BatchNorm statistics follow the profile's policy. The head trains."""
        self.backbone.requires_grad_(False)
        self.freezes_statistics = self.batchnorm == "frozen"

    def convolutions(self, blocks: tuple[int, int]) -> list[str]:
        """Names of the spatial convolutions (kernel larger than 1x1) in blocks first..last, in forward order.

        Raises:
            ValueError: there is none, as in the blocks of a ViT.
        """
        names = [
            name
            for name, module in self._modules_in(blocks)
            if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1
        ]
        if not names:
            raise ValueError(
                f"blocks: {list(blocks)} of this backbone hold no convolution larger than 1x1; "
                "choose other blocks, a CNN, or family 'lora' for the linear layers of a ViT"
            )
        return names

    def biases(self, blocks: tuple[int, int]) -> list[nn.Parameter]:
        """The bias parameters of convolutions, linear layers and normalisations in blocks first..last."""
        return [m.bias for _, m in self._modules_in(blocks) if isinstance(getattr(m, "bias", None), nn.Parameter)]

    def block_modules(self, blocks: tuple[int, int]) -> list[str]:
        """Names of the modules that make up blocks first..last."""
        last_block = len(self.blocks)
        if len(blocks) != 2 or not 1 <= blocks[0] <= blocks[1] <= last_block:
            raise ValueError(
                f"blocks: found {list(blocks)}, expected [first, last] with 1 <= first <= last <= {last_block}"
            )
        return [name for number in range(blocks[0], blocks[1] + 1) for name in self.blocks[number]]

    def output_channels(self, names: list[str]) -> list[int]:
        """Channels of the feature maps that leave the named modules (found without computing anything).

        Raises:
            ValueError: what leaves a module is no (batch, C, h, w) map, as in a ViT.
        """
        found = {}
        shapes = copy.deepcopy(self.backbone).to("meta").eval()
        for name in names:
            module = shapes.get_submodule(name.removeprefix("backbone."))
            module.register_forward_hook(lambda _m, _i, out, name=name: found.__setitem__(name, tuple(out.shape)))
        shapes(torch.empty(1, 3, self.image_size, self.image_size, device="meta"))
        for name, shape in found.items():
            if len(shape) != 4:
                raise ValueError(f"backbone: {name} gives {shape}, expected a map (batch, channels, height, width)")
        return [found[name][1] for name in names]

    def _resized(self, x):
        if not self.resizes:
            if not self._takes_any_size():
                check_square(x, self.image_size)
            return x
        return F.interpolate(x, size=(self.image_size,) * 2, mode="bilinear", antialias=True, align_corners=False)

    def _takes_any_size(self) -> bool:
        pooled = any(isinstance(module, nn.AdaptiveAvgPool2d) for module in self.head.modules())
        return pooled and not hasattr(self.backbone, "patch_embed")

    def _feature_shape(self) -> tuple[int, ...]:
        shapes = copy.deepcopy(self.backbone).to("meta").eval()
        try:
            features = shapes(torch.empty(1, 3, self.image_size, self.image_size, device="meta"))
        except (RuntimeError, AssertionError) as error:  # timm asserts
            raise ValueError(
                f"image_size: the backbone cannot take {self.image_size} px images ({error}); use a larger size"
            ) from None
        return tuple(features.shape[1:])

    def _modules_in(self, blocks):
        for prefix in self.block_modules(blocks):
            for name, module in self.get_submodule(prefix).named_modules(prefix=prefix):
                if not isinstance(module, nn.Sequential):
                    yield name, module


def _members(module):
    if type(module) is nn.Sequential:
        for child in module:
            yield from _members(child)
    else:
        yield module


def _chain(layers, x):
    for layer in layers:
        x = layer(x)
    return x


def _is_constant(layer) -> bool:
    trains = any(p.requires_grad for p in layer.parameters())
    moves = any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in layer.modules())
    # Dropout has p; timm's and torchvision's stochastic depth have drop_prob and p.
    draws = any(m.training and (getattr(m, "drop_prob", 0) or getattr(m, "p", 0)) for m in layer.modules())
    return not (trains or moves or draws)


def _as_map(features):
    return features[:, :, None, None] if features.dim() == 2 else features


def tokens_as_map(tokens):
    """Tokens (B, side * side, C) as a map (B, C, side, side)."""
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def _head(kind, feature_shape, num_classes) -> nn.Module:
    channels, height, width = feature_shape
    if kind == "paper":
        return nn.Sequential(
            nn.Conv2d(channels, 128, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(128 * height * width, 128), nn.ReLU(), nn.Linear(128, num_classes),
        )  # fmt: skip
    if kind == "linear":
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    raise ValueError(f"head: found {kind!r}, expected 'paper' or 'linear'")
