"""Pretrained convolutional networks cut into five blocks, each with a classification head.

The body keeps torchvision's own parameter names, so a torchvision checkpoint loads without its classifier.
Blocks are numbered 1 to 5 as the paper numbers VGG16's: in a ResNet the stem is block 1, its stages 2 to 5.
"""

import copy
import difflib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn


class WeightsError(ValueError):
    """Weights that cannot be had or do not fit; the message says what was found and how to get them."""


class Classifier(nn.Module):
    """`head(body(x))`: (batch, 3, size, size) float images to (batch, classes) logits.

    Attributes:
        body: the convolutional network, up to its last feature map.
        head: the classifier on that map; always trained.
        blocks: block number to the names of the modules (in this network) that make it up.
        freezes_statistics: the body's BatchNorm layers stay in evaluation mode while training, so their
            running statistics do not move.
        epoch_end: called by the training loop with the network after each epoch.
    """

    def __init__(self, body: nn.Module, head: nn.Module, blocks: dict[int, list[str]], batchnorm: str, image_size: int):
        super().__init__()
        self.body, self.head = body, head
        self.blocks = blocks
        self.image_size = image_size
        self.batchnorm = batchnorm
        self.freezes_statistics = False
        self.epoch_end: Callable[[nn.Module], None] | None = None

    def forward(self, x):
        return self.head(self.body(x))

    def train(self, mode: bool = True):
        super().train(mode)
        if mode and self.freezes_statistics:
            for module in self.body.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def freeze_body(self):
        """No gradient for the body; its BatchNorm statistics follow the profile's policy. The head trains."""
        self.body.requires_grad_(False)
        self.freezes_statistics = self.batchnorm == "frozen"

    def convolutions(self, blocks: tuple[int, int]) -> list[str]:
        """Names of the spatial convolutions (kernel larger than 1x1) in blocks first..last, in forward order."""
        return [
            name
            for name, module in self._modules_in(blocks)
            if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1
        ]

    def biases(self, blocks: tuple[int, int]) -> list[nn.Parameter]:
        """The bias parameters of convolutions and normalisations in blocks first..last."""
        return [m.bias for _, m in self._modules_in(blocks) if getattr(m, "bias", None) is not None]

    def block_modules(self, blocks: tuple[int, int]) -> list[str]:
        """Names of the modules that make up blocks first..last."""
        last_block = len(self.blocks)
        if len(blocks) != 2 or not 1 <= blocks[0] <= blocks[1] <= last_block:
            raise ValueError(
                f"blocks: found {list(blocks)}, expected [first, last] with 1 <= first <= last <= {last_block}"
            )
        return [name for number in range(blocks[0], blocks[1] + 1) for name in self.blocks[number]]

    def output_channels(self, names: list[str]) -> list[int]:
        """Channels of the feature maps that leave the named modules (found without computing anything)."""
        found = {}
        shapes = copy.deepcopy(self.body).to("meta").eval()
        for name in names:
            module = shapes.get_submodule(name.removeprefix("body."))
            module.register_forward_hook(lambda _m, _i, out, name=name: found.__setitem__(name, out.shape[1]))
        shapes(torch.empty(1, 3, self.image_size, self.image_size, device="meta"))
        return [found[name] for name in names]

    def _modules_in(self, blocks):
        for prefix in self.block_modules(blocks):
            for name, module in self.get_submodule(prefix).named_modules(prefix=prefix):
                if not isinstance(module, nn.Sequential):
                    yield name, module


def classifier(
    *,
    backbone: str,
    num_classes: int,
    image_size: int,
    weights: str | None = None,
    head: str = "paper",
    batchnorm: str = "frozen",
) -> Classifier:
    """A backbone with its pretrained weights and a new head.

    Args:
        backbone: one of `BACKBONES`.
        weights: "imagenet" (torchvision's own download, checked by hash), "random" (said, never assumed), or
            the path of a safetensors file with torchvision's keys.
        head: "paper" (1x1 convolution to 128, ReLU, flatten, linear 128, ReLU, linear) or "linear" (global
            average pool, linear).
        batchnorm: "frozen" or "updated": whether running statistics move in arms that freeze the body.

    Raises:
        ValueError: unknown backbone, head or policy, or an image too small for the backbone.
        WeightsError: weights missing, unreadable, or of another model.
    """
    if backbone not in BACKBONES:
        close = difflib.get_close_matches(backbone, BACKBONES, n=2)
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise ValueError(f"backbone: no {backbone!r}{hint}; backbones: {', '.join(BACKBONES)}")
    if batchnorm not in ("frozen", "updated"):
        raise ValueError(f"batchnorm: found {batchnorm!r}, expected 'frozen' or 'updated'")
    body, blocks = BACKBONES[backbone]()
    if weights != "random":
        _load(body, backbone, weights)
    channels, height, width = _feature_shape(body, backbone, image_size)
    if head == "paper":
        top = nn.Sequential(
            nn.Conv2d(channels, 128, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(128 * height * width, 128), nn.ReLU(), nn.Linear(128, num_classes),
        )  # fmt: skip
    elif head == "linear":
        top = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    else:
        raise ValueError(f"head: found {head!r}, expected 'paper' or 'linear'")
    blocks = {number: [f"body.{name}" for name in names] for number, names in blocks.items()}
    return Classifier(body, top, blocks, batchnorm, image_size)


def _vgg16():
    features = torchvision.models.vgg16().features
    blocks, number = {1: []}, 1
    for index, layer in enumerate(features):
        if isinstance(layer, nn.MaxPool2d):
            number += 1
            blocks[number] = []
        else:
            blocks[number].append(f"features.{index}")
    del blocks[number]  # nothing follows the last pooling
    return nn.Sequential(OrderedDict(features=features)), blocks


def _resnet(name):
    net = torchvision.models.get_model(name)
    parts = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    body = nn.Sequential(OrderedDict((part, getattr(net, part)) for part in parts))
    blocks = {1: ["conv1", "bn1", "relu"]}
    for stage in range(1, 5):
        blocks[stage + 1] = [f"layer{stage}.{i}" for i in range(len(getattr(net, f"layer{stage}")))]
    return body, blocks


def _smallcnn(widths=(16, 32, 64, 96, 128)):
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


BACKBONES = {
    "vgg16": _vgg16,
    "resnet18": lambda: _resnet("resnet18"),
    "resnet50": lambda: _resnet("resnet50"),
    "smallcnn": _smallcnn,
}


def _feature_shape(body, backbone, image_size):
    shapes = copy.deepcopy(body).to("meta").eval()
    try:
        return tuple(shapes(torch.empty(1, 3, image_size, image_size, device="meta")).shape[1:])
    except RuntimeError as error:
        raise ValueError(
            f"image_size: {backbone} cannot take {image_size} px images ({error}); use a larger size"
        ) from None


def _load(body, backbone, weights):
    expected = body.state_dict()
    state = _imagenet(backbone) if weights == "imagenet" else _local(weights, backbone)
    # The classifier is not ours to keep: the head is new in every arm.
    classifier_keys = [key for key in state if key.split(".")[0] in ("classifier", "fc")]
    state = {key: value for key, value in state.items() if key not in classifier_keys}
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in expected]
    wrong = [k for k, v in state.items() if k in expected and v.shape != expected[k].shape]
    if missing or extra or wrong:
        what = []
        if missing:
            what.append(f"{len(missing)} keys missing, first {missing[0]!r}")
        if extra:
            what.append(f"{len(extra)} unknown keys, first {extra[0]!r}")
        if wrong:
            key = wrong[0]
            what.append(
                f"{len(wrong)} shapes differ, first {key!r}: "
                f"{tuple(state[key].shape)}, not {tuple(expected[key].shape)}"
            )
        raise WeightsError(
            f"weights {str(weights)!r} are not those of {backbone}: {'; '.join(what)}. "
            "Give a file with torchvision's keys."
        )
    body.load_state_dict({key: value.to(expected[key].dtype) for key, value in state.items()}, strict=False)


def _imagenet(backbone):
    try:
        entry = torchvision.models.get_model_weights(backbone).IMAGENET1K_V1
    except ValueError:
        raise WeightsError(
            f"weights 'imagenet': torchvision has none for {backbone!r}; give a safetensors file (weights: PATH)"
        ) from None
    try:
        return entry.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: the file's hash is wrong
        raise WeightsError(
            f"weights 'imagenet' for {backbone}: download of {entry.url} failed ({error}). "
            "With a connection, run again; without one, "
            f"put the file under {torch.hub.get_dir()}/checkpoints, or give a safetensors file (weights: PATH)."
        ) from error


def _local(weights, backbone):
    if not weights:
        raise WeightsError(
            f"no weights given for {backbone}: set `weights` to 'imagenet' (downloaded by torchvision), "
            "to a safetensors file with torchvision's keys, or to 'random' to train from scratch on purpose"
        )
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"weights {str(weights)!r}: no such file; "
            f"expected a safetensors file of {backbone}, 'imagenet', or 'random'"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(
            f"weights {str(weights)!r}: not a readable safetensors file ({error}); "
            "save it with safetensors.torch.save_file"
        ) from None
