"""What to adapt and how: one frozen record, checked when it is made."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

COMPONENTS = ("both", "pointwise", "depthwise")
GRADIENTS = ("auto", "branch", "kernel")


def _pattern(field: str, value: object) -> None | str | tuple[str, ...]:
    """Check one name filter; a sequence comes back as a tuple so that the record stays hashable."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(
                f"ColoraConfig.{field}={value!r} is not a regular expression ({error}); "
                "a plain string is matched as one against the whole module name, a list holds names"
            ) from error
    return value if isinstance(value, str) else _names(field, value)


def _names(field: str, value: object) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, set, frozenset)):
        raise TypeError(
            f"ColoraConfig.{field} is {value!r} ({type(value).__name__}); expected a sequence of module names"
        )
    names = tuple(sorted(value) if isinstance(value, (set, frozenset)) else value)
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(f"ColoraConfig.{field} holds {name!r}; expected non-empty module names")
    return names


@dataclass(frozen=True)
class ColoraConfig:
    """Which convolutions get a CoLoRA branch, and its form.

    target_modules: None takes every `torch.nn.Conv2d` whose kernel is larger than 1x1, outside `modules_to_save`.
        A string is a regular expression for the whole module name; a sequence holds exact names or dotted suffixes
        ("conv1" also matches "layer1.0.conv1"), as in peft. A 1x1 convolution is left out by the default because its
        update (O*I + O numbers) would exceed the layer itself (O*I); naming it adapts it all the same.
    exclude_modules: same forms; what it matches is never adapted.
    modules_to_save: names or suffixes of modules (the head) that stay trainable and are saved with the adapter.
    pointwise_bias: True reproduces the authors' branch, whose merge loses that bias (see `colora.merge`).
    depthwise_bias: a trained bias per output channel, in convolutions that have a bias themselves. One without a bias
        gets none, so that a merged model has the original state-dict keys exactly.
    components: "both" trains pointwise and depthwise kernels. "depthwise" freezes the pointwise kernel at its random
        draw. "pointwise" freezes the depthwise kernel at the identity (1 at the centre tap), without a depthwise bias,
        so that the update is a 1x1 convolution through the centre tap.
    gradient: how the branch's gradients are computed, by two exact ways (`colora.fused`): "branch" by the two-branch
        form, "kernel" by the dense kernel's gradient, "auto" whichever is cheaper for the layer's shape on its type of
        device. What is learnt is the same up to rounding, so adapter files do not hold it.

    Raises TypeError or ValueError naming the field, what was found and what was expected.
    Source: Rivera and Hoyos, arXiv:2505.18315, section on CoLoRA; `components` covers the paper's ablation.
    """

    target_modules: None | str | Sequence[str] = None
    exclude_modules: None | str | Sequence[str] = None
    modules_to_save: None | Sequence[str] = ()
    pointwise_bias: bool = False
    depthwise_bias: bool = True
    components: str = "both"
    gradient: str = "auto"

    def __post_init__(self) -> None:
        target = _pattern("target_modules", self.target_modules)
        if target is not None and not target:
            raise ValueError("ColoraConfig.target_modules is empty; name convolutions, or None for the default")
        object.__setattr__(self, "target_modules", target)
        object.__setattr__(self, "exclude_modules", _pattern("exclude_modules", self.exclude_modules))
        saved = () if self.modules_to_save is None else _names("modules_to_save", self.modules_to_save)
        object.__setattr__(self, "modules_to_save", saved)
        for field in ("pointwise_bias", "depthwise_bias"):
            if not isinstance(getattr(self, field), bool):
                raise TypeError(f"ColoraConfig.{field} is {getattr(self, field)!r}; expected True or False")
        for field, choices in (("components", COMPONENTS), ("gradient", GRADIENTS)):
            if getattr(self, field) not in choices:
                raise ValueError(
                    f"ColoraConfig.{field} is {getattr(self, field)!r}; expected one of {', '.join(choices)}"
                )
        if self.components == "depthwise" and self.pointwise_bias:
            raise ValueError(
                'ColoraConfig: components="depthwise" freezes the pointwise convolution, so pointwise_bias=True has '
                "nothing to train; set pointwise_bias=False"
            )
