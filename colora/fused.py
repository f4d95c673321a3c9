"""The convolution by K0 + dK as one differentiable operation with two exact ways to the gradients of the branch.

Forward is a single dense convolution. Backward needs the gradient of the input (one dense convolution again) and of the
two small kernels, which follow in one of two ways, equal up to rounding:

    by the branch, which never forms a dense kernel gradient
        z  = pointwise(x)                        recomputed, so that only x is kept between the passes
        d depthwise[o,u,v] = sum z[o, p+uv] dy[o, p]
        dz = depthwise, transposed, of dy
        d pointwise[o,i]   = sum dz[o, q] x[i, q]

    by the kernel, dK being the dense kernel gradient
        d depthwise[o,u,v] = sum_i dK[o,i,u,v] pointwise[o,i]
        d pointwise[o,i]   = sum_uv dK[o,i,u,v] depthwise[o,u,v]

`kernel_is_cheaper` tells from the layer's shape which costs less.
"""

from contextlib import nullcontext

import torch
from torch.nn import functional as F

Geometry = tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]  # stride, padding, dilation, groups

# What a value of the two depthwise passes costs, in multiply-adds of a dense convolution. Fitted to layers timed by
# `python -m pipelines.costs.gradients`: cpu on two cores in float32; cuda on one H100 (torch 2.11) in bfloat16 and
# float32 (TF32), where both ways break even at about 128 inputs of a 3x3 kernel.
DEPTHWISE_COST = {"cpu": 40, "cuda": 100}


def kernel_is_cheaper(shape: torch.Size, stride: tuple[int, int], device_type: str) -> bool:
    """Whether the gradients by the kernel cost less than by the branch, for a kernel of shape (O, I/groups, kh, kw).

    For each value of the output, dK takes I/groups kh kw multiply-adds. The branch takes 2 I/groups sh sw in its two
    pointwise products, whose maps are sh sw times as large, and c kh kw in its two depthwise passes, which reach a
    fraction of a dense convolution's speed: the measured constant c = `DEPTHWISE_COST`. A device that is not named
    there is taken for cuda. The layer's shape and the type of device alone decide, never the batch or the image: the
    same layer gives the same numbers on every machine of a type.
    """
    _, inputs, rows, columns = shape
    cost = DEPTHWISE_COST.get(device_type, DEPTHWISE_COST["cuda"])
    return (inputs - cost) * rows * columns <= 2 * inputs * stride[0] * stride[1]


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which kernels are summed: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def merged_kernel(
    weight: torch.Tensor, pointwise: torch.Tensor, depthwise: torch.Tensor, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """K0 + dK with dK[o,i,u,v] = depthwise[o,u,v] * pointwise[o,i], in `dtype` or else in float32 at least.

    weight: (O, I/groups, kh, kw); pointwise: (O, I/groups, 1, 1); depthwise: (O, 1, kh, kw).
    """
    dtype = dtype or accumulation_dtype(torch.promote_types(weight.dtype, pointwise.dtype))
    return torch.addcmul(weight.to(dtype), pointwise.to(dtype), depthwise.to(dtype))


def _convolution_backward(dy, x, kernel, stride, padding, dilation, groups, mask):
    return torch.ops.aten.convolution_backward(
        dy, x, kernel, None, stride, padding, dilation, False, [0, 0], groups, mask
    )


def _channels_last(maps: torch.Tensor) -> torch.Tensor:
    """As `.contiguous(memory_format=torch.channels_last)`, which vmap does not know."""
    return maps.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _by_branch(dy, x, pointwise, depthwise, geometry, need_pointwise, need_depthwise):
    stride, padding, dilation, groups = geometry
    small_p, small_d = pointwise.to(x.dtype), depthwise.to(x.dtype)
    if x.device.type == "cpu":  # where a depthwise pass over contiguous maps takes up to twenty times as long
        x, dy = _channels_last(x), _channels_last(dy)
    # z is also the shape that the transposed depthwise needs, so it is made in either case.
    z = F.conv2d(x, small_p, groups=groups)
    mask = [need_pointwise, need_depthwise, False]
    dz, d_depthwise, _ = _convolution_backward(dy, z, small_d, stride, padding, dilation, len(depthwise), mask)
    if not need_pointwise:
        return None, d_depthwise
    mask = [False, True, False]
    return _convolution_backward(dz, x, small_p, (1, 1), (0, 0), (1, 1), groups, mask)[1], d_depthwise


def _by_kernel(d_kernel, pointwise, depthwise, need_pointwise, need_depthwise):
    """Sums in float32 at least."""
    d_pointwise = d_depthwise = None
    dtype = accumulation_dtype(d_kernel.dtype)
    if need_pointwise:
        d_pointwise = (d_kernel * depthwise.to(dtype)).sum((2, 3), keepdim=True)
    if need_depthwise:
        d_depthwise = (d_kernel * pointwise.to(dtype)).sum(1, keepdim=True)
    return d_pointwise, d_depthwise


class FusedConv2d(torch.autograd.Function):
    """y = conv2d(x, K0 + dK, bias); gradients for x, pointwise, depthwise and bias. The frozen K0 gets none.

    x: (N, I, H, W) in the compute dtype, bias: (O,) or None in the compute dtype, kernels as in `merged_kernel`;
    by_kernel: which of the two ways the gradients go.
    """

    generate_vmap_rule = True  # per-sample gradients, torch.func.vmap(torch.func.grad(f))

    @staticmethod
    def forward(x, weight, pointwise, depthwise, bias, geometry: Geometry, by_kernel: bool):
        stride, padding, dilation, groups = geometry
        kernel = merged_kernel(weight, pointwise, depthwise).to(x.dtype)
        return F.conv2d(x, kernel, bias, stride, padding, dilation, groups)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, pointwise, depthwise, _, ctx.geometry, ctx.by_kernel = inputs
        ctx.save_for_backward(x, weight, pointwise, depthwise)

    @staticmethod
    def backward(ctx, dy):
        x, weight, pointwise, depthwise = ctx.saved_tensors
        need_x, _, need_pointwise, need_depthwise, need_bias, _, _ = ctx.needs_input_grad
        need_branch = need_pointwise or need_depthwise
        dx = d_kernel = d_pointwise = d_depthwise = d_bias = None
        # Everything here has the compute dtype already; an autocast region around backward must not mix another in.
        device = dy.device.type
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            dense = [need_x, need_branch and ctx.by_kernel, False]
            if any(dense):
                kernel = merged_kernel(weight, pointwise, depthwise).to(x.dtype) if need_x else weight.to(x.dtype)
                dx, d_kernel, _ = _convolution_backward(dy, x, kernel, *ctx.geometry, dense)
            if need_branch and ctx.by_kernel:
                small = _by_kernel(d_kernel, pointwise, depthwise, need_pointwise, need_depthwise)
            elif need_branch:
                small = _by_branch(dy, x, pointwise, depthwise, ctx.geometry, need_pointwise, need_depthwise)
            if need_pointwise:
                d_pointwise = small[0].to(pointwise.dtype)
            if need_depthwise:
                d_depthwise = small[1].to(depthwise.dtype)
            if need_bias:
                d_bias = dy.sum((0, 2, 3))
        return dx, None, d_pointwise, d_depthwise, d_bias, None, None
