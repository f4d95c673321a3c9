"""A checksum of a tensor's content."""

import hashlib

import torch


def digest(tensor: torch.Tensor) -> str:
    """SHA-256 in hexadecimal of dtype, shape and row-major content; device and memory format do not count."""
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + content.tobytes()).hexdigest()
