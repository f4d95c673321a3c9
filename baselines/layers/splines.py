"""The B-spline basis of a KAN's inputs, by the recursion for any knots and in closed form for evenly spaced cubics.

Of a cubic basis over equal steps every function is the same bump, moved by whole steps: with d the distance from its
middle in steps, and (.)+ the positive part,

    N(d) = ((2 - |d|)+^3 - 4 (1 - |d|)+^3) / 6        (de Boor, A Practical Guide to Splines, 1978, chapter IX)

Four functions are not zero at a point. Evaluating all of them takes nine elementwise passes, which is faster than to
find the four and to scatter them.
"""

from collections.abc import Sequence

import torch
from torch import nn

# Elements of one temporary on a CPU: its passes stay in the cache and still keep several threads busy (2.5x faster).
_CHUNK = 1 << 19
# Knots count as evenly spaced where they are within so many units of rounding of it, in the precision of the basis.
_ROUNDING = 4


def b_splines(x, grid, order: int, dtype: torch.dtype | None = None, *, even: bool = False):
    """The B-spline basis of each input, zero outside its support, in float32 or wider.

    Only `x` is kept for the backward pass, which computes what it needs again; it can be differentiated once, and not
    with respect to the knots. By the Cox-de Boor recursion, knots last and half-open, unless `even`.

    Args:
        x: (..., groups, features).
        grid: the knots, (groups, features, n), ascending; where some coincide 0/0 counts as 0.
        order: the degree of the splines.
        dtype: of the result; default the one it is computed in.
        even: the splines are cubic and each feature's knots evenly spaced (`evenly_spaced`): the closed form is used.

    Returns:
        (..., groups, n - 1 - order, features): the basis index comes before the features, because elementwise passes
        are fast where the last dimension is long.
    """
    knots = grid.transpose(-1, -2)
    if even and torch.compiler.is_compiling():  # which fuses the passes, and their derivatives, by itself
        return _bumps_of_a_graph(x, knots, dtype)
    return _Basis.apply(x, knots, order, dtype, even)


def evenly_spaced(grid) -> bool:
    """Whether the knots (features, n) of every feature are evenly spaced, up to rounding in float32 or wider.

    False where their values cannot be had, as on the meta device.
    """
    if grid.is_meta or type(grid) is not torch.Tensor:
        return False
    return bool(_deviates(grid.to(_compute_dtype(grid, grid)).transpose(-1, -2)).logical_not().all())


def _deviates(knots):
    """(..., n, features) to (..., 1, features): whether a feature's knots are not evenly spaced."""
    low, high = knots[..., :1, :], knots[..., -1:, :]
    places = torch.linspace(0, 1, knots.shape[-2], dtype=knots.dtype, device=knots.device).unsqueeze(-1)
    allowed = _ROUNDING * torch.finfo(knots.dtype).eps * torch.maximum(low.abs(), high.abs())
    within = (knots - torch.lerp(low, high, places)).abs() <= allowed
    return ~(within.all(-2, keepdim=True) & (high > low))


class _Basis(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, knots, order, dtype, even):
        ctx.save_for_backward(x, knots)
        ctx.order, ctx.even = order, even
        compute = _compute_dtype(x, knots)
        rows = x.reshape(-1, *x.shape[-2:])
        knots = knots.to(compute)
        basis = rows.new_empty(
            len(rows), knots.shape[0], knots.shape[1] - 1 - order, knots.shape[2], dtype=dtype or compute
        )
        for part in _chunks(rows, knots):
            if even:
                _bumps(rows[part].to(compute), knots, basis[part])
            else:
                _recursion(rows[part].to(compute), knots, order, basis[part])
        return basis.view(*x.shape[:-1], basis.shape[-2], x.shape[-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, knots = ctx.saved_tensors
        compute = _compute_dtype(x, knots)
        rows = x.reshape(-1, *x.shape[-2:])
        grad = grad.reshape(len(rows), *grad.shape[-3:])
        grad_rows = torch.empty_like(rows)
        knots = knots.to(compute)
        for part in _chunks(rows, knots):
            if ctx.even:
                grad_rows[part] = _bumps_gradient(rows[part].to(compute), knots, grad[part])
            else:
                grad_rows[part] = _recursion_gradient(rows[part].to(compute), knots, ctx.order, grad[part])
        return grad_rows.view_as(x), None, None, None, None


def _distances(x, knots, unit=1.0, out=None):
    """From x (rows, groups, features) to the middle of every bump (rows, groups, basis, features), and the steps a
    unit of x (groups, 1, features); both times `unit`."""
    steps = unit * (knots.shape[1] - 1) / (knots[:, -1:] - knots[:, :1])
    # From the knot in the middle: far from zero, x and knots times the steps would lose what tells them apart.
    origin = knots[:, knots.shape[1] // 2].unsqueeze(1)
    middles = (knots[:, 2:-2] - origin) * steps
    return torch.sub((x.unsqueeze(-2) - origin) * steps, middles, out=out), steps


# Distances are scaled so that no pass is needed for the constants: 6 N = 4 v^3 - w^3, with v and w not positive.
_UNIT = (4 / 6) ** (1 / 3)


def _bumps(x, knots, out):
    """Write the basis of x (rows, groups, features) to out (rows, groups, basis, features)."""
    outer, _ = _distances(x, knots, _UNIT, out if out.dtype == x.dtype else None)
    outer.abs_().sub_(2 * _UNIT).clamp_(max=0)
    inner = outer.add(_UNIT).clamp_(max=0)
    torch.sub(inner.pow_(3), outer.pow_(3), alpha=1 / 4, out=outer)
    if outer is not out:
        out.copy_(outer)


def _bumps_gradient(x, knots, grad):
    """The gradient of x, given that of its basis: N'(d) = sign(d) (4 v^2 - w^2) / 2 a step."""
    side, steps = _distances(x, knots)
    outer = side.abs().sub_(2).clamp_(max=0)
    inner = outer.add(1).clamp_(max=0)
    slope = inner.square_().sub_(outer.square_(), alpha=1 / 4)
    return slope.mul_(side.sgn_()).mul_(grad).sum(-2).mul_(2 * steps.squeeze(-2))


def _bumps_of_a_graph(x, knots, dtype):
    compute = _compute_dtype(x, knots)
    knots = knots.to(compute)
    # A compiled graph cannot ask again what `even` says: knots moved since by hand give NaN and no wrong numbers.
    distances, _ = _distances(x.to(compute), torch.where(_deviates(knots), torch.nan, knots))
    outer = (2 - distances.abs()).clamp_min(0)
    inner = (outer - 1).clamp_min(0)
    return ((outer * outer * outer - 4 * inner * inner * inner) / 6).to(dtype or compute)


def _recursion(x, knots, order, out):
    out.copy_(_cox_de_boor(x, knots, _inverse_spans(knots, order)))


def _recursion_gradient(x, knots, order, grad):
    # B'(i, k) = k (B(i, k-1) / (t(i+k) - t(i)) - B(i+1, k-1) / (t(i+k+1) - t(i+1)))
    *inverses, last = _inverse_spans(knots, order)
    lower = _cox_de_boor(x, knots, inverses).mul_(last * order)
    slope = lower[..., :-1, :] - lower[..., 1:, :]
    return slope.mul_(grad).sum(-2)


def _cox_de_boor(x, knots, inverses):
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
    if rows.device.type != "cpu" or torch.compiler.is_compiling():
        return [slice(None)]
    size = max(1, _CHUNK // max(1, knots.numel()))
    return [slice(start, start + size) for start in range(0, len(rows), size)]


class SplineLayer(nn.Module):
    """Knots `grid` (features, grid_size + 2 * spline_order + 1), at first equal steps over `grid_range` continued by
    `spline_order` knots on each side.

    Knots may be loaded, moved or edited in place at any time: the closed form is used as long as they are even.

    Raises:
        ValueError: grid_size or spline_order below 1, or an empty grid_range.
    """

    def __init__(self, features: int, grid_size: int, spline_order: int, grid_range: Sequence[float]):
        super().__init__()
        for name, value in (("grid_size", grid_size), ("spline_order", spline_order)):
            if value < 1:
                raise ValueError(f"{name}: found {value}, expected at least 1")
        if len(grid_range) != 2 or not grid_range[0] < grid_range[1]:
            raise ValueError(f"grid_range: found {list(grid_range)}, expected [low, high] with low < high")
        self.grid_size, self.spline_order, self.grid_range = grid_size, spline_order, tuple(grid_range)
        self.register_buffer("grid", self._uniform_grid(features))
        self._look_at_knots()

    def _uniform_grid(self, features):
        step = (self.grid_range[1] - self.grid_range[0]) / self.grid_size
        knots = torch.arange(-self.spline_order, self.grid_size + self.spline_order + 1) * step + self.grid_range[0]
        return knots.expand(features, -1).contiguous()

    @torch.no_grad()
    def _reset_grid(self):
        self.grid.copy_(self._uniform_grid(len(self.grid)))
        self._look_at_knots()

    def _look_at_knots(self):
        self._even = self.spline_order == 3 and evenly_spaced(self.grid)
        self._seen = self.grid, _version(self.grid)

    def _evenly_spaced(self) -> bool:
        if not torch.compiler.is_compiling():
            grid, version = self._seen
            if grid is not self.grid or version is None or version != _version(grid):
                self._look_at_knots()
        return self._even

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self._look_at_knots()
        return self

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        self._look_at_knots()


def _version(tensor):
    """How often a tensor was written to; None where torch does not count."""
    return None if tensor.is_inference() else tensor._version
