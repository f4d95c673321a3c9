"""Names of modules and tensors as the plain model has them, whatever is wrapped around it or its parts."""

from collections.abc import Iterator

from torch import nn

# A wrapper's class and the name under which it keeps what it wraps.
WRAPPERS = {
    "OptimizedModule": "_orig_mod",  # torch.compile
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "AveragedModel": "module",  # torch.optim.swa_utils
}


def inner_name(module: nn.Module) -> str | None:
    """The name of what a wrapper wraps, or None for any other module."""
    for kind in type(module).__mro__:
        if kind.__module__.startswith("torch.") and kind.__name__ in WRAPPERS:
            return WRAPPERS[kind.__name__]
    return None


def plain(model: nn.Module) -> nn.Module:
    """The model without the wrappers around it."""
    while (name := inner_name(model)) is not None:
        model = model._modules[name]
    return model


def plain_name(model: nn.Module, name: str) -> str:
    """A module's, parameter's or buffer's name in `model` without the parts that wrappers add."""
    kept, module = [], model
    for part in name.split("."):
        if module is None or part not in module._modules or inner_name(module) != part:
            kept.append(part)
        module = None if module is None else module._modules.get(part)
    return ".".join(kept)


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module within `model` by plain name, one used under several names under each; wrappers are left out."""
    for name, module in model.named_modules(remove_duplicate=False):
        if name and inner_name(module) is None and (short := plain_name(model, name)):
            yield short, module
