"""The selective scan and the KAN layers as the methods have them, each with a reference and a floor.

A *reference* is what the papers write down, in plain PyTorch with all else left to autograd. A *floor* is what no way
of computing the same could undercut. A scan has to read its inputs, to write its output and gradients, and to do its
arithmetic. A KAN layer has to do the dense products of its base and spline weights. All are in float32, in which the
scan is computed whatever the recipe's precision.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines import kan_head, medkan, medmamba, vim
from baselines.backbones import classifier
from baselines.layers.kan import KANConv2d, KANLinear
from baselines.layers.selective_scan import selective_scan
from baselines.layers.ssm import SelectiveSSM

GPU_BATCH = 32  # at least, as the recipes have; a case's own is small enough for two cores
# Forward 7 a state element: two for exp(delta A), one for B (delta u), two for the step, two for the sum with C.
# Backward 14, states and exponents being there: three for the adjoint, two each for the gradients of B, C, delta u, A
# and delta, one for that of the exponent. (The field counts 9 and twice 9: a convention, not the least number.)
OPERATIONS = 7 + 14


@dataclass(frozen=True)
class Case:
    """The `place`-th layer of `kind` that an image meets in network(num_classes=4, image_size=..., **options).

    package: a reference implementation of `PACKAGES` that takes the reference's place.
    """

    method: str
    kind: type[nn.Module]
    network: Callable[..., nn.Module]
    image_size: int
    batch: int
    options: dict = field(default_factory=dict)
    place: int = 0
    package: str = ""

    def layer(self) -> tuple[nn.Module, tuple[int, ...]]:
        """The layer with the method's initial weights, all to be trained, and its input's shape without the batch."""
        torch.manual_seed(0)
        network, met = self.network(num_classes=4, image_size=self.image_size, **self.options), []
        layers = [module for module in network.modules() if isinstance(module, self.kind)]
        hooks = [module.register_forward_pre_hook(lambda m, args: met.append((m, args[0].shape))) for module in layers]
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, self.image_size, self.image_size))
        for hook in hooks:
            hook.remove()
        module, shape = met[self.place]
        return module.requires_grad_(), tuple(shape[1:])


def _head(backbone, **sizes):
    return kan_head.adapt(classifier(backbone=backbone, weights="random", **sizes))


SMALL = {
    "medmamba": {"patch": 8, "widths": [48, 96, 192], "depths": [2, 2, 2]},
    "vim": {"width": 128, "depth": 6},
}
RESNET = {"backbone": "resnet18"}  # VGG16 has as many features
CASES = (
    Case("MedMamba-T, first stage, 224 px", SelectiveSSM, medmamba.network, 224, 1),
    Case("Vim, 224 px", SelectiveSSM, vim.network, 224, 4),
    Case("small MedMamba, first stage, 128 px", SelectiveSSM, medmamba.network, 128, 8, SMALL["medmamba"]),
    Case("small Vim, 128 px", SelectiveSSM, vim.network, 128, 16, SMALL["vim"]),
    Case("kan_head on VGG16 or ResNet-18, first layer", KANLinear, _head, 128, 32, RESNET),
    Case("kan_head on VGG16 or ResNet-18, second layer", KANLinear, _head, 128, 32, RESNET, place=1),
    Case("MedKAN, first stage, 224 px", KANConv2d, medkan.network, 224, 4),
)
# The same beside packages, where they are installed.
BESIDE = tuple(
    replace(CASES[place], package=package, method=f"{CASES[place].method}, beside {package}")
    for place, package in ((2, "mambapy"), (3, "mambapy"), (4, "inkan"), (5, "inkan"))
)


@dataclass
class Comparison:
    """Ours, the reference and the floor on the same inputs; the gradient of every input is asked for.

    constants: what else they read. floor: a function of `floor_inputs`, or the least bytes and operations.
    reference_inputs: what the reference is given in place of `inputs`, where it has parameters of its own.
    """

    layer: str
    shape: str
    inputs: list[Tensor]
    ours: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    floor: Callable[..., Tensor] | tuple[float, float]
    floor_inputs: list[Tensor] = field(default_factory=list)
    constants: list[Tensor] = field(default_factory=list)
    reference_inputs: list[Tensor] = field(default_factory=list)


def set_up(case: Case, device: torch.device) -> Comparison:
    """The case's layer with noise as its input; for a scan, with what the layer around it makes of that.

    Raises:
        ModuleNotFoundError: the case's package is not installed.
    """
    layer, shape = case.layer()
    layer.to(device)
    batch = case.batch if device.type == "cpu" else max(case.batch, GPU_BATCH)
    x = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    work = (_scan if isinstance(layer, SelectiveSSM) else _kan)(layer, x)
    if case.package:
        work.reference, work.reference_inputs = PACKAGES[case.package](layer, work.inputs)
    return work


def _leaves(*tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


def _scan(layer, x):
    batch, groups, _, length = x.shape
    with torch.no_grad():  # as SelectiveSSM.forward makes them
        dt, b, c = (layer.x_proj @ x).split(layer.sizes, dim=2)
        delta = (layer.dt_proj @ dt).flatten(1, 2)
        inputs = _leaves(x.flatten(1, 2), delta, -layer.A_log.exp(), b, c, layer.D, layer.dt_bias.flatten())
    width, states = layer.A_log.shape
    shape = f"batch {batch}, D {width}, L {length}, N {states}"
    floor = scan_floor(batch, width, length, states, groups)
    return Comparison("selective scan", shape, inputs, _our_scan, scan_reference, floor)


def _our_scan(u, delta, A, B, C, D, bias):
    return selective_scan(u, delta, A, B, C, D, delta_bias=bias, delta_softplus=True, backend="torch")


def scan_reference(u, delta, A, B, C, D, bias):
    """x_t = exp(delta_t A) x_{t-1} + delta_t B_t u_t, y_t = C_t x_t + D u_t, one step after the other: (batch, D, L).

    Source: Gu and Dao, arXiv:2312.00752, section 3.2. Time comes to the front first: a step that is cut out along the
    last axis would in backward fill a tensor of the whole length, and take time that grows with its square.

    Args:
        u, delta: (batch, D, L). A: (D, N). B, C: (batch, G, N, L). D: (D,). bias: (D,), of delta before softplus.
    """
    groups, states = B.shape[1], A.shape[1]
    delta, A = F.softplus(delta + bias[:, None]), A.view(groups, -1, states)
    channels = (M.unflatten(1, (groups, -1)) for M in (u, delta))
    steps = [M.permute(3, 0, 1, 2).contiguous().unbind() for M in (*channels, B, C)]
    x, ys = u.new_zeros(len(u), *A.shape), []
    for u_t, delta_t, B_t, C_t in zip(*steps, strict=True):
        x = torch.exp(delta_t[..., None] * A) * x + (delta_t * u_t)[..., None] * B_t[..., None, :]
        ys.append((x * C_t[..., None, :]).sum(-1))
    return torch.stack(ys, -1).flatten(1, 2) + D[:, None] * u


def scan_floor(batch: int, D: int, L: int, N: int, groups: int) -> tuple[float, float]:
    """The bytes that a scan moves at least, forward and backward, and its operations.

    Forward reads u, delta, B, C and the parameters and writes y; backward reads all that and dy and writes a gradient
    of each. No state is moved: a kernel may keep states, or make them again, where they are used.
    """
    numbers = 8 * batch * D * L + 6 * batch * groups * N * L + 3 * (D * N + 2 * D)
    return 4.0 * numbers, float(OPERATIONS * batch * D * L * N)


def _kan(layer, x):
    form = f"{x.shape[1]} to {layer.base_weight.shape[0]}"
    if x.dim() == 4:  # as the training loop lays it out
        layer, x = layer.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
        form += f" channels, {x.shape[2]} x {x.shape[3]} px, {layer.groups} groups"
    base, *spline = parameters = list(layer.parameters())
    with torch.no_grad():
        ready = _leaves(F.silu(x), base, *_spline(layer, x, *spline))
    return Comparison(
        type(layer).__name__, f"batch {len(x)}, {form}", [x.requires_grad_(), *parameters], lambda x, *_: layer(x),
        functools.partial(kan_reference, layer), functools.partial(_products, layer), ready, list(layer.buffers()),
    )  # fmt: skip


def kan_reference(layer: KANLinear | KANConv2d, x, base, *spline):
    """The layer's function of x and its parameters, base SiLU(x) + spline B(x), every stage kept by autograd."""
    return _products(layer, F.silu(x), base, *_spline(layer, x, *spline))


def _spline(layer, x, weight, scaler=None):
    """The basis, and the weight that it is multiplied by, as a linear layer or a convolution takes them."""
    if x.dim() == 2:
        basis = cox_de_boor(x, layer.grid, layer.spline_order)
        return basis.flatten(1), (weight if scaler is None else weight * scaler[..., None]).flatten(1)
    basis = cox_de_boor(x.permute(0, 2, 3, 1), layer.grid, layer.spline_order)
    # In a KANConv2d's weight the basis comes before the channels of a group.
    basis = basis.unflatten(3, (layer.groups, -1)).transpose(-1, -2).flatten(3)
    return basis.permute(0, 3, 1, 2), weight


def _products(layer, activated, base, basis, weight):
    if activated.dim() == 2:
        return F.linear(activated, base) + F.linear(basis, weight)
    where = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return F.conv2d(activated, base, None, *where) + F.conv2d(basis, weight, None, *where)


def cox_de_boor(x, knots, order: int):
    """The B-spline basis of degree `order`: x (..., features), knots (features, n), to (..., features, n - 1 - order).

    Source: de Boor, A Practical Guide to Splines, 1978, chapter X; no knots coincide.
    """
    x = x[..., None]
    basis = ((x >= knots[:, :-1]) & (x < knots[:, 1:])).to(x.dtype)
    for k in range(1, order + 1):
        rising = (x - knots[:, : -k - 1]) / (knots[:, k:-1] - knots[:, : -k - 1])
        falling = (knots[:, k + 1 :] - x) / (knots[:, k + 1 :] - knots[:, 1:-k])
        basis = rising * basis[..., :-1] + falling * basis[..., 1:]
    return basis


# Reference implementations on PyPI: `pip install -e '.[reference]'`. Each function takes our layer and the tensors that
# our form is given, and returns the package's form of the same function with the tensors that it is given: the input
# and, as far as it has parameters of its own, those.


def _inkan(layer, inputs: list[Tensor]):
    """inkan's KANLayer in its eager form, with our curves: base and spline weights in one matrix, and no scaler."""
    from inkan import KANLayer

    x, base, spline, scaler = inputs
    theirs = KANLayer(
        layer.in_features, layer.out_features, layer.grid_size, layer.spline_order, grid_range=layer.grid_range,
        compile_basis=False,
    ).to(x.device)  # fmt: skip
    with torch.no_grad():
        theirs.weight = nn.Parameter(torch.cat([(spline * scaler.unsqueeze(-1)).flatten(1), base], 1))
    return lambda x, _: theirs(x), [x, theirs.weight]


def _mambapy(_layer, inputs: list[Tensor]):
    """mambapy's parallel scan as its MambaBlock.selective_scan calls it; directions are rows of its batch."""
    from mambapy.pscan import pscan

    def scan(u, delta, A, B, C, D, bias):
        groups, states = B.shape[1], A.shape[1]
        u, delta = (M.unflatten(1, (groups, -1)).transpose(2, 3) for M in (u, F.softplus(delta + bias[:, None])))
        B, C = B.transpose(2, 3), C.transpose(2, 3)  # batch, group, length, states
        decay = torch.exp(delta[..., None] * A.view(groups, 1, -1, states))
        added = delta[..., None] * B.unsqueeze(3) * u[..., None]
        states = pscan(decay.flatten(0, 1), added.flatten(0, 1)).view_as(added)
        y = (states @ C.unsqueeze(-1)).squeeze(-1) + D.view(groups, 1, -1) * u
        return y.transpose(2, 3).flatten(1, 2)

    return scan, inputs


PACKAGES = {"inkan": _inkan, "mambapy": _mambapy}
