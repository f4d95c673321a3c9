"""Whole-model operations: put branches in, merge, reset, disable, count."""

import difflib
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from colora.config import ColoraConfig
from colora.conv import ColoraConv2d, refusal


def _suffix(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith("." + wanted)


def _select(field: str, wanted: None | str | Sequence[str], names: Sequence[str]) -> list[str]:
    """The names that `wanted` matches, in order. Raises ValueError with near names for an entry that matches none."""
    if wanted is None:
        return []
    if isinstance(wanted, str):
        found = [name for name in names if re.fullmatch(wanted, name)]
        if not found:
            raise ValueError(
                f"ColoraConfig.{field}: the regular expression {wanted!r} matches no whole module name; "
                f"near: {_near(wanted, names)}. See [name for name, _ in model.named_modules()]"
            )
        return found
    for entry in wanted:
        if not any(_suffix(name, entry) for name in names):
            raise ValueError(
                f"ColoraConfig.{field}: {entry!r} is neither a module name nor a dotted suffix of one; "
                f"near: {_near(entry, names)}. See [name for name, _ in model.named_modules()]"
            )
    return [name for name in names if any(_suffix(name, entry) for entry in wanted)]


def _near(wanted: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(wanted, names, n=5, cutoff=0.3)
    return ", ".join(map(repr, close or names[:5])) or "the model has no submodules"


def saved_modules(model: nn.Module, config: ColoraConfig) -> list[str]:
    """Names of the modules that `config.modules_to_save` matches."""
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    return _select("modules_to_save", config.modules_to_save, names)


def _targets(model: nn.Module, config: ColoraConfig) -> dict[str, nn.Conv2d]:
    """Convolutions to adapt by name; a module used under several names appears under each."""
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    names = list(modules)
    excluded = set(_select("exclude_modules", config.exclude_modules, names))
    saved = saved_modules(model, config)
    inside = {name for name in names if any(name == s or name.startswith(s + ".") for s in saved)}
    if config.target_modules is None:
        chosen = [
            name
            for name, module in modules.items()
            if isinstance(module, nn.Conv2d) and tuple(module.kernel_size) != (1, 1) and name not in inside
        ]
        if not chosen:
            raise ValueError(
                "inject: the model has no torch.nn.Conv2d with a kernel larger than 1x1 outside modules_to_save; "
                "name the convolutions in ColoraConfig.target_modules"
            )
    else:
        chosen = _select("target_modules", config.target_modules, names)
    chosen = [name for name in chosen if name not in excluded]
    if not chosen:
        raise ValueError("inject: exclude_modules takes away every module that target_modules matches; narrow it")
    convolutions = [name for name, module in modules.items() if isinstance(module, nn.Conv2d)]
    for name in chosen:
        if name in inside:
            raise ValueError(f"inject: {name!r} is both a target and in modules_to_save; take it out of one of them")
        reason = refusal(modules[name])
        if reason:
            raise TypeError(
                f"inject: cannot adapt {name!r}: {reason}. Near convolutions: {_near(name, convolutions)}; "
                "narrow target_modules or name it in exclude_modules"
            )
    return {name: modules[name] for name in chosen}


def _check_unshared(model: nn.Module, targets: dict[str, nn.Conv2d]) -> None:
    """Merging writes into the kernel, so a kernel tied to another module would change that one too."""
    owners: dict[int, nn.Module] = {id(module.weight): module for module in targets.values()}
    names = {id(module): name for name, module in targets.items()}
    for name, module in model.named_modules():
        for key, parameter in module._parameters.items():
            owner = owners.get(id(parameter))
            if owner is not None and owner is not module:
                raise ValueError(
                    f"inject: {names[id(owner)]!r} shares its kernel with {f'{name}.{key}'!r}; "
                    "untie the weights or exclude it"
                )


def layers(model: nn.Module) -> dict[str, ColoraConv2d]:
    """The adapted convolutions by name. Raises ValueError if there are none."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, ColoraConv2d)}
    if not found:
        raise ValueError("the model has no CoLoRA layers; call colora.inject(model, config) first")
    return found


def inject(model: nn.Module, config: ColoraConfig | None = None) -> nn.Module:
    """Replace the convolutions that `config` names by `ColoraConv2d`, in place, and return the model.

    The update is zero at first, so outputs do not change. Every other parameter is frozen, except
    those of `config.modules_to_save`. Nothing is changed if an error is raised: TypeError for a match that cannot be
    adapted (not a Conv2d, its own forward, a bare Conv2d as the model), ValueError for names that match nothing or a
    model that has branches already.
    """
    config = config or ColoraConfig()
    if not isinstance(config, ColoraConfig):
        raise TypeError(f"inject: config is a {type(config).__name__}; expected a ColoraConfig")
    if not isinstance(model, nn.Module):
        raise TypeError(f"inject: model is a {type(model).__name__}; expected a torch.nn.Module")
    if any(isinstance(module, ColoraConv2d) for module in model.modules()):
        raise ValueError("inject: the model has CoLoRA layers already; merge_and_unload(model) first, or use a new one")
    if isinstance(model, nn.Conv2d):
        raise TypeError(
            "inject: the model is itself a Conv2d, which cannot be replaced in place; "
            "wrap it in torch.nn.Sequential, or use ColoraConv2d.from_conv(conv, config)"
        )
    targets = _targets(model, config)
    _check_unshared(model, targets)
    saved = saved_modules(model, config)
    adapted = {id(conv): ColoraConv2d.from_conv(conv, config) for conv in dict.fromkeys(targets.values())}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for name in saved:
        for parameter in model.get_submodule(name).parameters():
            parameter.requires_grad_(True)
    _replace(model, {name: adapted[id(conv)] for name, conv in targets.items()})
    return model


def _replace(model: nn.Module, modules: dict[str, nn.Module]) -> None:
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module)


def merge(model: nn.Module) -> None:
    """Merge every branch into its kernel, in float32 at least, keeping the base for `unmerge`.

    A merged layer is one plain convolution. Layers merged already are left alone. A pointwise bias cannot be merged in
    general (zero padding pads after it): it is dropped as in the authors' code, with a UserWarning giving its size.
    Raises ValueError if the model has no CoLoRA layers.
    """
    _warn_of_loss(layers(model))
    for layer in layers(model).values():
        layer.merge()


def _warn_of_loss(adapted: dict[str, ColoraConv2d]) -> None:
    lost = {name: layer.lost_by_merge() for name, layer in adapted.items() if not layer.merged}
    worst = max(lost, key=lost.__getitem__, default=None)
    if worst is not None and lost[worst] > 0:
        warnings.warn(
            f"merging drops the pointwise biases, as the CoLoRA authors' merge does: away from borders this shifts "
            f"outputs by up to {lost[worst]:.3g} (|pointwise bias x sum of the depthwise kernel|, largest in "
            f"{worst!r}; at zero-padded borders only part of the kernel counts). pointwise_bias=False merges exactly",
            UserWarning,
            stacklevel=3,
        )


def unmerge(model: nn.Module) -> None:
    """Restore the base kernels and biases bit for bit; layers that are not merged are left alone."""
    for layer in layers(model).values():
        layer.unmerge()


def reset(model: nn.Module) -> None:
    """Start every branch afresh from a zero update.

    On merged layers the merged kernel becomes the new base, so `merge(model); reset(model)` is the paper's merge-reset
    step; on unmerged layers what the branch has learnt is thrown away. An optimizer keeps its moments: clear them or
    make a new one. Raises ValueError if the model has no CoLoRA layers.
    """
    for layer in layers(model).values():
        layer.reset()


def merge_and_unload(model: nn.Module) -> nn.Module:
    """Merge, put plain `torch.nn.Conv2d` modules back in place, and return the model.

    Its state-dict keys are those before `inject`. Parameters stay frozen or trainable as they are.
    """
    names = [name for name, m in model.named_modules(remove_duplicate=False) if isinstance(m, ColoraConv2d)]
    _warn_of_loss(layers(model))
    plain: dict[int, nn.Conv2d] = {}
    for name in names:
        layer = model.get_submodule(name)
        if id(layer) not in plain:
            plain[id(layer)] = layer.to_conv()
    _replace(model, {name: plain[id(model.get_submodule(name))] for name in names})
    return model


@contextmanager
def disable_adapter(model: nn.Module) -> Iterator[nn.Module]:
    """Within the block the model computes with its base kernels alone, merged or not; blocks may nest."""
    before = {layer: layer.disabled for layer in layers(model).values()}
    for layer in before:
        layer.disabled = True
    try:
        yield model
    finally:
        for layer, disabled in before.items():
            layer.disabled = disabled


def trainable_parameters(model: nn.Module) -> int:
    """Number of scalars that training changes: those of parameters with requires_grad."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
