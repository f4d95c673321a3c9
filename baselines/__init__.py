"""The compared methods. One file a family; `build` finds the file by the method's `family` setting.

A family file has one of two functions, whose keyword arguments are its options and so its schema:

    adapt(model, *, options)                        changes a pretrained `Classifier` in place (what trains, which
                                                    modules are added) and returns it
    network(*, num_classes, image_size, options)    makes a network of its own, all of which trains, from scratch

`backbones/` holds the pretrained networks, `layers/` what several families are made of.
"""

import difflib
import importlib
import inspect
from pathlib import Path

from torch import nn

from baselines.backbones import classifier

FAMILIES = tuple(sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__"))
MODEL_KEYS = ("backbone", "weights", "head", "batchnorm")


class MethodError(ValueError):
    """A method's section that cannot be built; the message names the method, the key, and what was expected."""


def build(method: str, settings: dict, *, num_classes: int, image_size: int, weights: str | None = None) -> nn.Module:
    """The network of one method, ready to train: what trains has `requires_grad`, all else is frozen.

    Args:
        method: the method's name, for messages.
        settings: its section with the profile's defaults filled in: `family`, `backbone`, `weights`
            ("imagenet", "random", or a safetensors file), `head`, `batchnorm`, and the family's own options.
            A `train` section is not looked at.
        num_classes: outputs of the network.
        image_size: height and width of the input in pixels; the input is (batch, 3, image_size, image_size).
        weights: replaces `settings["weights"]`, e.g. "random" where only shapes matter.

    Raises:
        MethodError: unknown family or option, an option out of range, or a package that is not installed.
        baselines.backbones.WeightsError: the weights cannot be had or belong to another model.
    """
    options = {key: value for key, value in settings.items() if key != "train"}
    family = options.pop("family", method)
    if family not in FAMILIES:
        raise MethodError(
            f"method {method!r}: no family {family!r}{_near(family, FAMILIES)}; families: {', '.join(FAMILIES)}"
        )
    module = importlib.import_module(f"baselines.{family}")
    model_options = {key: options.pop(key) for key in MODEL_KEYS if key in options}
    if weights is not None:
        model_options["weights"] = weights
    make = getattr(module, "network", None)
    _check_options(method, family, make or module.adapt, options, () if make else MODEL_KEYS)
    if make:
        _check_from_scratch(method, family, model_options)
    try:
        model = None if make else classifier(num_classes=num_classes, image_size=image_size, **model_options)
        try:
            if make:
                return make(num_classes=num_classes, image_size=image_size, **options)
            return module.adapt(model, **options)
        except ValueError as error:
            raise MethodError(f"method {method!r}: {error}") from error
    except ModuleNotFoundError as error:
        raise MethodError(
            f"method {method!r} needs the package {error.name!r}, which is not installed; `pip install {error.name}`"
        ) from error


def _check_options(method, family, make, options, model_keys):
    accepted = [name for name, p in inspect.signature(make).parameters.items() if p.kind is p.KEYWORD_ONLY]
    accepted = [name for name in accepted if name not in ("num_classes", "image_size")]
    for key in options:
        if key not in accepted:
            known = (*accepted, *model_keys)
            raise MethodError(
                f"method {method!r}: family {family!r} has no option {key!r}{_near(key, known)}; options: {', '.join(known)}"
            )


def _check_from_scratch(method, family, model_options):
    """A network of a family's own has no pretrained weights: asking for some must not pass unnoticed."""
    found = model_options.get("weights", "random")
    if found != "random":
        raise MethodError(
            f"method {method!r}: family {family!r} trains from scratch, found weights {found!r}; "
            "leave `weights` out or say 'random'"
        )


def _near(name, names):
    close = difflib.get_close_matches(str(name), names, n=2)
    return f" (did you mean {' or '.join(repr(c) for c in close)}?)" if close else ""
