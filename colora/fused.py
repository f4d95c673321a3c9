"""The convolution by K0 + dK as one differentiable operation that never forms the dense kernel gradient.

Forward is a single dense convolution. Backward needs the gradient of the input (one dense convolution again) and of the
two small kernels, which follow from the two-branch form at about 2/k^2 of a dense kernel gradient:

    z  = pointwise(x)                        recomputed, so that only x is kept between the passes
    d depthwise[o,u,v] = sum z[o, p+uv] dy[o, p]
    dz = depthwise, transposed, of dy
    d pointwise[o,i]   = sum dz[o, q] x[i, q]
"""

from contextlib import nullcontext

import torch
from torch.nn import functional as F

Geometry = tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]  # stride, padding, dilation, groups


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which kernels are summed: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def merged_kernel(weight: torch.Tensor, pointwise: torch.Tensor, depthwise: torch.Tensor) -> torch.Tensor:
    """K0 + dK with dK[o,i,u,v] = depthwise[o,u,v] * pointwise[o,i], in float32 at least.

    weight: (O, I/groups, kh, kw); pointwise: (O, I/groups, 1, 1); depthwise: (O, 1, kh, kw).
    """
    dtype = accumulation_dtype(torch.promote_types(weight.dtype, pointwise.dtype))
    return torch.addcmul(weight.to(dtype), pointwise.to(dtype), depthwise.to(dtype))


class FusedConv2d(torch.autograd.Function):
    """y = conv2d(x, K0 + dK, bias); gradients for x, pointwise, depthwise and bias. The frozen K0 gets none.

    x: (N, I, H, W) in the compute dtype, bias: (O,) or None in the compute dtype, kernels as in `merged_kernel`.
    """

    @staticmethod
    def forward(x, weight, pointwise, depthwise, bias, geometry: Geometry):
        stride, padding, dilation, groups = geometry
        kernel = merged_kernel(weight, pointwise, depthwise).to(x.dtype)
        return F.conv2d(x, kernel, bias, stride, padding, dilation, groups)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, pointwise, depthwise, _, ctx.geometry = inputs
        ctx.save_for_backward(x, weight, pointwise, depthwise)

    @staticmethod
    def backward(ctx, dy):
        x, weight, pointwise, depthwise = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        need_x, _, need_pointwise, need_depthwise, need_bias, _ = ctx.needs_input_grad
        dx = d_pointwise = d_depthwise = d_bias = None
        channels = weight.shape[0]

        def backward_of(grad, source, kernel, stride, padding, dilation, groups, mask):
            return torch.ops.aten.convolution_backward(
                grad, source, kernel, None, stride, padding, dilation, False, [0, 0], groups, mask
            )

        # Everything here has the compute dtype already; an autocast region around backward must not mix another in.
        device = dy.device.type
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            if need_x:
                kernel = merged_kernel(weight, pointwise, depthwise).to(x.dtype)
                dx = backward_of(dy, x, kernel, stride, padding, dilation, groups, [True, False, False])[0]
            if need_pointwise or need_depthwise:
                small_p, small_d = pointwise.to(x.dtype), depthwise.to(x.dtype)
                # z is also the shape that the transposed depthwise needs, so it is made in either case.
                z = F.conv2d(x, small_p, groups=groups)
                dz, d_depthwise, _ = backward_of(
                    dy, z, small_d, stride, padding, dilation, channels, [need_pointwise, need_depthwise, False]
                )
                if need_depthwise:
                    d_depthwise = d_depthwise.to(depthwise.dtype)
                if need_pointwise:
                    d_pointwise = backward_of(dz, x, small_p, (1, 1), (0, 0), (1, 1), groups, [False, True, False])[
                        1
                    ].to(pointwise.dtype)
            if need_bias:
                d_bias = dy.sum((0, 2, 3))
        return dx, None, d_pointwise, d_depthwise, d_bias, None
