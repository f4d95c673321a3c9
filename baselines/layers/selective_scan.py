"""The selective scan of Mamba under mamba-ssm's names, by its CUDA kernel or by our own code (`scan.py`).

Source: Gu and Dao 2023, arXiv:2312.00752, section 3.2.
"""

import importlib
import operator

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.layers.scan import plan, scan, state_dtype

BACKENDS = ("auto", "torch", "mamba-ssm")


def selective_scan(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    return_last_state=False,
    *,
    backend="auto",
    _chunks=None,
    _segment=None,
):
    """x_t = exp(delta_t A) x_{t-1} + delta_t B_t u_t; y_t = C_t x_t + D u_t.

    Returns y (batch, D, L) in u's dtype; with `return_last_state` also x_L (batch, D, N) in the dtype of the state.

    Names, shapes and meaning are those of `mamba_ssm.ops.selective_scan_interface.selective_scan_fn`. State and
    arithmetic are float32, or float64 where u, delta, A, B or C is, whatever the other dtypes and autocast. (On CUDA
    torch's `float32_matmul_precision` applies to the sums over N and D.) All tensors have gradients.

    Args:
        u, delta: (batch, D, L), the input and the step sizes.
        A: (D, N), real; negative for a stable system.
        B, C: (D, N), (batch, N, L), or (batch, G, N, L) where each of G groups serves D/G adjacent channels.
        D: (D,), what of u is added to y.
        z: (batch, D, L), y is multiplied by silu(z).
        delta_bias: (D,), added to delta.
        delta_softplus: whether softplus is applied to delta, after the bias.
        backend: "torch" is the code here; "mamba-ssm" the package's CUDA kernel, which has no gradient through the last
            state and sums some gradients in no fixed order; "auto" the kernel where it is installed, takes u's device
            and the dtypes, and torch is not told to be deterministic, else the code here.
        _chunks, _segment: for tests, instead of the device's rule.

    Raises:
        ValueError: an argument of a wrong shape, dtype or device, or an unknown backend.
        ModuleNotFoundError: `backend="mamba-ssm"` without the package.
    """
    B, C = _checked(u, delta, A, B, C, D, z, delta_bias)
    if backend not in BACKENDS:
        raise ValueError(f"backend: found {backend!r}, expected one of {', '.join(BACKENDS)}")
    if backend == "mamba-ssm" and not (u.is_cuda or u.is_meta):
        raise ValueError(f"backend: 'mamba-ssm' is a CUDA kernel, found u on {u.device}; use 'auto' or 'torch'")
    forced = backend == "mamba-ssm"
    if u.is_cuda and (forced or backend == "auto" and _suits_mamba_ssm(u, delta, A, B, C, D, z, delta_bias)):
        kernel = mamba_ssm(required=forced)
        if kernel is not None:
            return kernel(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)

    dtype = state_dtype(u, delta, A, B, C)
    if delta_bias is not None or delta_softplus:
        delta = delta.to(dtype)
        if delta_bias is not None:
            delta = delta + delta_bias.to(dtype)[:, None]
        if delta_softplus:
            delta = F.softplus(delta)
    chunks, segment = plan(u.shape[0], A.numel(), u.shape[2], u.device.type, _chunks, _segment)
    y, last, _ = scan(u, delta, A, B, C, chunks, segment)
    if D is not None:
        y = torch.addcmul(y, u.to(dtype), D.to(dtype)[:, None])
    if z is not None:
        y = y * F.silu(z.to(dtype))
    y = y.to(u.dtype)
    return (y, last) if return_last_state else y


def _checked(u, delta, A, B, C, D, z, delta_bias):
    """Raise on what does not fit; B and C as (D, N) or as (batch, G, N, L) with one G."""

    def require(name, tensor, *shapes):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            found = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"{name}: found {found}, expected a tensor of a real floating-point dtype")
        # Number by number: under torch.compile(dynamic=True) the same symbolic sizes need not be equal as tuples.
        if not any(len(shape) == tensor.ndim and all(map(operator.eq, tensor.shape, shape)) for shape in shapes):
            raise ValueError(f"{name}: found shape {tuple(tensor.shape)}, expected {' or '.join(map(str, shapes))}")
        if tensor.device != u.device:
            raise ValueError(f"{name}: found on {tensor.device}, expected on {u.device} as u is")

    def require_rank(name, tensor, rank, form):
        if isinstance(tensor, Tensor) and (tensor.ndim != rank or 0 in tensor.shape[1:]):
            raise ValueError(f"{name}: found shape {tuple(tensor.shape)}, expected {form}, none of them empty")

    require_rank("u", u, 3, "(batch, D, L)")
    require("u", u, tuple(getattr(u, "shape", ())))
    batch, channels, length = u.shape
    require("delta", delta, (batch, channels, length))
    require_rank("A", A, 2, "(D, N)")
    require("A", A, (channels, *getattr(A, "shape", ())[1:]))
    states = A.shape[1]
    for name, tensor in (("B", B), ("C", C)):
        groups = tensor.shape[1] if isinstance(tensor, Tensor) and tensor.ndim == 4 else 1
        if groups == 0 or channels % groups:
            raise ValueError(f"{name}: found {groups} groups, expected a divisor of the {channels} channels of u")
        forms = (channels, states), (batch, states, length), (batch, groups, states, length)
        require(name, tensor, *forms[: None if groups > 1 or getattr(tensor, "ndim", 0) == 4 else 2])
    for name, tensor, shape in (("D", D, (channels,)), ("z", z, u.shape), ("delta_bias", delta_bias, (channels,))):
        if tensor is not None:
            require(name, tensor, tuple(shape))

    B, C = (x.unsqueeze(1) if x.ndim == 3 else x for x in (B, C))
    if B.ndim == C.ndim == 4 and B.shape[1] != C.shape[1]:
        few, many = sorted((B.shape[1], C.shape[1]))
        if many % few:
            raise ValueError(f"C: found {C.shape[1]} groups, expected a multiple or a divisor of the {B.shape[1]} of B")
        B, C = (x.repeat_interleave(many // x.shape[1], 1) for x in (B, C))
    return B, C


def _suits_mamba_ssm(u, delta, A, B, C, D, z, delta_bias) -> bool:
    """Whether the CUDA kernel takes these dtypes, one for all that has a time axis and float32 for the rest, and may be
    used: it sums some gradients by atomic additions, in no fixed order, and torch does not know."""
    if torch.are_deterministic_algorithms_enabled():
        return False
    moving = [x for x in (delta, z) if x is not None] + [x for x in (B, C) if x.ndim == 4]
    fixed = [x for x in (A, D, delta_bias) if x is not None] + [x for x in (B, C) if x.ndim == 2]
    return (
        u.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and all(x.dtype == u.dtype for x in moving)
        and all(x.dtype == torch.float32 for x in fixed)
    )


def mamba_ssm(required: bool):
    """The package's function; without the package None, or an error where it is required."""
    try:
        return importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    except ImportError as error:
        if not required:
            return None
        raise ModuleNotFoundError(
            f"backend 'mamba-ssm' needs the package mamba_ssm, which cannot be imported ({error}); "
            "install it with 'pip install mamba-ssm' (it needs a CUDA build of torch), or use backend 'torch'"
        ) from error
