"""Reading and replacing tensors wherever they live: sharded over processes, made in inference mode, without values."""

import hashlib
import sys

import torch
from torch import nn


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether this is a DTensor, as FSDP2's `fully_shard` makes parameters."""
    distributed = sys.modules.get("torch.distributed.tensor")  # slow to import, and there is no DTensor without it
    return distributed is not None and isinstance(tensor, distributed.DTensor)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or all of a sharded one; then every process of its mesh has to call this."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def like(value: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """`value` on the target's device, and sharded as the target is, by the values that the first process has."""
    value = value.to(target.device)
    if not is_sharded(target):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, target.device_mesh, target.placements)


@torch.no_grad()
def replace(target: torch.Tensor, value: torch.Tensor) -> None:
    """Give a parameter or buffer new values in storage of its own, so that nothing else that held the old one changes.

    A sharded one is overwritten, because FSDP2 gathers from the storage that it allotted. `value` has the target's
    shape, and may have another dtype, which it keeps.
    """
    if is_sharded(target):
        target.copy_(value)
        return
    with torch.inference_mode(target.is_inference()):  # such a tensor can be changed in that mode alone
        target.data = torch.empty_like(target, dtype=value.dtype).copy_(value)  # the memory format stays


def leave_inference_mode(module: nn.Module) -> None:
    """Copy the parameters and buffers that were made in inference mode, through which no gradient can pass."""
    copies: dict[torch.Tensor, torch.Tensor] = {}  # tied ones stay tied
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and tensor.is_inference():
                    if tensor not in copies:
                        copy = tensor.clone()
                        copies[tensor] = nn.Parameter(copy, False) if isinstance(tensor, nn.Parameter) else copy
                    tensors[name] = copies[tensor]


def overlaps(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have memory in common. Tensors without memory (meta, fake) have not, unless they are one."""
    if one is other:
        return True
    if is_sharded(one) or is_sharded(other):
        return is_sharded(one) and is_sharded(other) and overlaps(one.to_local(), other.to_local())
    if one.device.type == "meta" or one.device != other.device or not one.numel() or not other.numel():
        return False
    (start, end), (other_start, other_end) = _span(one), _span(other)
    return start < other_end and other_start < end


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def digest(tensor: torch.Tensor) -> str:
    """SHA-256 in hexadecimal of dtype, shape and row-major content; device, memory format and sharding do not count.

    Raises ValueError for a tensor on the meta device.
    """
    if tensor.is_meta:
        raise ValueError(
            f"a tensor of shape {tuple(tensor.shape)} is on the meta device and has no values to tell a base model by; "
            "load the weights first (to_empty and load_state_dict, or load_state_dict(assign=True))"
        )
    content = whole(tensor.detach()).cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + content.tobytes()).hexdigest()
