"""The layer: its function, gradients, merge, over convolution geometries."""

import copy
import itertools

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from colora import ColoraConfig, ColoraConv2d
from colora.fused import FusedConv2d, kernel_is_cheaper

# torch says this once, of its own convolution.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

INPUTS, OUTPUTS = 4, 8
# kernel, stride, padding, dilation, groups, padding mode
GEOMETRIES = [
    (kernel, stride, padding, dilation, groups, mode)
    for kernel, stride, padding, dilation, groups, mode in itertools.product(
        (1, 3, 4, (3, 5)), (1, 2), (0, 1, (2, 1), "same", "valid"), (1, 2), (1, 2), ("zeros", "reflect", "circular")
    )
    if not (padding == "same" and stride != 1) and not (kernel == 1 and (padding != 0 or dilation != 1))
] + [((3, 3), (2, 1), 1, (1, 2), 4, "replicate"), (2, 1, "same", 3, 4, "replicate")]
FEW = GEOMETRIES[:: max(1, len(GEOMETRIES) // 12)] + GEOMETRIES[-2:]


def make_layer(geometry, dtype=torch.float64, bias=True, seed=0, **config):
    """A layer with a random base and a random, nonzero branch."""
    kernel, stride, padding, dilation, groups, mode = geometry
    torch.manual_seed(seed)
    conv = nn.Conv2d(
        INPUTS, OUTPUTS, kernel, stride, padding, dilation, groups, bias=bias, padding_mode=mode, dtype=dtype
    )
    layer = ColoraConv2d.from_conv(conv, ColoraConfig(**config))
    for parameter in layer.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return layer


def batch(dtype=torch.float64, **kwargs):
    return torch.randn(2, INPUTS, 9, 11, dtype=dtype, generator=torch.Generator().manual_seed(5), **kwargs)


def relative(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype, limit", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_merged_equals_the_two_branches_and_unmerge_is_exact(dtype, limit, bias):
    x = batch(dtype)
    for geometry in GEOMETRIES:
        layer = make_layer(geometry, dtype, bias)
        expected = layer.two_branch(x)
        before = {name: value.clone() for name, value in layer.named_parameters()}
        assert relative(layer(x), expected) < limit, geometry
        layer.merge()
        assert relative(layer(x), expected) < limit, geometry
        assert relative(nn.Conv2d.forward(layer, x), expected) < limit, geometry
        layer.unmerge()
        for name, value in layer.named_parameters():
            assert torch.equal(value, before[name]), (geometry, name)


def numpy_convolution(x, kernel, bias, geometry):
    """Convolution from SciPy's 2-D correlation, plane by plane, padded by NumPy."""
    size, stride, padding, dilation, groups, mode = geometry
    pair = lambda value: (value, value) if isinstance(value, int) else value  # noqa: E731
    (kh, kw), (sh, sw), (dh, dw) = pair(size), pair(stride), pair(dilation)
    if padding == "same":
        total = dh * (kh - 1), dw * (kw - 1)
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        pads = [(p, p) for p in pair(0 if padding == "valid" else padding)]
    numpy_mode = {"zeros": "constant", "reflect": "reflect", "circular": "wrap", "replicate": "edge"}[mode]
    x = np.pad(x, [(0, 0), (0, 0), *pads], mode=numpy_mode)
    wide = np.zeros((*kernel.shape[:2], dh * (kh - 1) + 1, dw * (kw - 1) + 1))
    wide[:, :, ::dh, ::dw] = kernel
    per_in, per_out = INPUTS // groups, OUTPUTS // groups
    planes = [
        [
            sum(correlate2d(image[o // per_out * per_in + i], wide[o, i], "valid") for i in range(per_in))[::sh, ::sw]
            for o in range(OUTPUTS)
        ]
        for image in x
    ]
    return np.array(planes) + (0 if bias is None else bias[:, None, None])


@pytest.mark.parametrize("geometry", FEW, ids=str)
def test_function_equals_scipy_with_the_formula_of_the_paper(geometry):
    layer = make_layer(geometry)
    x = batch()
    values = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    delta = np.einsum("ouv,oi->oiuv", values["depthwise"][:, 0], values["pointwise"][:, :, 0, 0])
    bias = values["bias"] + values["depthwise_bias"]
    expected = numpy_convolution(x.numpy(), values["weight"] + delta, bias, geometry)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(layer.two_branch(x).detach().numpy(), expected, rtol=1e-11, atol=1e-11)


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


@pytest.mark.parametrize("components", ["both", "pointwise", "depthwise"])
def test_update_is_zero_at_the_start_but_can_move(components):
    torch.manual_seed(1)
    conv = nn.Conv2d(6, 12, 4, padding="same", groups=3)
    layer = ColoraConv2d.from_conv(conv, ColoraConfig(components=components))
    x = torch.randn(2, 6, 7, 7)
    assert torch.equal(layer(x), conv(x))
    layer(x).square().sum().backward()
    moved = {name for name, p in layer.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved == ({"pointwise"} if components == "pointwise" else {"depthwise", "depthwise_bias"})


def test_pointwise_starts_glorot_uniform_with_the_fans_of_a_group():
    torch.manual_seed(0)
    layer = ColoraConv2d.from_conv(nn.Conv2d(64, 256, 3, groups=4))
    limit = (6 / (64 / 4 + 256 / 4)) ** 0.5
    assert layer.pointwise.abs().max() <= limit
    assert layer.pointwise.abs().max() > 0.98 * limit
    assert layer.pointwise.var().item() == pytest.approx(limit**2 / 3, rel=0.06)


def test_components_pointwise_is_a_1x1_through_the_centre_tap():
    layer = make_layer((3, 1, 1, 1, 1, "zeros"), components="pointwise")
    x = batch()
    expected = nn.functional.conv2d(x, layer.weight, layer.bias, padding=1) + nn.functional.conv2d(x, layer.pointwise)
    assert relative(layer(x), expected) < 1e-12
    assert layer.depthwise_bias is None and not layer.depthwise.requires_grad


def test_pointwise_bias_is_the_two_branch_form_and_lost_by_merge():
    layer = make_layer((3, 1, 1, 1, 1, "zeros"), pointwise_bias=True)
    x = batch()
    trained = layer(x)
    base = nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
    z = nn.functional.conv2d(x, layer.pointwise, layer.pointwise_bias)
    expected = base + nn.functional.conv2d(z, layer.depthwise, layer.depthwise_bias, padding=1, groups=OUTPUTS)
    assert relative(trained, expected) < 1e-12
    lost = layer.lost_by_merge()
    layer.merge()
    inside = (trained - layer(x))[:, :, 1:-1, 1:-1].abs().max().item()
    assert inside == pytest.approx(lost, rel=1e-10) and lost > 0.01


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


def test_no_grad_frozen_and_unbatched_forms_agree():
    layer = make_layer((3, 1, 1, 1, 1, "reflect"))
    x = batch()
    expected = layer(x).detach()
    with torch.no_grad():
        assert torch.equal(layer(x), expected)
    with torch.inference_mode():
        assert torch.equal(layer(x), expected)
    assert relative(layer(x[0]), expected[0]) < 1e-12
    layer.requires_grad_(False)
    assert torch.equal(layer(x), expected)


def test_empty_batch():
    layer = make_layer((3, 1, 1, 1, 1, "zeros"))
    y = layer(torch.empty(0, INPUTS, 9, 11, dtype=torch.float64, requires_grad=True))
    y.sum().backward()
    assert y.shape == (0, OUTPUTS, 9, 11)
    assert layer.pointwise.grad.abs().sum() == 0


def test_channels_last_stays_and_changes_nothing():
    layer = make_layer((3, 1, 1, 1, 1, "zeros"), torch.float32)
    x = batch(torch.float32)
    expected = torch.autograd.grad(layer(x).square().sum(), [layer.pointwise, layer.depthwise])
    last = layer.to(memory_format=torch.channels_last)
    y = last(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    found = torch.autograd.grad(y.square().sum(), [last.pointwise, last.depthwise])
    for one, other in zip(found, expected, strict=True):
        assert relative(one, other) < 1e-5


def test_autocast_computes_in_bfloat16_and_gives_float32_gradients():
    layer = make_layer((3, 1, 1, 1, 1, "zeros"), torch.float32)
    x = batch(torch.float32, requires_grad=True)
    learning = [x, layer.pointwise, layer.depthwise, layer.depthwise_bias]
    expected = torch.autograd.grad(layer.two_branch(x).square().sum(), learning)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    found = torch.autograd.grad(y.float().square().sum(), learning)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32 and relative(one, other) < 0.02
    with torch.autocast("cpu", dtype=torch.bfloat16):
        merged_kernel = layer.effective()[0]
    assert merged_kernel.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_model_merges_in_float32(dtype):
    layer = make_layer((3, 1, 1, 1, 1, "zeros"), dtype)
    exact = layer.weight.float() + layer.depthwise.float() * layer.pointwise.float()
    base = layer.weight.clone()
    layer.merge()
    assert torch.equal(layer.weight, exact.to(dtype))
    layer.unmerge()
    assert torch.equal(layer.weight, base)


def test_wrong_input_dtype_is_refused_as_by_conv2d():
    layer = make_layer((3, 1, 1, 1, 1, "zeros"), torch.float32)
    with pytest.raises(RuntimeError, match="float64.*float32"):
        layer(batch(torch.float64))


@pytest.mark.parametrize("merged", [False, True])
def test_deepcopy_is_independent(merged):
    layer = make_layer((3, 1, 1, 1, 1, "zeros"))
    if merged:
        layer.merge()
    twin = copy.deepcopy(layer)
    x = batch()
    expected = layer(x).detach()
    assert torch.equal(twin(x), expected)
    twin.unmerge()
    nn.init.ones_(twin.depthwise)
    assert torch.equal(layer(x), expected)
    layer.unmerge()
    assert torch.equal(twin.weight, layer.weight)


@pytest.mark.parametrize("save_merged, load_merged", list(itertools.product([False, True], repeat=2)))
def test_state_dict_round_trip_never_carries_the_update_twice(save_merged, load_merged):
    source, target = make_layer(FEW[3], seed=1), make_layer(FEW[3], seed=2)
    x = batch()
    expected = source(x)
    if save_merged:
        source.merge()
    if load_merged:
        target.merge()
    target.load_state_dict(source.state_dict())
    assert target.merged == load_merged
    assert relative(target(x), expected) < 1e-12
    target.unmerge()
    source.unmerge()
    assert torch.equal(target.weight, source.weight)


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


def test_merged_layer_moves_with_its_kept_base():
    layer = make_layer((3, 1, 1, 1, 1, "zeros"))
    base = layer.weight.clone()
    layer.merge()
    layer.float()
    assert layer.base_weight.dtype == torch.float32
    layer.unmerge()
    assert torch.equal(layer.weight, base.float())


def test_from_conv_shares_the_base_and_keeps_hooks():
    conv = nn.Conv2d(3, 4, 3).eval()
    seen = []
    conv.register_forward_hook(lambda *_: seen.append("hook"))
    layer = ColoraConv2d.from_conv(conv)
    assert layer.weight is conv.weight and layer.bias is conv.bias and not layer.training
    layer(torch.randn(1, 3, 5, 5))
    assert seen == ["hook"]
    assert set(conv.state_dict()) == {"weight", "bias"}


class OwnForward(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


@pytest.mark.parametrize(
    "module, message",
    [
        (nn.Linear(2, 2), "Linear"),
        (nn.Conv1d(2, 2, 3), "Conv1d"),
        (nn.Conv3d(2, 2, 3), "Conv3d"),
        (nn.ConvTranspose2d(2, 2, 3), "ConvTranspose2d"),
        (nn.LazyConv2d(2, 3), "without a shape"),
        (OwnForward(2, 2, 3), "its own forward"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 3)), "parametrization"),
        (ColoraConv2d.from_conv(nn.Conv2d(2, 2, 3)), "already"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_adapted_is_refused(module, message):
    with pytest.raises(TypeError, match=message):
        ColoraConv2d.from_conv(module)
