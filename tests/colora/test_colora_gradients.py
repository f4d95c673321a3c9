"""The layer's gradients, by the branch and by the kernel, against autograd; which way is taken; what is kept."""

import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from colora.fused import FusedConv2d, kernel_is_cheaper
from tests.colora.test_colora_conv import FEW, GEOMETRIES, INPUTS, batch, make_layer, pytestmark, relative  # noqa: F401

both_ways = pytest.mark.parametrize("gradient", ["branch", "kernel"])


@both_ways
@pytest.mark.parametrize("components", ["both", "pointwise", "depthwise"])
def test_gradients_equal_autograd_on_the_two_branches(components, gradient):
    for place, geometry in enumerate(GEOMETRIES[::3] + FEW):
        layer = make_layer(geometry, bias=place % 2 == 0, components=components, gradient=gradient)
        x = batch(requires_grad=True)
        learning = {"x": x} | {name: p for name, p in layer.named_parameters() if p.requires_grad}
        expected_output = layer.two_branch(x)
        weights = torch.randn_like(expected_output)
        expected = torch.autograd.grad((expected_output * weights).sum(), list(learning.values()))
        found = torch.autograd.grad((layer(x) * weights).sum(), list(learning.values()))
        for name, one, other in zip(learning, found, expected, strict=True):
            assert one.shape == other.shape and relative(one, other) < 1e-12, (geometry, name)


@both_ways
@pytest.mark.parametrize("geometry", FEW[::2] + FEW[-2:], ids=str)
def test_gradcheck(geometry, gradient):
    layer = make_layer(geometry)
    x = torch.randn(1, INPUTS, 9, 8, dtype=torch.float64, requires_grad=True)
    x_padded, padding = layer._padded(x)
    args = (layer.stride, padding, layer.dilation, layer.groups)
    inputs = (x_padded.detach().requires_grad_(), layer.pointwise, layer.depthwise, layer.depthwise_bias)
    assert torch.autograd.gradcheck(
        lambda x, pointwise, depthwise, bias: FusedConv2d.apply(
            x, layer.weight, pointwise, depthwise, bias, args, gradient == "kernel"
        ),
        inputs,
        fast_mode=True,
    )


@both_ways
def test_second_derivatives(gradient):
    layer = make_layer((3, 2, 1, 1, 2, "zeros"))
    x = torch.randn(1, INPUTS, 5, 5, dtype=torch.float64, requires_grad=True)
    args = ((2, 2), (1, 1), (1, 1), 2)
    assert torch.autograd.gradgradcheck(
        lambda x, p, d: FusedConv2d.apply(x, layer.weight, p, d, None, args, gradient == "kernel"),
        (x, layer.pointwise, layer.depthwise),
        fast_mode=True,
    )


@both_ways
@pytest.mark.parametrize("dtype, limit", [(torch.float32, 3e-5), (torch.bfloat16, 0.02)])
def test_gradients_of_lower_precision_are_near_those_of_float64(dtype, limit, gradient):
    """With float32 parameters under autocast, as in training; large sums show where too little precision is kept."""
    for geometry in FEW:
        layer = make_layer(geometry, torch.float64, gradient=gradient)
        x = torch.randn(16, INPUTS, 21, 23, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        learning = [layer.pointwise, layer.depthwise, layer.depthwise_bias]
        expected_output = layer.two_branch(x)
        weights = torch.randn_like(expected_output)
        expected = torch.autograd.grad((expected_output * weights).sum(), learning)
        layer = layer.float()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = layer(x.float())
        assert y.dtype == dtype
        found = torch.autograd.grad(
            (y * weights.to(y.dtype)).sum(), [layer.pointwise, layer.depthwise, layer.depthwise_bias]
        )
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == torch.float32 and relative(one, other) < limit, geometry


def test_the_cheaper_way_is_chosen_by_shape_and_type_of_device_alone():
    """Layers whose two ways differ by more than measurement error, on two CPU cores and on an H100."""
    by_kernel = [  # kernel, stride
        ((64, 3, 7, 7), 2), ((96, 3, 4, 4), 4), ((64, 3, 3, 3), 1), ((64, 32, 3, 3), 2), ((64, 64, 1, 1), 1),
        ((512, 256, 2, 2), 2), ((512, 16, 3, 3), 1), ((96, 1, 7, 7), 1),
    ]  # fmt: skip
    by_branch = [((512, 512, 3, 3), 1), ((256, 256, 3, 3), 1)]
    for device in ("cpu", "cuda", "xpu"):
        for wanted, cases in ((True, by_kernel), (False, by_branch)):
            for shape, stride in cases:
                assert kernel_is_cheaper(torch.Size(shape), (stride, stride), device) == wanted, (device, shape)
    middle = torch.Size((64, 64, 3, 3))
    assert [kernel_is_cheaper(middle, (1, 1), device) for device in ("cpu", "cuda")] == [False, True]


@pytest.mark.parametrize("gradient, dense", [("auto", True), ("kernel", True), ("branch", False)])
def test_the_way_can_be_forced(gradient, dense):
    """Backward by the kernel makes a tensor as large as the kernel; by the branch none but the small ones."""
    layer = make_layer((5, 1, 2, 1, 1, "zeros"), gradient=gradient)
    y = layer(batch())
    shapes = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            shapes.extend(t.shape for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, torch.Tensor))
            return out

    with Record():
        torch.autograd.grad(y.sum(), [layer.pointwise, layer.depthwise])
    assert (layer.weight.shape in shapes) == dense


def test_gradients_of_single_samples_by_vmap():
    for gradient, components in itertools.product(("branch", "kernel"), ("both", "pointwise")):
        layer = make_layer((3, 2, 1, 1, 2, "zeros"), gradient=gradient, components=components)
        learning = {name: p.detach() for name, p in layer.named_parameters() if p.requires_grad}

        def loss(parameters, sample, layer=layer):
            return torch.func.functional_call(layer, parameters, (sample[None],)).square().sum()

        x = batch()
        found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(learning, x)
        for place, sample in enumerate(x):
            expected = torch.autograd.grad(
                layer.two_branch(sample[None]).square().sum(), [p for p in layer.parameters() if p.requires_grad]
            )
            for name, other in zip(learning, expected, strict=True):
                assert relative(found[name][place], other) < 1e-12, (gradient, name)


@both_ways
def test_only_the_input_and_the_parameters_are_kept_for_backward(gradient):
    layer = make_layer((3, 1, 1, 1, 1, "zeros"), gradient=gradient)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        x = batch(requires_grad=True)
        layer(x)
    own = {value.data_ptr() for value in (x, layer.weight, layer.pointwise, layer.depthwise)}
    assert set(kept) == own


def test_base_kernel_chosen_for_training_gets_its_gradient():
    layer = make_layer((3, 1, 1, 1, 1, "zeros"))
    layer.weight.requires_grad_(True)
    layer.bias.requires_grad_(True)
    x = batch()
    expected = torch.autograd.grad(layer.two_branch(x).square().sum(), list(layer.parameters()))
    found = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    for one, other in zip(found, expected, strict=True):
        assert relative(one, other) < 1e-12


def test_base_bias_chosen_for_training_gets_its_gradient():
    layer = make_layer((3, 1, 1, 1, 1, "zeros"))
    layer.bias.requires_grad_(True)
    x = batch()
    expected = torch.autograd.grad(layer.two_branch(x).square().sum(), layer.bias)[0]
    assert relative(torch.autograd.grad(layer(x).square().sum(), layer.bias)[0], expected) < 1e-12


def test_checkpointing_gives_the_same_gradients():
    layer = make_layer((3, 1, 1, 1, 1, "circular"))
    x = batch(requires_grad=True)
    expected = torch.autograd.grad(layer(x).square().sum(), [x, layer.pointwise])
    found = torch.autograd.grad(checkpoint(layer, x, use_reentrant=False).square().sum(), [x, layer.pointwise])
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_gradients_have_their_shapes_on_the_meta_device():
    """Where shapes and FLOPs are found without computing: no autocast there to be switched off."""
    layer = make_layer((3, 2, 1, 1, 2, "zeros")).to("meta")
    x = batch(requires_grad=True).to("meta")
    for wanted, gradient in zip(
        learned := [x, layer.pointwise, layer.depthwise], torch.autograd.grad(layer(x).sum(), learned), strict=True
    ):
        assert gradient.shape == wanted.shape
