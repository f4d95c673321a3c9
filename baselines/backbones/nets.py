"""The networks themselves, from torchvision and timm, and how each is cut into blocks."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torchvision
from torch import nn

from baselines.backbones.weights import from_timm, from_torchvision

Blocks = dict[int, list[str]]


@dataclass(frozen=True)
class Backbone:
    """make(image_size) -> (network, blocks); fetch(image_size) -> its ImageNet state dict, where one is `published`.

    classifier: key prefixes of the published classifier, which is not ours to keep: the head is new in every method.
    patch: image sizes must be multiples of it.
    """

    make: Callable[[int], tuple[nn.Module, Blocks]]
    fetch: Callable[[int], dict] | None
    classifier: tuple[str, ...] = ("classifier.", "fc.")
    patch: int = 1

    @property
    def published(self) -> bool:
        return self.fetch is not None


def _vgg16(_):
    features = torchvision.models.vgg16().features
    return nn.Sequential(OrderedDict(features=features)), _between_pools(features)


def _squeezenet(_):
    features = torchvision.models.squeezenet1_1().features
    blocks = _between_pools(features)
    # Three poolings only: the four Fire modules behind the last one are two blocks.
    blocks[5], blocks[4] = blocks[4][2:], blocks[4][:2]
    return nn.Sequential(OrderedDict(features=features)), blocks


def _between_pools(features) -> Blocks:
    blocks, number = {1: []}, 1
    for index, layer in enumerate(features):
        if isinstance(layer, nn.MaxPool2d):
            number += 1
            blocks[number] = []
        else:
            blocks[number].append(f"features.{index}")
    return {number: names for number, names in blocks.items() if names}  # nothing follows VGG16's last pooling


def _resnet(name):
    net = torchvision.models.get_model(name)
    parts = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    network = nn.Sequential(OrderedDict((part, getattr(net, part)) for part in parts))
    blocks = {1: ["conv1", "bn1", "relu"]}
    for stage in range(1, 5):
        blocks[stage + 1] = [f"layer{stage}.{i}" for i in range(len(getattr(net, f"layer{stage}")))]
    return network, blocks


def _smallcnn(_, widths=(16, 32, 64, 96, 128)):
    """Five blocks of convolution, BatchNorm, ReLU (one, then two, a block), pooled between: for the quick profile."""
    layers, blocks, channels = OrderedDict(), {}, 3
    for number, width in enumerate(widths, start=1):
        convs = []
        for _ in range(1 if number == 1 else 2):
            convs += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers[f"block{number}"] = nn.Sequential(*convs)
        if number < len(widths):
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        blocks[number] = [f"block{number}"]
    return nn.Sequential(layers), blocks


def _timm(name, **options):
    import timm  # here, since it takes seconds

    return timm.create_model(name, num_classes=0, **options)


def _convnext_tiny(_):
    # Its last norm comes before the pooling here, which is the head's business; timm has it after.
    blocks = {1: ["stem"], **{stage + 2: [f"stages.{stage}"] for stage in range(4)}}
    blocks[5].append("head.norm")
    return _timm("convnext_tiny", global_pool=""), blocks


def _efficientnet_b0(_):
    # A block ends where the resolution halves: strides 2, 4, 8, 16, 32.
    parts = (
        ["conv_stem", "bn1", "blocks.0"], ["blocks.1"], ["blocks.2"], ["blocks.3", "blocks.4"],
        ["blocks.5", "blocks.6", "conv_head", "bn2"],
    )  # fmt: skip
    return _timm("efficientnet_b0", global_pool=""), dict(enumerate(parts, start=1))


def _vit(name, image_size, **options):
    network = _timm(name, img_size=image_size, **options)
    depth = len(network.blocks)
    blocks = {number: [] for number in range(2, 6)}
    for layer in range(depth):
        blocks[2 + layer * 4 // depth].append(f"blocks.{layer}")
    blocks[5].append("norm")
    return network, {1: ["patch_embed"], **blocks}


def _smallvit(image_size):
    """Four layers of width 96 on 4 px patches: for the quick profile."""
    return _vit("vit_tiny_patch16_224", image_size, patch_size=4, embed_dim=96, depth=4, num_heads=3)


BACKBONES = {
    "vgg16": Backbone(_vgg16, lambda _: from_torchvision("vgg16")),
    "resnet18": Backbone(lambda _: _resnet("resnet18"), lambda _: from_torchvision("resnet18")),
    "resnet50": Backbone(lambda _: _resnet("resnet50"), lambda _: from_torchvision("resnet50")),
    "squeezenet1_1": Backbone(_squeezenet, lambda _: from_torchvision("squeezenet1_1")),
    "convnext_tiny": Backbone(_convnext_tiny, lambda _: from_timm("convnext_tiny.fb_in1k"), ("head.fc.",)),
    "efficientnet_b0": Backbone(_efficientnet_b0, lambda _: from_timm("efficientnet_b0.ra_in1k"), ("classifier.",)),
    **{
        name: Backbone(
            lambda size, name=name: _vit(name, size), lambda _, name=name: from_timm(f"{name}.fb_in1k"), ("head.",), 16
        )
        for name in ("deit_tiny_patch16_224", "deit_small_patch16_224")
    },
    "smallcnn": Backbone(_smallcnn, None),
    "smallvit": Backbone(_smallvit, None, ("head.",), 4),
}
