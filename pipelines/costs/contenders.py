"""Whose cost is measured: a profile's methods, and reference implementations on the networks of its CoLoRA methods."""

import warnings
from dataclasses import dataclass, replace

from torch import nn

import baselines
from baselines import families
from colora.conv import ColoraConv2d
from pipelines.profile import Params, ParamsError, Train

PEFT_RANK = 8


class LeftOut(ValueError):
    """A reference implementation that cannot be built here; the message says why."""


@dataclass(frozen=True)
class Contender:
    """One network to train and run.

    name: a method's, or made up from one. settings: as `Params.settings` gives them, with random weights and `train` as
    it is measured. role: "method" or "reference". of: the CoLoRA method that a reference implementation is beside.
    form: "" for what `baselines.build` makes of the settings; "two-branch" for CoLoRA with both branches as
    convolutions of plain PyTorch; "peft" for peft's LoRA on the convolutions of the CoLoRA method. sweep: of `growth`,
    that it is a point of.
    """

    name: str
    settings: dict
    image_size: int
    role: str = "method"
    of: str = ""
    form: str = ""
    sweep: str = ""

    @property
    def family(self) -> str:
        return {"": self.settings["family"], "two-branch": "colora", "peft": "conv_lora"}[self.form]

    @property
    def train(self) -> Train:
        return Train.model_validate(self.settings["train"])

    @property
    def network(self) -> tuple:
        """What two contenders share when their costs may be related: backbone, image and batch size, precision, and
        whether it is compiled.
        """
        train = self.train
        return self.settings["backbone"], self.image_size, train.batch_size, train.precision, train.compile


def lineup(params: Params, methods: list[str], *, image_size: int, batch_size: int) -> list[Contender]:
    """The methods, what stands beside the CoLoRA methods among them that `cost.references_of` names (by default the
    first on each backbone), and full fine-tuning on every backbone that has none. What a method equals
    is left out.

    Raises:
        ParamsError: a method that is not there, or `cost.references_of` names what is no CoLoRA method of the profile.
    """
    found = [_method(params, method, image_size, batch_size) for method in methods]
    adapted = [c for c in found if families()[c.family].kind == "adapt"]
    wanted = params.cost.references_of if params.cost else None
    if wanted is None:
        wanted = {c.settings["backbone"]: c.name for c in reversed(found) if c.family == "colora"}.values()
    for name in wanted:
        if params.settings(name)["family"] != "colora":
            raise ParamsError(
                f"cost.references_of: {name!r} is no CoLoRA method; reference implementations stand beside those only"
            )
    for contender in adapted:
        if contender.name in wanted:
            found += _references(contender, found)
    for contender in adapted:
        if full_beside(contender, found) is None:
            found.append(_plain(contender, "full"))
    return found


def growth(params: Params) -> list[Contender]:
    """The points of the sweeps that `cost.growth` asks for.

    Beside the value that is swept, image size and batch size are the profile's. A rank is swept for the methods that
    have one, alpha along with it; methods without one stand in at the profile's point, to compare with.

    Raises:
        ParamsError: a method that is not there.
    """
    asked, size, batch = params.cost.growth, params.data.image_size, params.train.batch_size
    found = []
    for method in asked.methods:
        own = replace(_method(params, method, size, batch), sweep="rank")
        found += [replace(_method(params, method, size, value), sweep="batch") for value in asked.batch_sizes]
        found += [replace(_method(params, method, value, batch), sweep="image") for value in asked.image_sizes]
        if "rank" in own.settings:
            for rank in asked.ranks:
                changed = {"rank": rank}
                if alpha := own.settings.get("alpha"):  # a default follows the rank by itself
                    changed["alpha"] = alpha * rank / own.settings["rank"]
                found.append(replace(own, settings=own.settings | changed))
        elif asked.ranks:
            found.append(own)
    return found


def full_beside(contender: Contender, among: list[Contender]) -> Contender | None:
    """Full fine-tuning of the same network in the same sweep, to which times and memory are related; none of a network
    from scratch.
    """
    same = (c for c in among if c.family == "full" and c.network == contender.network and c.sweep == contender.sweep)
    return next(same, None)


def _method(params: Params, method: str, image_size: int, batch_size: int) -> Contender:
    settings = params.settings(method)
    train = {**settings["train"], "batch_size": batch_size}
    return Contender(method, {**settings, "weights": "random", "train": train}, image_size)


def _references(colora: Contender, found: list[Contender]) -> list[Contender]:
    twin = replace(colora, name=f"{colora.name}-two-branch", form="two-branch", role="reference", of=colora.name)
    beside = [twin, replace(twin, name=f"{colora.name}-peft-lora-r{PEFT_RANK}", form="peft")]
    for family in ("full", "head_only"):
        if not any(c.family == family and c.network == colora.network for c in found):
            beside.append(_plain(colora, family))
    return beside


def _plain(contender: Contender, family: str) -> Contender:
    """A reference of a family without options, on the network of a contender."""
    kept = ("backbone", "weights", "head", "batchnorm", "train")
    settings = {"family": family, **{key: contender.settings[key] for key in kept if key in contender.settings}}
    name = f"{settings['backbone']}-{family.replace('_', '-')}"
    return Contender(name, settings, contender.image_size, "reference", contender.name)


def build(contender: Contender, num_classes: int) -> nn.Module:
    """The network of a contender, ready to train.

    Raises:
        LeftOut: a reference implementation whose package is not there, or refuses to make it.
        baselines.MethodError: the method's section is wrong.
    """
    own = _plain(contender, "head_only") if contender.form == "peft" else contender
    model = baselines.build(own.name, own.settings, num_classes=num_classes, image_size=own.image_size)
    if contender.form == "peft":
        _add_lora(model, contender)
    elif contender.form == "two-branch":
        for layer in model.modules():
            if isinstance(layer, ColoraConv2d):
                layer.forward = layer.two_branch
    return model


def _add_lora(model: nn.Module, contender: Contender) -> None:
    names = model.convolutions(contender.settings.get("blocks", (2, 5)))
    try:
        from peft import LoraConfig, inject_adapter_in_model

        with warnings.catch_warnings():  # nothing is merged here
            warnings.filterwarnings("ignore", "LoRA adapter added to ConvNd layer with groups > 1")
            inject_adapter_in_model(LoraConfig(r=PEFT_RANK, lora_alpha=2 * PEFT_RANK, target_modules=names), model)
    except ModuleNotFoundError as error:
        raise LeftOut(f"the package {error.name!r} is not installed") from error
    except ValueError as error:  # such as grouped convolutions whose groups do not divide the rank
        raise LeftOut(f"peft: {error}") from error
    model.head.requires_grad_(True)  # peft froze all that it did not add
