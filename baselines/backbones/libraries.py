"""`timm/NAME` and `torchvision/NAME`: any of their classification networks as a backbone, cut by `cutting`.

What a head receives is the last feature map where the network has one in the usual layout (batch, channels, height,
width); else the pooled vector that the network's own classifier would read. Parameter names stay the library's.
"""

import copy
import difflib
from collections import OrderedDict

import torch
import torchvision
from torch import nn

from baselines.backbones.cutting import cut
from baselines.backbones.weights import from_timm, from_torchvision

# The children of a torchvision network that one after the other lead to its last map.
CHAINS = (
    ("features",),
    ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),
    ("stem", "trunk_output"),
    ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"),
    ("layers",),
)
CLASSIFIERS = ("classifier", "fc", "head", "heads")
AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")


class Timm:
    """A network of timm's. `patch` is 1: what image sizes it takes, it says itself."""

    patch = 1

    def __init__(self, name: str):
        import timm  # here, since it takes seconds

        if not timm.is_model(name):
            raise ValueError(f"backbone: timm has no {name!r}{_near(name, timm.list_models())}")
        self.name = name
        self.classifier: tuple[str, ...] = ()
        self.published = timm.is_model_pretrained(name)

    def make(self, image_size: int):
        options = self._options(image_size)
        network = _timm(self.name, **options)
        found = network.pretrained_cfg.get("classifier") or ()
        self.classifier = tuple(f"{key}." for key in ([found] if isinstance(found, str) else found))
        native = image_size if "img_size" in options else network.pretrained_cfg["input_size"][-1]
        return network, cut(network, native)

    def fetch(self, image_size: int) -> dict:
        return from_timm(self.name, num_classes=0, **self._options(image_size))

    def _options(self, image_size) -> dict:
        """Of the two that some networks take: their image size, and that they shall not pool."""
        with torch.device("meta"):
            for options in ({"img_size": image_size}, {}):
                for pooling in ({"global_pool": ""}, {}):
                    try:
                        network = _timm(self.name, **options, **pooling)
                    except (TypeError, AssertionError):  # it takes no such option
                        continue
                    features = _shape(network, image_size)
                    if not pooling or len(features) == 3 and features[0] == network.num_features != features[2]:
                        return {**options, **pooling}
        raise ValueError(f"backbone: timm/{self.name} cannot be built without its classifier; choose another")


class Torchvision:
    """A classification network of torchvision's."""

    patch, published = 1, True

    def __init__(self, name: str):
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise ValueError(f"backbone: torchvision has no {name!r}{_near(name, known)}")
        self.name = name
        self.classifier: tuple[str, ...] = ()

    def make(self, image_size: int):
        network, fixed = self._whole(image_size)
        children = [name for name, _ in network.named_children()]
        whole, network = network, self._to_map(network, image_size)
        if network is None:
            network = whole
            for name in CLASSIFIERS:
                if name in children:
                    setattr(network, name, nn.Identity())
            kept = [name for name in children if name not in CLASSIFIERS]
        else:
            kept = [name for name, _ in network.named_children()]
        self.classifier = (*(f"{name}." for name in children if name not in kept), *AUXILIARY)
        native = image_size if fixed else 299 if self.name == "inception_v3" else 224
        return network, cut(network, native)

    def fetch(self, image_size: int) -> dict:
        state = from_torchvision(self.name)
        if self.name.startswith("vit_"):
            patch = state["conv_proj.weight"].shape[-1]
            state = torchvision.models.vision_transformer.interpolate_embeddings(image_size, patch, state)
        return state

    def _whole(self, image_size) -> tuple[nn.Module, bool]:
        """The network as published, and whether it is for this image size alone."""
        if self.name in ("googlenet", "inception_v3"):
            return torchvision.models.get_model(self.name, aux_logits=False, init_weights=False), False
        if self.name.startswith("vit_"):
            return torchvision.models.get_model(self.name, image_size=image_size), True
        if self.name.startswith("maxvit"):
            return torchvision.models.get_model(self.name, input_size=(image_size, image_size)), True
        if self.name.startswith("regnet"):  # computes its widths with tensors, which have no values on the meta device
            device = torch.empty(0).device
            with torch.device("cpu"):
                return torchvision.models.get_model(self.name).to(device), False
        return torchvision.models.get_model(self.name), False

    def _to_map(self, network, image_size) -> nn.Module | None:
        for names in CHAINS:
            if all(hasattr(network, name) for name in names):
                chain = nn.Sequential(OrderedDict((name, getattr(network, name)) for name in names))
                if isinstance(network, torchvision.models.DenseNet):
                    chain.add_module("relu", nn.ReLU())  # which its forward() applies as a function
                shape = _shape(chain, max(image_size, 64))
                return chain if len(shape) == 3 and shape[1] == shape[2] else None
        return None


def library(backbone: str) -> Timm | Torchvision | None:
    """The network behind `timm/NAME` or `torchvision/NAME`, None for a name without a library.

    Raises:
        ValueError: no such library, or it has no such network.
        ModuleNotFoundError: timm is not installed.
    """
    where, _, name = backbone.partition("/")
    if not name:
        return None
    found = {"timm": Timm, "torchvision": Torchvision}.get(where)
    if found is None:
        raise ValueError(f"backbone: found {backbone!r}, expected timm/NAME or torchvision/NAME, or a short name")
    return found(name)


def _timm(name, **options):
    import timm

    return timm.create_model(name, num_classes=0, **options)


def _shape(network, image_size) -> tuple[int, ...]:
    with torch.no_grad():
        features = copy.deepcopy(network).to("meta").eval()(torch.empty(1, 3, image_size, image_size, device="meta"))
    return tuple(features.shape[1:])


def _near(name, names):
    close = difflib.get_close_matches(name, names, n=3)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
