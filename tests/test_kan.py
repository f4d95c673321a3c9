"""Kolmogorov-Arnold layers against SciPy's splines, and the KAN head."""

import copy

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch import nn
from torch.nn import functional as F

from baselines.backbones import classifier
from baselines.kan_head import adapt
from baselines.layers.kan import KAN, KANConv2d, KANLinear


def scipy_basis(x, grid, order):
    """The basis of each input: x (rows, in) and knots (in, n) to (rows, in, n - 1 - order), in float64."""
    x, grid = np.asarray(x.detach(), dtype=np.float64), np.asarray(grid, dtype=np.float64)
    result = np.zeros((*x.shape, grid.shape[1] - 1 - order))
    for feature, knots in enumerate(grid):
        for index in range(result.shape[2]):
            element = BSpline.basis_element(knots[index : index + order + 2], extrapolate=False)
            result[:, feature, index] = np.nan_to_num(element(x[:, feature]), nan=0)
    return torch.from_numpy(result)


def silu(x):
    return x / (1 + torch.exp(-x))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("knots", ["uniform", "uneven"])
def test_basis_is_scipys(order, knots, dtype, tolerance):
    layer = KANLinear(3, 2, spline_order=order).to(dtype)
    if knots == "uneven":
        layer.grid += 0.19 * torch.rand_like(layer.grid)
    x = torch.cat([layer.grid.T, torch.randn(200, 3, dtype=dtype), torch.tensor([[-9.0, 0, 9], [1, -1, 1]])]).to(dtype)
    bases = layer.b_splines(x)
    assert bases.dtype == dtype and bases.shape == (len(x), 3, 5 + order)
    torch.testing.assert_close(bases.double(), scipy_basis(x, layer.grid, order), rtol=0, atol=tolerance)


def test_basis_sums_to_one_inside_and_is_zero_far_outside():
    layer = KANLinear(2, 1)
    inside = torch.linspace(-1, 1, 101).unsqueeze(1).expand(-1, 2)
    torch.testing.assert_close(layer.b_splines(inside).sum(-1), torch.ones(101, 2))
    assert (layer.b_splines(torch.tensor([[-2.3, 2.3]])) == 0).all()
    assert layer.b_splines(torch.full((1, 2), torch.nan)).isnan().all()


def test_coinciding_knots_count_zero_over_zero_as_zero():
    layer = KANLinear(1, 1).double()
    layer.grid[0, :4], layer.grid[0, -4:] = -1, 1  # a clamped knot vector
    x = torch.linspace(-1, 0.999, 50, dtype=torch.float64)
    expected = BSpline.design_matrix(x.numpy(), layer.grid[0].numpy(), 3).toarray()
    torch.testing.assert_close(layer.b_splines(x[:, None])[:, 0], torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_basis_in_chunks_is_the_basis(monkeypatch):
    layer, x = KANLinear(3, 4), torch.randn(2, 50, 3, requires_grad=True)
    whole = layer(x)
    (whole_grad,) = torch.autograd.grad(whole.square().sum(), x)
    monkeypatch.setattr("baselines.layers.splines._CHUNK", 100)
    torch.testing.assert_close(layer(x), whole)
    torch.testing.assert_close(torch.autograd.grad(layer(x).square().sum(), x)[0], whole_grad)


def test_an_efficient_kan_checkpoint_loads_and_computes_its_function():
    """The state as efficient-kan 0.1 saves it, and its function, both written out here."""
    step = 2 / 5
    knots = torch.tensor([-1 + step * i for i in range(-3, 9)])
    state = {}
    for index, (i, o) in enumerate([(4, 6), (6, 3)]):
        state[f"layers.{index}.grid"] = knots.repeat(i, 1)
        state[f"layers.{index}.base_weight"] = torch.randn(o, i)
        state[f"layers.{index}.spline_weight"] = torch.randn(o, i, 8)
        state[f"layers.{index}.spline_scaler"] = torch.randn(o, i)
    model = KAN([4, 6, 3])
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in state.items()}
    torch.testing.assert_close(model.layers[0].grid, state["layers.0.grid"], rtol=0, atol=1e-6)
    model.load_state_dict(state, strict=True)
    model.double()
    x = torch.randn(7, 4, dtype=torch.float64)
    expected = x
    for layer in ("layers.0.", "layers.1."):
        s = {key.removeprefix(layer): value.double() for key, value in state.items() if key.startswith(layer)}
        edges = torch.einsum("nib,oib->noi", scipy_basis(expected, s["grid"], 3), s["spline_weight"])
        expected = (silu(expected).unsqueeze(1) * s["base_weight"] + edges * s["spline_scaler"]).sum(-1)
    torch.testing.assert_close(model(x), expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(model(x.view(7, 1, 4)), expected.view(7, 1, 3), rtol=1e-11, atol=1e-11)


def test_efficient_kan_itself_gives_the_same():
    theirs = pytest.importorskip("efficient_kan", reason="efficient_kan is not installed").KAN([4, 6, 3])
    ours = KAN([4, 6, 3])
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(50, 4)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.regularization_loss(), theirs.regularization_loss())


def test_without_the_standalone_scale_there_is_no_scaler():
    layer = KANLinear(3, 2, enable_standalone_scale_spline=False)
    assert set(layer.state_dict()) == {"grid", "base_weight", "spline_weight"}
    assert torch.equal(layer.scaled_spline_weight, layer.spline_weight)


def test_curve2coeff_interpolates():
    layer = KANLinear(3, 2).double()
    x = torch.rand(8, 3, dtype=torch.float64).sort(0).values * 0.3 + torch.linspace(-1, 0.7, 8).double()[:, None]
    y = torch.randn(8, 3, 2, dtype=torch.float64)
    curves = torch.einsum("nib,oib->nio", scipy_basis(x, layer.grid, 3), layer.curve2coeff(x, y))
    torch.testing.assert_close(curves, y, rtol=1e-8, atol=1e-8)
    with pytest.raises(ValueError, match=r"found \(8, 3\), \(8, 3\), expected \(points, 3\)"):
        layer.curve2coeff(x, y[..., 0])


def test_initial_splines_pass_through_small_noise():
    layer = KANLinear(6, 50, scale_noise=0.1)
    knots = layer.grid.T[3:-3]
    curves = torch.einsum("nib,oib->nio", layer.b_splines(knots), layer.spline_weight)
    assert curves.abs().max() <= 0.05 / 5 + 1e-6 and curves.std().item() == pytest.approx(0.1 / 5 / 12**0.5, rel=0.1)
    assert layer.base_weight.abs().max() <= 6**-0.5 and layer.spline_scaler.abs().max() <= 6**-0.5
    assert torch.equal(KANLinear(6, 50, scale_base=0.0).base_weight, torch.zeros(50, 6))


def test_update_grid_moves_the_knots_to_the_quantiles():
    layer, x = KANLinear(2, 3, grid_eps=0.1), torch.randn(301, 2) * torch.tensor([0.5, 4])
    layer.update_grid(x)
    data = x.double().numpy()
    quantiles = np.quantile(data, np.linspace(0, 1, 6), axis=0, method="lower")
    low, high = data.min(0) - 0.01, data.max(0) + 0.01
    step = (high - low) / 5
    inner = 0.1 * (low + step * np.arange(6)[:, None]) + 0.9 * quantiles
    outside = step * np.arange(1, 4)[:, None]
    expected = np.concatenate([inner[0] - outside[::-1], inner, inner[-1] + outside]).T
    np.testing.assert_allclose(layer.grid, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("standalone", [True, False])
def test_update_grid_keeps_the_function(standalone):
    layer = KANLinear(3, 4, enable_standalone_scale_spline=standalone).double()
    x = torch.rand(400, 3, dtype=torch.float64) ** 2 * 1.9 - 0.95
    # Cubics are splines over any knots, so these curves can be kept exactly.
    cubic = torch.stack([x**3 - x, x**2 - 0.3, 2 - x, x**3 + x**2], -1)
    with torch.no_grad():
        layer.spline_weight.copy_(layer.curve2coeff(x, cubic))
    before, knots = layer(x), layer.grid.clone()
    layer.update_grid(x)
    assert (layer.grid - knots).abs().max() > 0.1
    torch.testing.assert_close(layer(x), before, rtol=1e-7, atol=1e-7)


def test_update_grid_takes_constant_data_and_any_leading_dimensions():
    model, x = KAN([2, 3, 1]), torch.ones(4, 5, 2)
    before = model(x)
    torch.testing.assert_close(model(x, update_grid=True), before, rtol=1e-3, atol=1e-4)
    assert all((layer.grid.diff() > 0).all() for layer in model.layers)


def test_regularization_loss_by_hand():
    model = KAN([2, 1])
    with torch.no_grad():
        model.layers[0].spline_weight.copy_(torch.tensor([[[3.0, -3] * 4, [1, -1] * 4]]))
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert model.regularization_loss(2, 3).item() == pytest.approx(2 * 4 + 3 * entropy, rel=1e-6)
    nn.init.zeros_(model.layers[0].spline_weight)
    model.regularization_loss().backward()
    assert model.layers[0].spline_weight.grad.isfinite().all()


@pytest.mark.parametrize("order", [2, 3])
def test_gradients(order):
    layer = KANLinear(3, 2, spline_order=order).double()
    conv = KANConv2d(4, 2, 3, stride=2, padding=1, groups=2, spline_order=order).double()
    for module, shape in ((layer, (2, 2, 3)), (conv, (1, 4, 3, 3))):
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        names, parameters = zip(*module.named_parameters())

        def function(x, *values, module=module, names=names):
            return torch.func.functional_call(module, dict(zip(names, values)), (x,))

        assert torch.autograd.gradcheck(function, (x, *parameters))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (1, 3), "stride": (2, 1), "padding": (0, 2), "dilation": 2, "groups": 2},
        {"kernel_size": 2, "stride": 2, "groups": 3, "grid_size": 4, "spline_order": 2, "grid_range": (-3, 3)},
    ],
)
def test_kan_convolution_sums_a_curve_a_tap(options):
    conv = KANConv2d(6, 12, **options).double()
    conv.grid += 0.1 * torch.rand_like(conv.grid)
    nn.init.normal_(conv.spline_weight)
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    out, inputs, *kernel = conv.base_weight.shape
    bases = scipy_basis(x.permute(0, 2, 3, 1).reshape(-1, 6), conv.grid, conv.spline_order)
    bases = bases.view(2, 5, 7, 6, -1).permute(0, 3, 4, 1, 2)  # batch, in, basis, h, w
    count = bases.shape[2]
    where = {"dilation": conv.dilation, "padding": conv.padding, "stride": conv.stride}
    taps = F.unfold(bases.flatten(1, 2), kernel, **where).view(2, 6, count, kernel[0] * kernel[1], -1)
    values = F.unfold(silu(x), kernel, **where).view(2, 6, kernel[0] * kernel[1], -1)
    base = conv.base_weight.flatten(2)
    spline = conv.spline_weight.view(out, count, inputs, -1)
    expected = torch.zeros(2, out, taps.shape[-1], dtype=torch.float64)
    for o in range(out):
        first = o // (out // conv.groups) * inputs
        for i in range(inputs):
            expected[:, o] += torch.einsum("t,ntp->np", base[o, i], values[:, first + i])
            expected[:, o] += torch.einsum("bt,nbtp->np", spline[o, :, i], taps[:, first + i])
    y = conv(x)
    torch.testing.assert_close(y.flatten(2), expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(conv(x.to(memory_format=torch.channels_last)), y, rtol=1e-12, atol=1e-12)


def test_fits_curves_that_no_linear_model_can():
    x = torch.rand(300, 2) * 2 - 1
    y = torch.sin(torch.pi * x[:, :1]) + x[:, 1:] ** 2
    errors = []
    for model in (KAN([2, 5, 1]), nn.Linear(2, 1)):
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60, line_search_fn="strong_wolfe")

        def closure(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)
        errors.append(closure().item())
    assert errors[0] < 1e-3 < 0.05 < errors[1]


def test_same_seed_same_start():
    def made():
        torch.manual_seed(7)
        return [*KAN([3, 4, 2]).parameters(), *KANConv2d(4, 2, 3).parameters()]

    assert all(torch.equal(a, b) for a, b in zip(made(), made()))


def test_runs_on_the_meta_device():
    with torch.device("meta"):
        model = KAN([5, 4, 3])
        conv = KANConv2d(4, 6, 3, stride=2, padding=1, groups=2)
        assert model(torch.empty(2, 7, 5)).shape == (2, 7, 3)
        assert conv(torch.empty(2, 4, 8, 8)).shape == (2, 6, 4, 4)
    model.to_empty(device="cpu")
    for layer in model.layers:
        layer.reset_parameters()
    torch.manual_seed(0)
    assert model(torch.randn(2, 5)).isfinite().all()


def test_bfloat16_rounds_the_products_and_not_the_basis():
    layer, x = KANLinear(8, 4), torch.randn(64, 8)
    nn.init.normal_(layer.spline_weight)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.b_splines(x).dtype == torch.float32
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, rtol=0.05, atol=0.05)
    assert copy.deepcopy(layer).bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: KANLinear(2, 2, grid_size=0), "grid_size: found 0, expected at least 1"),
        (lambda: KANLinear(2, 2, spline_order=0), "spline_order: found 0"),
        (lambda: KANConv2d(2, 2, 1, grid_range=(1, 1)), r"grid_range: found \[1, 1\]"),
        (lambda: KANConv2d(4, 6, 3, groups=4), "groups: found 4, expected a divisor of 4 and 6"),
        (lambda: adapt(pretrained(), hidden=0), "hidden: found 0"),
        (lambda: adapt(pretrained(), grid_size=-1), "grid_size: found -1"),
    ],
)
def test_a_bad_option_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def pretrained():
    return classifier(backbone="smallcnn", weights="random", num_classes=4, image_size=32)


@pytest.mark.parametrize("finetune", [False, True])
def test_kan_head_trains_the_head_and_the_body_only_if_told(finetune):
    model = adapt(pretrained(), finetune=finetune, hidden=8).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    statistics = copy.deepcopy(dict(model.backbone.named_buffers()))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    logits = model(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 4)
    F.cross_entropy(logits, torch.arange(4)).backward()
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if finetune or name.startswith("head")}
    assert any(not torch.equal(b, statistics[name]) for name, b in model.backbone.named_buffers()) is finetune


def test_kan_head_sees_features_inside_its_grid():
    model = adapt(pretrained()).eval()
    with torch.no_grad():
        seen = model.head[:3](1000 * model.backbone(torch.randn(8, 3, 32, 32)))
    assert (seen.abs() < 3).float().mean() > 0.95
