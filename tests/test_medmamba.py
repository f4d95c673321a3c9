"""MedMamba: its parts against plain loops and slices, its published size, and that it learns."""

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from baselines.medmamba import SS2D, PatchMerging, SSConvSSM, four_ways, merge_ways, network

TINY = {"depths": (1, 1), "widths": (16, 32), "d_state": 4}


@pytest.fixture(autouse=True)
def one_thread():
    """Steps this small gain nothing from a second thread, and wait long for it on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(**options):
    torch.manual_seed(0)
    return network(num_classes=4, image_size=32, **{**TINY, **options})


def images(count=2, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def loop(u, delta, a, b, c, d):
    """One image, one direction, position after position: u, delta (C, L), a (C, N), b, c (N, L), d (C,)."""
    state, out = torch.zeros_like(a), torch.empty_like(u)
    for t in range(u.shape[1]):
        state = torch.exp(delta[:, t, None] * a) * state + (delta[:, t] * u[:, t])[:, None] * b[:, t]
        out[:, t] = state @ c[:, t] + d * u[:, t]
    return out


def test_the_published_size():
    with torch.device("meta"):
        model = network(num_classes=4, image_size=224)
    assert sum(p.numel() for p in model.parameters()) == 14_455_684


def test_the_four_orders_and_their_merging():
    x = torch.arange(6.0).view(1, 1, 2, 3)  # rows 012, 345
    ways = [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0]]
    assert four_ways(x)[0, :, 0].tolist() == ways
    torch.testing.assert_close(merge_ways(four_ways(x), 2, 3), 4 * x.flatten(2))
    for direction in range(4):  # each sequence goes back to its own pixels
        one = torch.zeros(1, 4, 1, 6)
        one[0, direction, 0] = torch.tensor(ways[direction])
        assert merge_ways(one, 2, 3).flatten().tolist() == list(range(6))


@pytest.mark.parametrize("direction", [0, 1, 2, 3])
def test_each_direction_sees_only_what_came_before_it(direction):
    """The pixels that move one pixel's output: 0 and 1 see those before it by rows and columns, 2 and 3 those after."""
    torch.manual_seed(0)
    ssm, (height, width), (row, column) = SS2D(4, d_state=2, scan="torch").ssm, (3, 4), (1, 2)
    x = torch.randn(1, 8, height, width, requires_grad=True)
    y = ssm(four_ways(x))
    only = torch.zeros_like(y)
    only[:, direction] = y[:, direction]
    merge_ways(only, height, width).unflatten(2, (height, width))[..., row, column].sum().backward()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    order = (columns * height + rows) if direction % 2 else (rows * width + columns)
    reach = order <= order[row, column] if direction < 2 else order >= order[row, column]
    torch.testing.assert_close(x.grad[0].abs().sum(0) > 0, reach)


def test_ss2d_is_a_loop_over_positions_in_each_direction():
    torch.manual_seed(0)
    module, (height, width) = SS2D(8, d_state=3, scan="torch"), (3, 5)
    for p in (module.ssm.D, module.norm.weight, module.norm.bias):
        nn.init.normal_(p)
    x = torch.randn(2, height, width, 8)
    found = module(x)
    module.double()
    ssm, pixels = module.ssm, [(r, c) for r in range(height) for c in range(width)]
    by_columns = sorted(pixels, key=lambda p: (p[1], p[0]))
    inside, gate = module.in_proj(x.double()).split(16, dim=-1)
    inside = nn.functional.silu(module.conv(inside.permute(0, 3, 1, 2)))
    total = torch.zeros(2, height, width, 16, dtype=torch.float64)
    for image in range(2):
        for g, order in enumerate([pixels, by_columns, pixels[::-1], by_columns[::-1]]):
            u = torch.stack([inside[image, :, r, c] for r, c in order], dim=1)
            dt, b, c = (ssm.x_proj[g] @ u).split([1, 3, 3])
            delta = softplus(ssm.dt_proj[g] @ dt + ssm.dt_bias[g][:, None])
            own = slice(16 * g, 16 * (g + 1))
            y = loop(u, delta, -ssm.A_log[own].exp(), b, c, ssm.D[own])
            for t, (row, column) in enumerate(order):
                total[image, row, column] += y[:, t]
    expected = module.out_proj(module.norm(total) * nn.functional.silu(gate))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_initial_step_sizes_and_decay_rates_are_mambas():
    ssm = SS2D(64, d_state=4, scan="torch").ssm
    steps = softplus(ssm.dt_bias)
    assert 1e-3 * 0.999 <= steps.min() < 2e-3 and 5e-2 < steps.max() <= 0.1001
    assert abs(steps.log().mean() - torch.tensor(1e-2).log()) < 0.3  # log-uniform: the middle is 0.01
    torch.testing.assert_close(ssm.A_log.exp(), torch.arange(1.0, 5).expand(4 * 128, 4))


def test_a_block_joins_its_halves_by_a_channel_shuffle():
    torch.manual_seed(0)
    block = SSConvSSM(12, d_state=2, scan="torch", drop_path=0).eval()
    x = torch.randn(2, 4, 6, 12)
    halves = torch.cat(
        [block.conv(x[..., :6].permute(0, 3, 1, 2)), block.ss2d(block.norm(x[..., 6:])).permute(0, 3, 1, 2)], dim=1
    )
    shuffled = (block(x) - x).permute(0, 3, 1, 2)
    torch.testing.assert_close(shuffled, nn.ChannelShuffle(2)(halves), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(nn.ChannelShuffle(6)(shuffled), halves, rtol=1e-4, atol=1e-5)  # its inverse


def test_patch_merging_is_slicing():
    torch.manual_seed(0)
    merging, x = PatchMerging(3, 6), torch.randn(2, 4, 6, 3)
    parts = [x[:, r::2, c::2] for c in range(2) for r in range(2)]
    torch.testing.assert_close(merging(x), merging.reduce(merging.norm(torch.cat(parts, dim=-1))))
    assert merging(x).shape == (2, 2, 3, 6)


def test_drop_path_rises_to_its_rate_and_leaves_evaluation_alone():
    model = tiny(depths=(2, 1), drop_path=0.3)
    assert [m.drop_path.p for m in model.modules() if isinstance(m, SSConvSSM)] == pytest.approx([0, 0.15, 0.3])
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images()), tiny(depths=(2, 1), drop_path=0).eval()(images()))


def test_gradient_reaches_every_parameter():
    model = tiny(drop_path=0.0)
    model(images(4)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if not p.requires_grad or not p.grad.abs().sum() > 0] == []


def test_meta_bfloat16_and_channels_last():
    with torch.device("meta"):
        assert network(num_classes=7, image_size=64)(torch.empty(2, 3, 64, 64)).shape == (2, 7)
    model = tiny().eval()
    expected = model(images())
    torch.testing.assert_close(model(images().contiguous(memory_format=torch.channels_last)), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(images())
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.05)
    out.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    "options, words",
    [
        ({"depths": (1,)}, r"depths: found \[1\] for widths \[16, 32\]"),
        ({"depths": (), "widths": ()}, "depths: found"),
        ({"depths": (1, 0)}, r"depths: found \[1, 0\], expected at least 1"),
        ({"widths": (16, 33)}, r"widths: found \[16, 33\], expected positive even"),
        ({"d_state": 0}, "d_state: found 0, expected at least 1"),
        ({"patch": 0}, "patch: found 0"),
        ({"drop_path": 1.0}, "drop_path: found 1.0, expected 0 <= drop_path < 1"),
        ({"scan": "cuda"}, "scan: found 'cuda', expected one of 'auto', 'torch', 'mamba-ssm'"),
        ({"patch": 5}, "image_size: found 32, expected a multiple of 10"),
        ({"patch": 32}, "image_size: found 32, expected a multiple of 64"),
    ],
)
def test_what_it_cannot_take_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        tiny(**options)
