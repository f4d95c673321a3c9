"""Whole-model operations: put branches in, merge, reset, disable, count."""

import difflib
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from colora.config import ColoraConfig
from colora.conv import ColoraConv2d, refusal
from colora.names import inner_name, named_modules, plain
from colora.tensors import leave_inference_mode, overlaps


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
    names = [name for name, _ in named_modules(model)]
    return _select("modules_to_save", config.modules_to_save, names)


def _targets(model: nn.Module, config: ColoraConfig) -> dict[str, nn.Conv2d]:
    """Convolutions to adapt by name; a module used under several names appears under each."""
    modules = dict(named_modules(model))
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
    """Merging changes one kernel, so one tied to another module, as an object or in memory, would come apart."""
    names = {id(module): name for name, module in reversed(targets.items())}
    owners: dict[int, list[nn.Module]] = {}
    for module in dict.fromkeys(targets.values()):
        owners.setdefault(_storage(module.weight), []).append(module)
    for name, module in named_modules(model):
        for key, parameter in module._parameters.items():
            for owner in owners.get(_storage(parameter), ()) if parameter is not None else ():
                if (module, key) != (owner, "weight") and overlaps(parameter, owner.weight):
                    raise ValueError(
                        f"inject: {names[id(owner)]!r} shares its kernel with {f'{name}.{key}'!r}; "
                        "untie the weights or exclude it"
                    )


def _storage(parameter: nn.Parameter) -> int:
    """What two parameters that overlap have in common."""
    return id(parameter) if parameter.device.type == "meta" else parameter.untyped_storage().data_ptr()


def _check_wrappers(model: nn.Module, targets: dict[str, nn.Conv2d]) -> None:
    """Wrappers that hold on to what is to be replaced would go on without the branch."""
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, DistributedDataParallel):
            raise ValueError(
                f"inject: {f'{name!r} is' if name else 'the model is'} wrapped in DistributedDataParallel already, "
                "which would not average the gradients of the branches; inject first, then wrap"
            )
        kind = inner_name(module)
        if kind == "_orig_mod" and any(module._modules[kind] is conv for conv in targets.values()):
            raise TypeError(
                f"inject: the convolution {name!r} was compiled by itself and would go on computing without the "
                "branch; compile after inject"
            )


def layers(model: nn.Module) -> dict[str, ColoraConv2d]:
    """The adapted convolutions by plain name, each once. Raises ValueError if there are none."""
    found = {id(module): (name, module) for name, module in reversed(list(named_modules(model)))}
    adapted = {name: module for name, module in reversed(found.values()) if isinstance(module, ColoraConv2d)}
    if isinstance(plain(model), ColoraConv2d):
        adapted = {"": plain(model)}
    if not adapted:
        raise ValueError("the model has no CoLoRA layers; call colora.inject(model, config) first")
    return adapted


def changeable_layers(model: nn.Module) -> dict[str, ColoraConv2d]:
    """`layers` with parameters that can be written to: sharded where FSDP2 has gathered them, and none computed.

    Raises RuntimeError naming a layer with computed parameters, before any is changed.
    """
    adapted = layers(model)
    for name, layer in adapted.items():
        try:
            layer.check_plain()
        except RuntimeError as error:
            raise RuntimeError(f"{name!r}: {error}") from error
    for module in model.modules():
        if any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__):
            module.reshard()
    return adapted


@torch.inference_mode(False)
def inject(model: nn.Module, config: ColoraConfig | None = None) -> nn.Module:
    """Replace the convolutions that `config` names by `ColoraConv2d`, in place, and return the model.

    The update is zero at first, so outputs do not change. Every other parameter is frozen, except
    those of `config.modules_to_save`. Nothing is changed if an error is raised: TypeError for a match that cannot be
    adapted (not a Conv2d, its own forward, a bare Conv2d as the model), ValueError for names that match nothing or a
    model that has branches already, is wrapped in DistributedDataParallel, or ties a kernel to another module.
    Names are those of the plain model, without what torch.compile or DataParallel put before them.
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
    _check_wrappers(model, targets)
    _check_unshared(model, targets)
    saved = set(saved_modules(model, config))
    leave_inference_mode(model)
    adapted = {id(conv): ColoraConv2d.from_conv(conv, config) for conv in dict.fromkeys(targets.values())}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for name, module in named_modules(model):
        if name in saved:
            module.requires_grad_(True)
    _replace(model, adapted)
    return model


def _replace(model: nn.Module, new: dict[int, nn.Module]) -> None:
    """Put modules in the place of others, which `new` has by id, wherever these are used."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in new:
                setattr(parent, name, new[id(child)])


def merge(model: nn.Module) -> None:
    """Merge every branch into its kernel, in float32 at least, keeping the base for `unmerge`.

    A merged layer is one plain convolution. Layers merged already are left alone. A pointwise bias cannot be merged in
    general (zero padding pads after it): it is dropped as in the authors' code, with a UserWarning giving its size.
    Raises ValueError if the model has no CoLoRA layers.
    """
    adapted = changeable_layers(model)
    _warn_of_loss(adapted)
    for layer in adapted.values():
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
    for layer in changeable_layers(model).values():
        layer.unmerge()


def reset(model: nn.Module) -> None:
    """Start every branch afresh from a zero update.

    On merged layers the merged kernel becomes the new base, so `merge(model); reset(model)` is the paper's merge-reset
    step; on unmerged layers what the branch has learnt is thrown away. An optimizer keeps its moments: clear them or
    make a new one. Raises ValueError if the model has no CoLoRA layers.
    """
    for layer in changeable_layers(model).values():
        layer.reset()


def merge_and_unload(model: nn.Module) -> nn.Module:
    """Merge, put plain `torch.nn.Conv2d` modules back in place, and return the model.

    Its state-dict keys are those before `inject`. Parameters stay frozen or trainable as they are.
    """
    adapted = changeable_layers(model)
    _warn_of_loss(adapted)
    _replace(model, {id(layer): layer.to_conv() for layer in adapted.values()})
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
