"""Kolmogorov-Arnold layers (Liu et al., arXiv:2404.19756): a learned curve on every edge, summed at every node.

A curve is base * SiLU(x) + a B-spline (section 2.2, equations 2.10 to 2.12). The efficient form computes the spline
basis of each input once and sums all edges in one matrix product. Parameters, buffers and options carry the names and
shapes of Blealtan's efficient-kan, so its checkpoints load.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

# Elements of one temporary on a CPU: its passes stay in the cache and still keep several threads busy (2.5x faster).
_CHUNK = 1 << 19


def b_splines(x, grid, order: int, dtype: torch.dtype | None = None):
    """The B-spline basis of each input, zero outside its support.

    The Cox-de Boor recursion, knots last and half-open, in float32 or wider. Only `x` is kept for the backward
    pass, which goes down the recursion again; it can be differentiated once, and not with respect to the knots.

    Args:
        x: (..., groups, features).
        grid: the knots, (groups, features, n), ascending; where some coincide 0/0 counts as 0.
        order: the degree of the splines.
        dtype: of the result; default the one it is computed in.

    Returns:
        (..., groups, n - 1 - order, features): the basis index comes before the features, because elementwise passes
        are fast where the last dimension is long.
    """
    return _Basis.apply(x, grid.transpose(-1, -2), order, dtype)


class _Basis(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, knots, order, dtype):
        ctx.save_for_backward(x, knots)
        ctx.order = order
        compute = _compute_dtype(x, knots)
        rows = x.reshape(-1, *x.shape[-2:])
        knots = knots.to(compute)
        inverses = _inverse_spans(knots, order)
        basis = rows.new_empty(
            len(rows), knots.shape[0], knots.shape[1] - 1 - order, knots.shape[2], dtype=dtype or compute
        )
        for part in _chunks(rows, knots):
            basis[part] = _recursion(rows[part].to(compute), knots, inverses)
        return basis.view(*x.shape[:-1], -1, x.shape[-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, knots = ctx.saved_tensors
        compute = _compute_dtype(x, knots)
        rows = x.reshape(-1, *x.shape[-2:])
        grad = grad.reshape(len(rows), *grad.shape[-3:])
        knots = knots.to(compute)
        *inverses, last = _inverse_spans(knots, ctx.order)
        grad_rows = torch.empty_like(rows)
        for part in _chunks(rows, knots):
            # B'(i, k) = k (B(i, k-1) / (t(i+k) - t(i)) - B(i+1, k-1) / (t(i+k+1) - t(i+1)))
            lower = _recursion(rows[part].to(compute), knots, inverses).mul_(last * ctx.order)
            slope = lower[..., :-1, :] - lower[..., 1:, :]
            grad_rows[part] = slope.mul_(grad[part]).sum(-2)
        return grad_rows.view_as(x), None, None, None


def _recursion(x, knots, inverses):
    """The basis of degree len(inverses): x (rows, groups, features) to (rows, groups, basis, features)."""
    distance = x.unsqueeze(-2) - knots
    reached = (distance >= 0).to(x.dtype)
    basis = reached[..., :-1, :] - reached[..., 1:, :]
    for inverse in inverses:
        # B(i, k) = w(i) B(i, k-1) + (1 - w(i+1)) B(i+1, k-1) with w(i) = (x - t(i)) / (t(i+k) - t(i))
        weighted = (distance[..., : inverse.shape[-2], :] * inverse).mul_(basis)
        basis = basis[..., 1:, :].add_(weighted[..., :-1, :]).sub_(weighted[..., 1:, :])
    return basis


def _inverse_spans(knots, order):
    """For k = 1 to order, 1 / (t(i+k) - t(i)): (groups, n - k, features) each."""
    spans = [knots[:, k:] - knots[:, :-k] for k in range(1, order + 1)]
    return [torch.where(span > 0, 1 / span, 0) for span in spans]


def _compute_dtype(x, knots):
    return torch.promote_types(torch.promote_types(x.dtype, knots.dtype), torch.float32)


def _chunks(rows, knots):
    size = len(rows) if rows.device.type != "cpu" else max(1, _CHUNK // max(1, knots.numel()))
    return [slice(start, start + size) for start in range(0, len(rows), max(1, size))]


def _spline_options(grid_size, spline_order, grid_range):
    for name, value in (("grid_size", grid_size), ("spline_order", spline_order)):
        if value < 1:
            raise ValueError(f"{name}: found {value}, expected at least 1")
    if len(grid_range) != 2 or not grid_range[0] < grid_range[1]:
        raise ValueError(f"grid_range: found {list(grid_range)}, expected [low, high] with low < high")


def _uniform_grid(features, grid_size, order, grid_range):
    """Equal steps over the range, continued by `order` knots on each side: (features, grid_size + 2 * order + 1)."""
    step = (grid_range[1] - grid_range[0]) / grid_size
    knots = torch.arange(-order, grid_size + order + 1) * step + grid_range[0]
    return knots.expand(features, -1).contiguous()


def _product_dtype(weight):
    """What a matrix product with this weight will compute in; the basis is rounded to it once, as it is written."""
    kind = weight.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) and weight.dtype == torch.float32:
        return torch.get_autocast_dtype(kind)
    return weight.dtype


class KANLinear(nn.Module):
    """y = base_weight SiLU(x) + sum over the basis of (spline_weight * spline_scaler) B(x).

    (..., in_features) to (..., out_features). State: `base_weight` (out, in), `spline_weight` (out, in, grid_size +
    spline_order), `spline_scaler` (out, in), and the knots `grid` (in, grid_size + 2 * spline_order + 1), as in
    efficient-kan. `scale_base` and `scale_spline` multiply the initial weights; efficient-kan, equal at the default of
    1, passes them on as a slope instead, whereby larger values start smaller.

    Raises:
        ValueError: grid_size or spline_order below 1, or an empty grid_range.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid_size: int = 5,
        spline_order: int = 3,
        scale_noise: float = 0.1,
        scale_base: float = 1.0,
        scale_spline: float = 1.0,
        enable_standalone_scale_spline: bool = True,
        base_activation: Callable[[], nn.Module] = nn.SiLU,
        grid_eps: float = 0.02,
        grid_range: Sequence[float] = (-1, 1),
    ):
        super().__init__()
        _spline_options(grid_size, spline_order, grid_range)
        self.in_features, self.out_features = in_features, out_features
        self.grid_size, self.spline_order = grid_size, spline_order
        self.scale_noise, self.scale_base, self.scale_spline = scale_noise, scale_base, scale_spline
        self.enable_standalone_scale_spline = enable_standalone_scale_spline
        self.base_activation = base_activation()
        self.grid_eps, self.grid_range = grid_eps, tuple(grid_range)
        self.register_buffer("grid", _uniform_grid(in_features, grid_size, spline_order, grid_range))
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.empty(out_features, in_features, grid_size + spline_order))
        if enable_standalone_scale_spline:
            self.spline_scaler = nn.Parameter(torch.empty(out_features, in_features))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self):
        """Uniform knots; random base weights and scalers; splines through small noise at the knots of the range."""
        if self.grid.is_meta:
            return
        self.grid.copy_(_uniform_grid(self.in_features, self.grid_size, self.spline_order, self.grid_range))
        bound = 1 / math.sqrt(self.in_features)
        self.base_weight.uniform_(-bound, bound).mul_(self.scale_base)
        inner = self.grid.T[self.spline_order : -self.spline_order]
        noise = torch.rand(self.grid_size + 1, self.in_features, self.out_features, device=self.grid.device)
        curves = self.curve2coeff(inner, (noise - 0.5) * self.scale_noise / self.grid_size)
        if self.enable_standalone_scale_spline:
            self.spline_scaler.uniform_(-bound, bound).mul_(self.scale_spline)
        else:
            curves = curves * self.scale_spline
        self.spline_weight.copy_(curves)

    def extra_repr(self):
        return f"{self.in_features}, {self.out_features}, grid_size={self.grid_size}, spline_order={self.spline_order}"

    def b_splines(self, x):
        """The spline basis: (..., in) to (..., in, grid_size + spline_order), float32 or wider."""
        return self._basis(x).transpose(-1, -2).contiguous()

    def _basis(self, x, dtype=None):
        return b_splines(x.unsqueeze(-2), self.grid.unsqueeze(0), self.spline_order, dtype).squeeze(-3)

    @torch.no_grad()
    def curve2coeff(self, x, y):
        """Spline coefficients (out, in, grid_size + spline_order) of the curves nearest to points, by least squares.

        Args:
            x: (points, in).
            y: (points, in, out), for edge (i, o) the heights at x[:, i].
        """
        if x.dim() != 2 or x.shape[1] != self.in_features or y.shape != (*x.shape, self.out_features):
            raise ValueError(
                f"x, y: found {tuple(x.shape)}, {tuple(y.shape)}, "
                f"expected (points, {self.in_features}), (points, {self.in_features}, {self.out_features})"
            )
        return self._solve(x, y.transpose(0, 1)).permute(2, 0, 1).to(self.spline_weight, copy=True)

    def _solve(self, x, y):
        """Smallest coefficients nearest to y (in, points, curves) at x (points, in): (in, basis, curves), float64."""
        # On the CPU, by this driver: points may leave coefficients undetermined. CUDA has none that allows it, and the
        # default (gelsy) finds rank 0 where the first basis function is zero at all points (seen in torch 2.13).
        x, grid = x.detach().double().cpu(), self.grid.double().cpu()
        matrix = b_splines(x.unsqueeze(-2), grid.unsqueeze(0), self.spline_order).squeeze(-3).permute(2, 0, 1)
        return torch.linalg.lstsq(matrix, y.detach().double().cpu(), driver="gelsd").solution

    @property
    def scaled_spline_weight(self):
        """(out, in, grid_size + spline_order)."""
        if self.enable_standalone_scale_spline:
            return self.spline_weight * self.spline_scaler.unsqueeze(-1)
        return self.spline_weight

    def forward(self, x):
        base = F.linear(self.base_activation(x), self.base_weight)
        basis = self._basis(x, _product_dtype(self.spline_weight))
        return base + F.linear(basis.flatten(-2), self.scaled_spline_weight.transpose(1, 2).flatten(1))

    @torch.no_grad()
    def update_grid(self, x, margin: float = 0.01):
        """Move the knots to where the data are and keep the function there, as nearly as the new knots allow.

        The new knots are a blend of the data's quantiles (1 - grid_eps) and equal steps over the data's range widened
        by `margin` (grid_eps). The curves are fitted to the old ones at the data, before the scaler is applied:
        efficient-kan fits the scaled curves and scales them again.

        Args:
            x: (..., in); every leading position is one sample.
        """
        x = x.reshape(-1, self.in_features).to(self.grid)
        old = self.b_splines(x.double()).transpose(0, 1)  # in, samples, basis
        ordered = x.sort(dim=0).values
        positions = torch.arange(self.grid_size + 1, device=x.device)
        quantiles = ordered[positions * (len(x) - 1) // self.grid_size]
        step = (ordered[-1] - ordered[0] + 2 * margin) / self.grid_size
        uniform = positions.unsqueeze(1) * step + ordered[0] - margin
        inner = self.grid_eps * uniform + (1 - self.grid_eps) * quantiles
        outside = torch.arange(1, self.spline_order + 1, device=x.device).unsqueeze(1) * step
        self.grid.copy_(torch.cat([inner[:1] - outside.flip(0), inner, inner[-1:] + outside]).T)
        # From old to new coefficients at once for all outputs: no (samples, in, out) tensor is needed.
        change = self._solve(x, old)  # in, new basis, old basis
        weight = torch.einsum("oib,inb->oin", self.spline_weight.double().cpu(), change)
        self.spline_weight.copy_(weight)

    def regularization_loss(self, regularize_activation: float = 1.0, regularize_entropy: float = 1.0):
        """Activation strength plus entropy over the edges (section 2.5.1), each edge's L1 norm taken as the mean
        |coefficient| of its spline, as efficient-kan does: the activations' own norm needs every edge's output."""
        edges = self.spline_weight.abs().mean(-1)
        total = edges.sum()
        eps = torch.finfo(edges.dtype).eps  # edges that died must not make the gradient infinite
        share = edges / total.clamp_min(eps)
        entropy = -(share * share.clamp_min(eps).log()).sum()
        return regularize_activation * total + regularize_entropy * entropy


class KAN(nn.Module):
    """`KANLinear` layers in a row: (..., layers_hidden[0]) to (..., layers_hidden[-1]); options as there."""

    def __init__(self, layers_hidden: Sequence[int], grid_size: int = 5, spline_order: int = 3, **options):
        super().__init__()
        self.grid_size, self.spline_order = grid_size, spline_order
        pairs = zip(layers_hidden, layers_hidden[1:])
        self.layers = nn.ModuleList(KANLinear(i, o, grid_size, spline_order, **options) for i, o in pairs)

    def forward(self, x, update_grid: bool = False):
        for layer in self.layers:
            if update_grid:
                layer.update_grid(x)
            x = layer(x)
        return x

    def regularization_loss(self, regularize_activation: float = 1.0, regularize_entropy: float = 1.0):
        return sum(layer.regularization_loss(regularize_activation, regularize_entropy) for layer in self.layers)


class KANConv2d(nn.Module):
    """A convolution with a learned curve at every tap: conv(SiLU(x)) plus a convolution of x's spline basis.

    (batch, in, h, w) to (batch, out, h', w'). State: `base_weight` (out, in / groups, kh, kw), `spline_weight` (out,
    basis * in / groups, kh, kw) with the basis index before the channel's, and the knots `grid` (in, grid_size + 2 *
    spline_order + 1). Padding adds nothing: beyond the border both SiLU(x) and the whole basis are zero.

    Raises:
        ValueError: groups that do not divide the channels, grid_size or spline_order below 1, an empty grid_range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        grid_size: int = 5,
        spline_order: int = 3,
        scale_noise: float = 0.1,
        base_activation: Callable[[], nn.Module] = nn.SiLU,
        grid_range: Sequence[float] = (-1, 1),
    ):
        super().__init__()
        _spline_options(grid_size, spline_order, grid_range)
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"groups: found {groups}, expected a divisor of {in_channels} and {out_channels} channels")
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.spline_order, self.scale_noise = spline_order, scale_noise
        self.base_activation = base_activation()
        self.register_buffer("grid", _uniform_grid(in_channels, grid_size, spline_order, grid_range))
        inputs = in_channels // groups
        self.base_weight = nn.Parameter(torch.empty(out_channels, inputs, *kernel))
        # Four dimensions, not five: `.to(memory_format=torch.channels_last)` takes no others.
        self.spline_weight = nn.Parameter(torch.empty(out_channels, (grid_size + spline_order) * inputs, *kernel))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self):
        """The base starts as a plain convolution does, the splines at `scale_noise` of its size."""
        bound = 1 / math.sqrt(self.base_weight[0].numel())
        self.base_weight.uniform_(-bound, bound)
        self.spline_weight.uniform_(-bound, bound).mul_(self.scale_noise)

    def extra_repr(self):
        out, inputs, *kernel = self.base_weight.shape
        return f"{inputs * self.groups}, {out}, {tuple(kernel)}, stride={self.stride}, groups={self.groups}"

    def forward(self, x):
        where = (self.stride, self.padding, self.dilation, self.groups)
        base = F.conv2d(self.base_activation(x), self.base_weight, None, *where)
        grouped = x.permute(0, 2, 3, 1).unflatten(-1, (self.groups, -1))
        grid = self.grid.unflatten(0, (self.groups, -1))
        basis = b_splines(grouped, grid, self.spline_order, _product_dtype(self.spline_weight))
        # (batch, h, w, groups, basis, channels) flattened from groups on is a channels-last map: no copy.
        basis = basis.flatten(3).permute(0, 3, 1, 2)
        return base + F.conv2d(basis, self.spline_weight, None, *where)
