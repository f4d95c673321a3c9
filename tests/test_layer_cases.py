"""Layers on their own: references against independent formulas, floors by hand, the methods' shapes, what is kept."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from scipy.signal import lfilter

from baselines import kan_head, medkan, vim
from baselines.backbones import classifier
from baselines.layers.kan import KANConv2d, KANLinear
from baselines.layers.ssm import SelectiveSSM
from pipelines.costs import layer_cases, layer_costs
from pipelines.costs.layer_cases import Case

CPU = torch.device("cpu")
TINY = (
    Case("a small Vim", SelectiveSSM, vim.network, 32, 2, {"width": 16, "depth": 1, "patch": 8}),
    Case("a small head", KANLinear, layer_cases._head, 32, 4, {"backbone": "smallcnn"}, place=1),
    Case("a small MedKAN", KANConv2d, medkan.network, 32, 2, {"widths": (8, 8), "depths": (1, 1), "groups": 2}),
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def scan_inputs(batch=2, D=4, L=32, N=16, groups=2, dtype=torch.float32):
    """u, delta, A, B, C, D and bias, leaves that want a gradient."""
    shapes = [(batch, D, L)] * 2 + [(D, N)] + [(batch, groups, N, L)] * 2 + [(D,)] * 2
    values = [torch.randn(shape, dtype=dtype) for shape in shapes]
    values[2] = -values[2].exp()
    return [value.requires_grad_() for value in values]


# References and floors


def test_the_sequential_scan_is_scipys_filter_where_nothing_changes():
    batch, D, N, L = 2, 3, 4, 50
    rng = np.random.default_rng(0)
    u, step, bias = rng.normal(size=(batch, D, L)), rng.uniform(0.01, 1, D), rng.normal(size=D)
    A, skip, (B, C) = -rng.uniform(0.1, 5, (D, N)), rng.normal(size=D), rng.normal(size=(2, N))
    expected = skip[:, None] * u
    for d in range(D):
        for n in range(N):
            expected[:, d] += lfilter([step[d] * B[n] * C[n]], [1, -np.exp(step[d] * A[d, n])], u[:, d], axis=-1)
    delta = np.log(np.expm1(step)) - bias  # what softplus turns into the step
    delta = np.broadcast_to(delta[:, None], u.shape)
    B, C = (np.broadcast_to(M[:, None], (batch, 1, N, L)) for M in (B, C))
    arguments = [torch.from_numpy(np.array(x)) for x in (u, delta, A, B, C, skip, bias)]
    np.testing.assert_allclose(layer_cases.scan_reference(*arguments).numpy(), expected, rtol=1e-10, atol=1e-12)


def test_the_sequential_scan_is_the_recurrence_element_by_element():
    inputs = scan_inputs(batch=1, D=4, L=5, N=3, dtype=torch.float64)
    u, delta, A, B, C, skip, bias = (x.detach().numpy() for x in inputs)
    for d in range(4):
        group, states = d // 2, [0.0] * 3
        for t in range(5):
            step = math.log1p(math.exp(delta[0, d, t] + bias[d]))
            states = [math.exp(step * A[d, n]) * states[n] + step * B[0, group, n, t] * u[0, d, t] for n in range(3)]
            y = sum(C[0, group, n, t] * states[n] for n in range(3)) + skip[d] * u[0, d, t]
            assert layer_cases.scan_reference(*inputs)[0, d, t].item() == pytest.approx(y, rel=1e-12)


def scipy_basis(x, knots, order):
    """x (rows, in) to (rows, in, basis)."""
    found = [
        [np.nan_to_num(BSpline.basis_element(k[i : i + order + 2], extrapolate=False)(column))
         for i in range(len(k) - 1 - order)]
        for k, column in zip(knots.numpy(), x.T.numpy())
    ]  # fmt: skip
    return torch.from_numpy(np.array(found)).permute(2, 0, 1)


@pytest.mark.parametrize("order", [1, 3])
def test_the_recursion_is_scipys_basis_and_the_reference_sums_its_curves(order):
    layer = KANLinear(3, 2, spline_order=order, grid_range=(-3, 3)).double()
    layer.grid += 0.1 * torch.rand_like(layer.grid)
    x = 2 * torch.randn(40, 3, dtype=torch.float64)
    basis = scipy_basis(x, layer.grid, order)
    torch.testing.assert_close(layer_cases.cox_de_boor(x, layer.grid, order), basis, rtol=0, atol=1e-12)
    edges = torch.einsum("nib,oib->noi", basis, layer.spline_weight) * layer.spline_scaler
    expected = (x / (1 + torch.exp(-x))) @ layer.base_weight.T + edges.sum(-1)
    found = layer_cases.kan_reference(layer, x, *layer.parameters())
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_the_reference_convolution_is_a_linear_reference_at_every_pixel():
    conv = KANConv2d(4, 6, 1, groups=2, grid_range=(-3, 3)).double()
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    basis = scipy_basis(x.permute(0, 2, 3, 1).reshape(-1, 4), conv.grid, conv.spline_order).view(2, 3, 3, 4, -1)
    activated, weight = x / (1 + torch.exp(-x)), conv.spline_weight.view(6, -1, 2)  # out, basis, in / groups
    expected = torch.zeros(2, 6, 3, 3, dtype=torch.float64)
    for out in range(6):
        for i in range(2):
            channel = out // 3 * 2 + i
            expected[:, out] += conv.base_weight[out, i] * activated[:, channel]
            expected[:, out] += (basis[:, :, :, channel] * weight[out, :, i]).sum(-1)
    found = layer_cases.kan_reference(conv, x, *conv.parameters())
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_the_floor_of_a_scan_counted_by_hand():
    # B 1, D 2, L 3, N 4, one group: u, delta, y, dy and their like have 6 numbers, B and C 12, A 8, D and bias 2.
    forward = (6 + 6 + 12 + 12 + 8 + 2 + 2) + 6
    backward = (6 + 6 + 12 + 12 + 8 + 2 + 2) + 6 + (6 + 6 + 12 + 12 + 8 + 2 + 2)
    assert layer_cases.scan_floor(1, 2, 3, 4, 1) == (4 * (forward + backward), 21 * 24)


def test_the_floor_of_a_kan_layer_is_its_products_and_gives_its_output():
    for case in TINY[1:]:
        work = layer_cases.set_up(case, CPU)
        torch.testing.assert_close(work.floor(*work.floor_inputs), work.ours(*work.inputs), rtol=1e-4, atol=1e-5)
        assert all(x.requires_grad and x.is_leaf for x in (*work.inputs, *work.floor_inputs))


# Cases


def test_cases_are_the_methods_layers():
    found = [layer_cases.set_up(replace(case, batch=1), CPU) for case in layer_cases.CASES]
    assert [(work.layer, work.shape) for work in found] == [
        ("selective scan", "batch 1, D 384, L 3136, N 16"), ("selective scan", "batch 1, D 768, L 197, N 16"),
        ("selective scan", "batch 1, D 192, L 256, N 16"), ("selective scan", "batch 1, D 512, L 65, N 16"),
        ("KANLinear", "batch 1, 512 to 64"), ("KANLinear", "batch 1, 64 to 4"),
        ("KANConv2d", "batch 1, 64 to 64 channels, 56 x 56 px, 8 groups"),
    ]  # fmt: skip
    with torch.device("meta"):
        vgg = kan_head.adapt(classifier(backbone="vgg16", weights="random", num_classes=4, image_size=64))
    assert [(m.in_features, m.out_features) for m in vgg.head.modules() if isinstance(m, KANLinear)] == [
        (512, 64), (64, 4),
    ]  # fmt: skip


# What is kept for backward


@pytest.mark.parametrize("states", [16, 32, 64])
@pytest.mark.parametrize("length", [64, 256])
def test_the_scan_keeps_a_state_a_segment_and_the_step_sizes(length, states):
    """Of L * N numbers a channel a sixteenth; beside them delta before and after softplus, whose backward needs both.
    No tensor has a state for every step."""
    inputs = scan_inputs(batch=2, D=1024, L=length, N=states)  # wide enough not to be cut into chunks
    each = 4 * inputs[0].numel()
    assert layer_costs.kept_bytes(layer_cases._our_scan, inputs) == each * (states / 16 + 2)


def test_the_sequential_scan_keeps_states_and_exponents_of_every_step():
    inputs = scan_inputs(L=64)
    states = 4 * inputs[0].numel() * 16
    ours, reference = (
        layer_costs.kept_bytes(form, inputs) for form in (layer_cases._our_scan, layer_cases.scan_reference)
    )
    assert reference > 2 * states and ours < reference / 5


@pytest.mark.parametrize("case", TINY[1:], ids=lambda case: case.method)
def test_kan_layers_keep_one_basis_and_not_its_recursion(case):
    work = layer_cases.set_up(replace(case, batch=32), CPU)
    x, basis = work.inputs[0], 8
    ours, reference = (
        layer_costs.kept_bytes(form, work.inputs, work.constants) for form in (work.ours, work.reference)
    )
    weight = work.inputs[2].numel() if case.kind is KANLinear else 0  # times its scaler
    assert ours == 4 * ((basis + 1) * x.numel() + weight)  # the basis, and SiLU(x)
    assert reference > 5 * 4 * basis * x.numel() + 4 * weight
