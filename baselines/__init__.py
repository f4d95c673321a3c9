"""The compared methods. One file a family: what it does, and the facts about it that reports show.

A family file has one of two functions, whose keyword arguments are its options and so its schema:

    adapt(model, *, options)                        changes a pretrained `Classifier` in place (what trains, which
                                                    modules are added) and returns it
    network(*, num_classes, image_size, options)    makes a network of its own, all of which trains, from scratch; where
                                                    runs are probed it needs a method last_map() (see `Classifier`)

and beside it `FAMILY = Family(label=..., ...)` of plain values, which `families` reads without importing the file, and
so without torch. `backbones/` holds the pretrained networks, `layers/` what several families are made of.
"""

import ast
import difflib
import functools
import importlib
import inspect
import json
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path

if typing.TYPE_CHECKING:
    from torch import nn

MODEL_KEYS = ("backbone", "weights", "head", "batchnorm", "input_size")
CNN, VIT = "CNN", "ViT"


class MethodError(ValueError):
    """A method's section that cannot be built; the message names the method, the key, and what was expected."""


@dataclass(frozen=True)
class Family:
    """The facts about a family.

    label: as figures and tables name it; by default the file's name. group: the methods it is shown with; by default
    those on its backbone, "CNN" or "ViT", and "other" for a network of its own. colours: by group, as "#RRGGBB", or one
    for all; without one a report takes a spare one. packages: what must be installed that the suite does not bring.
    """

    label: str = ""
    group: str = ""
    colours: str | dict[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    name: str = ""  # of the file
    kind: typing.Literal["adapt", "network"] = "adapt"  # which of the two functions it has

    def colour(self, group: str) -> str | None:
        return self.colours if isinstance(self.colours, str) else self.colours.get(group)


def families(folder: Path = Path(__file__).parent) -> dict[str, Family]:
    """The facts of every family of the folder, by its name, read without importing anything.

    Raises:
        MethodError: a file without `adapt` or `network`, or whose `FAMILY` is no call of plain values.
    """
    return {p.stem: _facts(p, p.stat().st_mtime_ns) for p in sorted(folder.glob("*.py")) if p.stem != "__init__"}


@functools.cache
def _facts(path: Path, _changed: int) -> Family:
    body = ast.parse(path.read_text(encoding="utf-8"), filename=str(path)).body
    kinds = [n.name for n in body if isinstance(n, ast.FunctionDef) and n.name in ("adapt", "network")]
    if len(kinds) != 1:
        raise MethodError(f"{path}: found {' and '.join(kinds) or 'neither'}, expected one of adapt() and network()")
    facts = {}
    for node in body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "FAMILY" for t in node.targets):
            try:
                facts = {k.arg: ast.literal_eval(k.value) for k in node.value.keywords}
                facts = {**facts, "packages": tuple(facts.get("packages", ()))}
                return Family(**{"label": path.stem, **facts}, name=path.stem, kind=kinds[0])
            except (AttributeError, ValueError, TypeError) as error:
                raise MethodError(
                    f"{path}: FAMILY cannot be read ({error}); expected Family(label=..., group=..., colours=..., "
                    "packages=...) of plain values"
                ) from None
    return Family(label=path.stem, name=path.stem, kind=kinds[0])


def group(family: str, backbone: str) -> str:
    """The group that a method is shown in: its family's, else that of its backbone. Known without importing either."""
    facts = families().get(family, Family())
    if facts.group or facts.kind == "network":
        return facts.group or "other"
    return VIT if re.search(r"vit|deit|swin|transformer|mixer|beit|eva", str(backbone)) else CNN


def build(method: str, settings: dict, *, num_classes: int, image_size: int, weights: str | None = None) -> "nn.Module":
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
        MethodError: unknown family or option, an option missing, of the wrong type or out of range, or a package that
            is not installed.
        baselines.backbones.WeightsError, a MethodError: the weights cannot be had or belong to another model.
    """
    options = {key: value for key, value in settings.items() if key != "train"}
    family = options.pop("family", method)
    known = families()
    if family not in known:
        raise MethodError(
            f"method {method!r}: no family {family!r}{_near(family, known)}; families: {', '.join(known)}"
        )
    own = known[family].kind == "network"
    # A network of a family's own may have an option input_size too.
    model_options = {
        key: options.pop(key) for key in MODEL_KEYS if key in options and not (own and key == "input_size")
    }
    if weights is not None:
        model_options["weights"] = weights
    if own:
        _check_from_scratch(method, family, model_options)
    try:
        make = getattr(importlib.import_module(f"baselines.{family}"), known[family].kind)
        options = _checked(method, family, make, options, () if own else MODEL_KEYS)
        if own:
            return make(num_classes=num_classes, image_size=image_size, **options)
        from baselines.backbones import classifier

        model = classifier(num_classes=num_classes, image_size=image_size, **model_options)
        return make(model, **options)
    except ModuleNotFoundError as error:
        raise MethodError(
            f"method {method!r} needs the package {error.name!r}, which is not installed; `pip install {error.name}`"
        ) from error
    except MethodError:
        raise
    except ValueError as error:
        raise MethodError(f"method {method!r}: {error}") from error


def _checked(method, family, make, options, model_keys) -> dict:
    """The options as `make` is to have them: each known, of the type it states, and none missing."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    parameters = inspect.signature(make, eval_str=True).parameters
    accepted = {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    accepted = {name: p for name, p in accepted.items() if name not in ("num_classes", "image_size")}
    known = (*accepted, *model_keys)
    found = {}
    for key, value in options.items():
        if key not in accepted:
            raise MethodError(
                f"method {method!r}: family {family!r} has no option {key!r}{_near(key, known)}; "
                f"options: {', '.join(known)}"
            )
        kind = accepted[key].annotation
        if kind is inspect.Parameter.empty:
            found[key] = value
            continue
        try:  # as JSON, in which a list may be a tuple, but no text a number
            found[key] = TypeAdapter(kind, config=ConfigDict(strict=True)).validate_json(json.dumps(value))
        except (ValidationError, TypeError):
            name = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
            raise MethodError(f"method {method!r}: {key}: found {value!r}, expected {name}") from None
    missing = [name for name, p in accepted.items() if p.default is p.empty and name not in found]
    if missing:
        raise MethodError(f"method {method!r}: family {family!r} needs an option {missing[0]!r}")
    return found


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
