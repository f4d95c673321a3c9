"""A checksum of a tensor's content, to tell one base model from another."""

import ctypes
import hashlib

import torch


def digest(tensor: torch.Tensor) -> str:
    """SHA-256 in hexadecimal of dtype, shape and row-major bytes; device and memory format do not count."""
    data = tensor.detach().cpu().contiguous()
    size = data.numel() * data.element_size()
    result = hashlib.sha256(f"{data.dtype} {tuple(data.shape)} ".encode())
    if size:
        # Through ctypes because a tensor's own road to its bytes needs NumPy, which this library does not depend on.
        result.update((ctypes.c_ubyte * size).from_address(data.data_ptr()))
    return result.hexdigest()
