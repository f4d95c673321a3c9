"""Methods of the peft library on the spatial convolutions and linear layers of the blocks, by `tuner` (peft's word):

    lora   W + (alpha / rank) B A (Hu et al., arXiv:2106.09685)
    dora   the same, with each filter's length trained apart from its direction (Liu et al., arXiv:2402.09353)
    loha   a Hadamard product of two such pairs (Hyeon-Woo et al., arXiv:2108.06098)
    lokr   a Kronecker product (Yeh et al., arXiv:2309.14859)
    hra    `rank` Householder reflections (Yuan et al., arXiv:2405.17484)
    oft    rotations in blocks of `rank` inputs, on linear layers alone (Qiu et al., arXiv:2306.07280)
    ia3    a factor an output channel, no rank (Liu et al., arXiv:2205.05638)

All start at the pretrained function. peft 0.21's OFT of a convolution does not: it adds up rotated patches where they
overlap. Its BOFT is left out: without a CUDA extension built on the spot it has one butterfly factor, and so is OFT.
"""

import typing
import warnings

from torch import nn

from baselines import Family
from baselines.backbones import Classifier
from baselines.layers.kinds import is_spatial, modules_in

FAMILY = Family(label="peft", colours={"CNN": "#1F5FD0", "ViT": "#8F1D78"})
SCALED = ("lora", "dora", "loha", "lokr")


class _Contiguous(nn.Conv2d):
    """A convolution whose weight stays contiguous in a network that is laid out channels-last."""

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self.weight.data = self.weight.data.contiguous()
        return self


def adapt(
    model: Classifier,
    *,
    tuner: typing.Literal["lora", "dora", "loha", "lokr", "hra", "oft", "ia3"],
    rank: int | None = None,
    alpha: float | None = None,
    blocks: tuple[int, int] = (2, 5),
) -> Classifier:
    """`alpha` is by default the rank, a scale of one; the tuners that do not scale take none.

    Raises:
        ValueError: a rank or alpha where the tuner has none, none where it needs one, or one that it cannot take.
    """
    if tuner == "ia3" and rank is not None:
        raise ValueError(f"rank: found {rank}, expected none with tuner 'ia3'")
    if tuner != "ia3" and (rank is None or rank < 1):
        raise ValueError(f"rank: found {rank}, expected at least 1 with tuner {tuner!r}")
    if alpha is not None and tuner not in SCALED:
        raise ValueError(f"alpha: found {alpha}, expected none with tuner {tuner!r}; {', '.join(SCALED)} have one")
    kinds = (nn.Linear,) if tuner == "oft" else (nn.Linear, nn.Conv2d)
    layers = modules_in(model, blocks, kinds)
    layers = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear) or is_spatial(layer)}
    if not layers:
        wanted = "linear layer" if tuner == "oft" else "spatial convolution or linear layer"
        raise ValueError(f"blocks: {list(blocks)} of this backbone hold no {wanted} for tuner {tuner!r}; choose others")
    for name, layer in layers.items():
        if tuner == "oft" and layer.in_features % rank:
            raise ValueError(f"rank: found {rank}, expected a divisor of the {layer.in_features} inputs of {name}")

    import peft  # here, since it takes seconds

    options = {
        "lora": {"r": rank, "lora_alpha": alpha or rank},
        "dora": {"r": rank, "lora_alpha": alpha or rank, "use_dora": True},
        "loha": {"r": rank, "alpha": alpha or rank},
        "lokr": {"r": rank, "alpha": alpha or rank},
        "hra": {"r": rank},
        "oft": {"oft_block_size": rank},
        "ia3": {"feedforward_modules": []},
    }[tuner]
    config = {
        "lora": peft.LoraConfig, "dora": peft.LoraConfig, "loha": peft.LoHaConfig, "lokr": peft.LoKrConfig,
        "hra": peft.HRAConfig, "oft": peft.OFTConfig, "ia3": peft.IA3Config,
    }[tuner]  # fmt: skip
    model.freeze_backbone()
    try:
        with warnings.catch_warnings():  # that a grouped convolution cannot be merged: nothing here merges
            warnings.filterwarnings("ignore", "LoRA adapter added to ConvNd layer with groups")
            peft.inject_adapter_in_model(config(target_modules=list(layers), **options), model)
    except NotImplementedError as error:
        raise ValueError(f"tuner: peft's {tuner} cannot take a layer of blocks {list(blocks)}: {error}") from error
    viewed = {"dora": ".lora_A.default", "hra": ".base_layer"}.get(tuner)  # as rows, by peft 0.21
    for name, layer in layers.items() if viewed else ():
        if isinstance(layer, nn.Conv2d):
            model.get_submodule(name + viewed).__class__ = _Contiguous
    model.head.requires_grad_(True)  # peft froze all that it did not add
    return model
