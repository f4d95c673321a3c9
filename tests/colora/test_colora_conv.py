"""The layer: its function over convolution geometries, merge, copies, dtypes, what cannot be one."""

import copy
import itertools

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from torch import nn

from colora import ColoraConfig, ColoraConv2d

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
