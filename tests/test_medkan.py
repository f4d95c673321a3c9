"""MedKAN: shapes, what each block sees, and that it learns."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from baselines.medkan import GlobalKAN, LocalKAN, network

TINY = {"widths": (16, 32), "depths": (1, 1), "groups": 4, "tokens": 4, "expansion": 2}


def tiny(**options):
    torch.manual_seed(0)
    return network(num_classes=4, image_size=32, **{**TINY, **options})


def images(count=4, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_defaults_are_of_the_papers_small_size():
    with torch.device("meta"):
        model = network(num_classes=4, image_size=128)
        assert model(torch.empty(2, 3, 128, 128)).shape == (2, 4)
    assert sum(p.numel() for p in model.parameters()) == 11_514_752


@pytest.mark.parametrize("size", [8, 28, 33])
def test_takes_any_image_size_that_its_stages_can_halve(size):
    model = network(num_classes=3, image_size=size, **TINY).eval()
    assert model(images(2, size)).shape == (2, 3)


def test_every_parameter_gets_a_gradient():
    model = tiny().train()
    F.cross_entropy(model(images(16)), torch.arange(16) % 4).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_local_blocks_see_a_neighbourhood_and_global_blocks_everything():
    torch.manual_seed(0)
    x = torch.randn(1, 8, 12, 12, requires_grad=True)
    spline = {"grid_size": 5, "spline_order": 3, "grid_range": (-3, 3)}
    local = LocalKAN(8, groups=2, **spline).eval()
    context = GlobalKAN(8, size=12, tokens=5, reduction=2, **spline).eval()
    reach = []
    for block in (local, context):
        (gradient,) = torch.autograd.grad(block(x)[0, 0, 0, 0], x)
        reach.append(gradient.abs().sum((0, 1)) > 0)
    assert reach[0][:2, :2].all() and reach[0].sum() == 4
    assert reach[1].all()
    (gradient,) = torch.autograd.grad(local(x)[0, 0, 5, 5], x)
    assert gradient[0, :4].any() and not gradient[0, 4:].any()  # the other group


def test_global_pooling_and_interpolation_are_torchs():
    torch.manual_seed(0)
    block = GlobalKAN(4, size=10, tokens=3, reduction=1, grid_size=5, spline_order=3)
    x = torch.randn(2, 4, 10, 10)
    seen = {}
    block.norm_cells.register_forward_pre_hook(lambda _, inputs: seen.__setitem__("cells", inputs[0]))
    block.mix_channels = nn.Module()  # its output is the cells, and nothing else is added to them
    block.mix_channels.forward = lambda x: seen["cells"]
    nn.init.zeros_(block.mix_cells.base_weight), nn.init.zeros_(block.mix_cells.spline_weight)
    cells = F.adaptive_avg_pool2d(x, 3)
    expected = x + F.interpolate(cells, size=10, mode="bilinear")
    torch.testing.assert_close(block(x), expected)
    torch.testing.assert_close(seen["cells"], cells.flatten(2).transpose(1, 2))


def test_same_seed_same_network():
    assert torch.equal(tiny().eval()(images()), tiny().eval()(images()))


def test_bfloat16_and_channels_last():
    model = tiny().eval()
    exact = model(images())
    model.to(memory_format=torch.channels_last)
    x = images().contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x), exact, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        y = copy.deepcopy(model)(x)
    torch.testing.assert_close(y.float(), exact, rtol=0.1, atol=0.1)
    y.float().sum().backward()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"depths": (1,)}, r"depths: found \[1\] for widths \[16, 32\]"),
        ({"widths": (), "depths": ()}, r"depths: found \[\]"),
        ({"depths": (1, 0)}, "depths: found 0, expected at least 1"),
        ({"groups": 5}, "groups: found 5, expected a divisor of every width"),
        ({"tokens": 0}, "tokens: found 0"),
        ({"reduction": 17}, "reduction: found 17, expected 1 to 16"),
        ({"grid_size": 0}, "grid_size: found 0"),
        ({"image_size": 7}, "image_size: found 7, expected at least 8"),
    ],
)
def test_a_bad_option_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        network(**{"num_classes": 4, "image_size": 32, **TINY, **options})
