"""The spline basis in closed form: SciPy's values and slopes, and used only while the knots are evenly spaced."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from baselines.layers import splines
from baselines.layers.kan import KAN, KANConv2d, KANLinear


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def scipys(x, grid, order=3, derivative=0):
    """SciPy's basis, or its derivative, in float64: x (rows, in), knots (in, n) to (rows, in, n - 1 - order)."""
    x, grid = np.asarray(x.detach(), dtype=np.float64), np.asarray(grid, dtype=np.float64)
    result = np.zeros((*x.shape, grid.shape[1] - 1 - order))
    for feature, knots in enumerate(grid):
        for index in range(result.shape[2]):
            element = BSpline.basis_element(knots[index : index + order + 2], extrapolate=False)
            element = element.derivative(derivative) if derivative else element
            result[:, feature, index] = np.nan_to_num(element(x[:, feature]), nan=0)
    return torch.from_numpy(result)


@pytest.fixture
def forms(monkeypatch):
    """Which form each basis was computed by, in order."""
    used = []
    for name, form in (("_bumps", "closed"), ("_recursion", "recursion")):
        function = getattr(splines, name)
        monkeypatch.setattr(splines, name, lambda *a, function=function, form=form: used.append(form) or function(*a))
    return used


@pytest.mark.parametrize("size, span", [(1, (-1, 1)), (5, (-3, 3)), (7, (-3, 5.5)), (30, (0, 1)), (5, (-1000, -990))])
def test_even_cubics_are_scipys_in_value_and_slope(size, span, forms):
    layer = KANLinear(3, 2, grid_size=size, grid_range=span)
    low, high = layer.grid[0, 0].item(), layer.grid[0, -1].item()
    x = low + (high - low) * (1.2 * torch.rand(300, 3) - 0.1)
    x = torch.cat([x, layer.grid.T]).requires_grad_()
    basis = layer.b_splines(x)
    steps = size / (span[1] - span[0])
    limit = 1e-6 + 2 * np.spacing(np.float32(max(map(abs, span)))) * steps  # what rounding x itself does
    torch.testing.assert_close(basis.double(), scipys(x, layer.grid), rtol=0, atol=limit)
    grad = torch.randn_like(basis)
    (slope,) = torch.autograd.grad(basis, x, grad)
    expected = (scipys(x, layer.grid, derivative=1) * grad).sum(-1)
    torch.testing.assert_close(slope.double(), expected, rtol=0, atol=20 * limit * steps)
    assert forms[-1] == "closed"


@pytest.mark.parametrize("order", [1, 2, 4])
def test_other_degrees_take_the_recursion(order, forms):
    KANLinear(2, 2, spline_order=order)(torch.randn(3, 2))
    assert "closed" not in forms and forms


def test_far_outside_and_infinite_inputs_have_no_basis():
    layer = KANLinear(1, 1)
    x = torch.tensor([[-1e30], [1e30], [-torch.inf], [torch.inf], [torch.nan]], requires_grad=True)
    basis = layer.b_splines(x)
    assert (basis[:4] == 0).all() and basis[4].isnan().all()
    (slope,) = torch.autograd.grad(basis[:2].sum(), x)
    assert (slope[:2] == 0).all()


def edit(layer):
    with torch.no_grad():
        layer.grid[:, 4] += 0.1


def load(layer):
    state = copy.deepcopy(layer.state_dict())
    state["grid"][:, 4] += 0.1
    layer.load_state_dict(state)


def assign(layer):
    state = copy.deepcopy(layer.state_dict())
    state["grid"][:, 4] += 0.1
    layer.load_state_dict(state, assign=True)


def replace(layer):
    layer.grid = layer.grid + torch.linspace(0, 0.1, layer.grid.shape[1]) ** 2


def update(layer):
    layer.update_grid(torch.randn(50, layer.in_features) ** 3)


@pytest.mark.parametrize("change", [edit, load, assign, replace, update, torch.nn.Module.double])
def test_knots_that_are_no_longer_even_are_noticed(change, forms):
    layer, x = KANLinear(2, 2), torch.randn(60, 2)
    layer(x)
    assert forms[-1] == "closed"
    change(layer)
    basis = layer.b_splines(x.to(layer.grid))
    assert forms[-1] == "recursion"
    torch.testing.assert_close(basis.double(), scipys(x, layer.grid), rtol=0, atol=2e-6)
    layer.float().reset_parameters()
    layer(x)
    assert forms[-1] == "closed"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_looks_at_its_own_knots(copied, forms):
    first, x = KANLinear(2, 2), torch.randn(60, 2)
    first(x)
    second = copied(first)
    edit(second)
    torch.testing.assert_close(second.b_splines(x).double(), scipys(x, second.grid), rtol=0, atol=1e-6)
    torch.testing.assert_close(first.b_splines(x).double(), scipys(x, first.grid), rtol=0, atol=1e-6)
    assert forms[-2:] == ["recursion", "closed"]


def test_a_layer_made_in_inference_mode_computes_the_same():
    with torch.inference_mode():
        torch.manual_seed(1)
        inside = KANLinear(2, 2)
        x = torch.randn(5, 2)
        found = inside(x)
    torch.manual_seed(1)
    torch.testing.assert_close(found, KANLinear(2, 2)(x.clone()))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, as it traces
@pytest.mark.parametrize(
    "make, shape", [(lambda: KANLinear(4, 3), (50, 4)), (lambda: KANConv2d(4, 2, 3), (2, 4, 6, 6))]
)
def test_a_compiled_layer_is_the_layer(make, shape):
    layer = make()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(shape, requires_grad=True)
    for _ in range(2):  # with even knots, and with others that it is given later
        expected, found = layer(x), compiled(x)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        wanted = [x, *layer.parameters()]
        grads = (torch.autograd.grad(y.square().sum(), wanted) for y in (found, expected))
        for a, b in zip(*grads):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        load(layer)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_knots_edited_by_hand_under_a_compiled_graph_give_no_wrong_numbers():
    layer, x = KANLinear(4, 3), torch.randn(50, 4)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
    edit(layer)
    assert compiled(x).isnan().all()
    layer(x)  # outside of the graph it looks at its knots again
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("shape", [(0, 4), (0, 3, 4), (2, 0, 4)])
@pytest.mark.parametrize("even", [True, False])
def test_an_empty_batch(shape, even):
    model = KAN([4, 3, 2])
    if not even:
        for layer in model.layers:
            edit(layer)
    x = torch.randn(shape, requires_grad=True)
    y = model(x)
    assert y.shape == (*shape[:-1], 2)
    y.sum().backward()
    assert x.grad.shape == shape and not any(p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(
    "x, words",
    [
        (torch.tensor([[1.0, torch.nan], [0, 0]]), "found 1 of 4 values not finite"),
        (torch.full((3, 2), torch.inf), "found 6 of 6 values not finite"),
        (torch.empty(0, 2), "found no sample"),
    ],
)
def test_update_grid_refuses_what_it_cannot_place_knots_by_and_changes_nothing(x, words):
    layer = KANLinear(2, 3)
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ValueError, match=f"x: {words}, expected finite inputs.*grid is unchanged"):
        layer.update_grid(x)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
