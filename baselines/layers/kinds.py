"""Modules of a kind in the blocks of a `Classifier`, for families that adapt them one by one."""

from torch import nn

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def modules_in(model, blocks: tuple[int, int], kinds: tuple[type, ...]) -> dict[str, nn.Module]:
    """The modules of these kinds in blocks first..last, in order, by their names in the model."""
    return {
        f"{prefix}.{name}".rstrip("."): module
        for prefix in model.block_modules(blocks)
        for name, module in model.get_submodule(prefix).named_modules()
        if isinstance(module, kinds)
    }


def is_spatial(module: nn.Module) -> bool:
    """Whether it is a 2-D convolution with a kernel larger than 1x1."""
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1
