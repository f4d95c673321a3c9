"""Kolmogorov-Arnold layers (Liu et al., arXiv:2404.19756): a learned curve on every edge, summed at every node.

A curve is base * SiLU(x) + a B-spline (section 2.2, equations 2.10 to 2.12). The efficient form computes the spline
basis of each input once and sums all edges in one matrix product. Parameters, buffers and options carry the names and
shapes of Blealtan's efficient-kan, so its checkpoints load.
"""

import importlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from baselines.layers.splines import SplineLayer, b_splines

BACKENDS = ("torch", "efficient-kan")


def _product_dtype(weight):
    """What a matrix product with this weight will compute in; the basis is rounded to it once, as it is written."""
    kind = weight.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) and weight.dtype == torch.float32:
        return torch.get_autocast_dtype(kind)
    return weight.dtype


def kan_layers(backend: str) -> tuple[type[nn.Module], type[nn.Module]]:
    """The classes `KANLinear` and `KAN` of a backend: "torch" is the code here, "efficient-kan" the package's, which
    has the same parameters and function and keeps every step of the recursion for its backward pass.

    Raises:
        ValueError: an unknown backend, or a package that cannot be imported.
    """
    if backend not in BACKENDS:
        raise ValueError(f"kan: found {backend!r}, expected one of {', '.join(map(repr, BACKENDS))}")
    if backend == "torch":
        return KANLinear, KAN
    try:
        theirs = importlib.import_module("efficient_kan")
    except ImportError as error:
        raise ValueError(
            f"kan: 'efficient-kan' needs the package efficient_kan, which cannot be imported ({error}); install it "
            "with `pip install -e '.[kan]'` in the checkout (it is on no package registry), or use 'torch'"
        ) from error
    return theirs.KANLinear, theirs.KAN


class KANLinear(SplineLayer):
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
        super().__init__(in_features, grid_size, spline_order, grid_range)
        self.in_features, self.out_features = in_features, out_features
        self.scale_noise, self.scale_base, self.scale_spline = scale_noise, scale_base, scale_spline
        self.enable_standalone_scale_spline = enable_standalone_scale_spline
        self.base_activation = base_activation()
        self.grid_eps = grid_eps
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
        self._reset_grid()
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
        x, grid = x.unsqueeze(-2), self.grid.unsqueeze(0)
        return b_splines(x, grid, self.spline_order, dtype, even=self._evenly_spaced()).squeeze(-3)

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
        return torch.linalg.lstsq(self._matrix(x), y.detach().double().cpu(), driver="gelsd").solution

    def _matrix(self, x):
        """The basis at x (points, in), in float64 on the CPU: (in, points, basis)."""
        x, grid = x.detach().double().cpu(), self.grid.double().cpu()
        return b_splines(x.unsqueeze(-2), grid.unsqueeze(0), self.spline_order).squeeze(-3).permute(2, 0, 1)

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

        Raises:
            ValueError: there is no sample, or one that is not finite; nothing has been changed then.
        """
        x = x.reshape(-1, self.in_features).to(self.grid)
        if not len(x) or not x.isfinite().all():
            found = f"{int((~x.isfinite()).sum())} of {x.numel()} values not finite" if len(x) else "no sample"
            raise ValueError(f"x: found {found}, expected finite inputs to place the knots by; the grid is unchanged")
        old = self._matrix(x)
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


class KANConv2d(SplineLayer):
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
        super().__init__(in_channels, grid_size, spline_order, grid_range)
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"groups: found {groups}, expected a divisor of {in_channels} and {out_channels} channels")
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.scale_noise = scale_noise
        self.base_activation = base_activation()
        inputs = in_channels // groups
        self.base_weight = nn.Parameter(torch.empty(out_channels, inputs, *kernel))
        # Four dimensions, not five: `.to(memory_format=torch.channels_last)` takes no others.
        self.spline_weight = nn.Parameter(torch.empty(out_channels, (grid_size + spline_order) * inputs, *kernel))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self):
        """Uniform knots; the base starts as a plain convolution does, the splines at `scale_noise` of its size."""
        self._reset_grid()
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
        dtype = _product_dtype(self.spline_weight)
        basis = b_splines(grouped, grid, self.spline_order, dtype, even=self._evenly_spaced())
        # (batch, h, w, groups, basis, channels) flattened from groups on is a channels-last map: no copy.
        basis = basis.flatten(3).permute(0, 3, 1, 2)
        return base + F.conv2d(basis, self.spline_weight, None, *where)
