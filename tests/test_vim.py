"""Vision Mamba: its mixer against plain loops, its size by hand, and that it learns."""

import pytest
import torch
from torch import nn
from torch.nn.functional import silu, softplus

from baselines.vim import BiMamba, network

TINY = {"patch": 4, "width": 32, "depth": 2, "d_state": 4}


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


def mixer(width=8):
    torch.manual_seed(0)
    return BiMamba(width, d_state=3, scan="torch")


def loop(u, delta, a, b, c, d):
    """One sequence, position after position: u, delta (C, L), a (C, N), b, c (N, L), d (C,)."""
    state, out = torch.zeros_like(a), torch.empty_like(u)
    for t in range(u.shape[1]):
        state = torch.exp(delta[:, t, None] * a) * state + (delta[:, t] * u[:, t])[:, None] * b[:, t]
        out[:, t] = state @ c[:, t] + d * u[:, t]
    return out


@pytest.mark.parametrize("pool, positions, token", [("middle", 65, 32), ("mean", 64, 0)])
def test_size_by_hand(pool, positions, token):
    width, inner, states, rank = 32, 64, 4, 2
    embed = 3 * 4 * 4 * width + width
    direction = (4 + 1) * inner + inner * (rank + 2 * states) + (rank + 1) * inner + inner * states + inner
    block = 2 * width + width * 2 * inner + 2 * direction + inner * width
    expected = embed + positions * width + token + 2 * block + 2 * width + 4 * width + 4
    assert sum(p.numel() for p in tiny(pool=pool).parameters()) == expected


def test_the_papers_tiny_has_seven_million():
    with torch.device("meta"):
        model = network(num_classes=1000, image_size=224, depth=24)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 7


def test_the_mixer_is_two_loops_over_positions():
    """In each direction a causal convolution of 4, SiLU, the state-space recurrence; summed, gated, projected."""
    module, length, inner = mixer(), 6, 16
    nn.init.normal_(module.ssm.D)
    x = torch.randn(1, length, 8)
    found = module(x)
    module.double()
    ssm = module.ssm
    inside, gate = module.in_proj(x[0].double()).split(inner, dim=-1)
    total = 0
    for g, order in enumerate([list(range(length)), list(reversed(range(length)))]):
        own = slice(inner * g, inner * (g + 1))
        padded = torch.cat([torch.zeros(3, inner, dtype=torch.float64), inside[order]])
        kernel = module.conv.weight[own, 0]
        mixed = torch.stack([(padded[t : t + 4].T * kernel).sum(1) for t in range(length)], dim=1)
        u = silu(mixed + module.conv.bias[own][:, None])
        dt, b, c = (ssm.x_proj[g] @ u).split([1, 3, 3])
        delta = softplus(ssm.dt_proj[g] @ dt + ssm.dt_bias[g][:, None])
        total = total + loop(u, delta, -ssm.A_log[own].exp(), b, c, ssm.D[own])[:, order].T
    torch.testing.assert_close(found[0].double(), module.out_proj(total * silu(gate)), rtol=1e-4, atol=1e-5)


def test_a_flipped_sequence_swaps_the_directions():
    module, x = mixer(), torch.randn(2, 7, 8)
    expected = module(x).flip(1)
    with torch.no_grad():
        for p in (*module.conv.parameters(), *module.ssm.parameters()):
            halves = p.unflatten(0, (2, -1))
            p.copy_(halves.flip(0).flatten(0, 1))
    torch.testing.assert_close(module(x.flip(1)), expected)


def test_the_class_token_is_in_the_middle_and_is_what_the_head_reads():
    model, seen = tiny(), []
    model.blocks.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    model.norm.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    model.blocks.register_forward_hook(lambda _m, _args, out: seen.append(out))
    model(images(1))
    before, after, read = seen
    torch.testing.assert_close(before[0, 32], model.token[0, 0] + model.positions[0, 32])
    torch.testing.assert_close(before[0, 31], model.embed(images(1))[0, :, 3, 7] + model.positions[0, 31])
    torch.testing.assert_close(before[0, 33], model.embed(images(1))[0, :, 4, 0] + model.positions[0, 33])
    torch.testing.assert_close(read, after[:, 32])


@pytest.mark.parametrize("pool", ["middle", "mean"])
def test_gradient_reaches_every_parameter(pool):
    model = tiny(pool=pool)
    model(images(4)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if not p.requires_grad or not p.grad.abs().sum() > 0] == []


def test_meta_bfloat16_and_channels_last():
    with torch.device("meta"):
        assert network(num_classes=7, image_size=64)(torch.empty(2, 3, 64, 64)).shape == (2, 7)
    model = tiny()
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
        ({"patch": 0}, "patch: found 0, expected at least 1"),
        ({"width": 0}, "width: found 0"),
        ({"depth": 0}, "depth: found 0"),
        ({"d_state": -1}, "d_state: found -1"),
        ({"pool": "max"}, "pool: found 'max', expected 'middle' or 'mean'"),
        ({"scan": "cuda"}, "scan: found 'cuda', expected one of 'auto', 'torch', 'mamba-ssm'"),
        ({"patch": 5}, "image_size: found 32, expected a multiple of patch 5"),
        ({"patch": 64}, "image_size: found 32, expected a multiple of patch 64"),
    ],
)
def test_what_it_cannot_take_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        tiny(**options)
