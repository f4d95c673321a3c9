"""The selective scan against a plain loop, SciPy and autograd; its memory, dtypes, FLOPs and errors."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from baselines.layers import scan as module
from baselines.layers.selective_scan import selective_scan

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
# batch, D, N, L, groups of B, groups of C; 0 stands for (D, N), 1 for (batch, N, L)
SHAPES = [(2, 6, 4, 13, 1, 1), (3, 4, 1, 7, 2, 4), (1, 6, 3, 1, 0, 3), (2, 6, 2, 12, 2, 0), (2, 3, 2, 5, 0, 0)]
# chunks, steps a segment: both with and without a remainder, None for the device's rule
PLANS = [(1, 4), (1, 99), (3, 2), (4, 99), (13, 1), (None, None)]

# Without the compilation for dynamic shapes, which takes longer than all else here.
CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor")


def loop(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    """The definition, one step after the other, in the inputs' dtype; y and the last state."""
    batch, channels, length = u.shape
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)

    def full(M):
        if M.ndim == 2:
            return M[None, :, :, None].expand(batch, -1, -1, length)
        M = M if M.ndim == 4 else M[:, None]
        return M.repeat_interleave(channels // M.shape[1], 1)

    B, C = full(B), full(C)
    x, ys = u.new_zeros(batch, channels, A.shape[1]), []
    for t in range(length):
        step, now = delta[:, :, t, None], u[:, :, t, None]
        x = torch.exp(step * A) * x + step * B[..., t] * now
        ys.append((C[..., t] * x).sum(-1))
    y = torch.stack(ys, -1)
    if D is not None:
        y = y + D[:, None] * u
    if z is not None:
        y = y * z * torch.sigmoid(z)
    return y, x


def inputs(batch, D, N, L, groups_B, groups_C, dtype=torch.float64, device="cpu", grad=False, seed=0):
    """The eight arguments by name."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    def matrix(groups):
        shapes = {0: (D, N), 1: (batch, N, L)}
        return normal(*shapes.get(groups, (batch, groups, N, L)))

    values = dict(
        u=normal(batch, D, L),
        delta=normal(batch, D, L).abs(),
        A=-normal(D, N).exp(),
        B=matrix(groups_B),
        C=matrix(groups_C),
        D=normal(D),
        z=normal(batch, D, L),
        delta_bias=normal(D),
    )
    return {name: x.to(device, dtype).requires_grad_(grad) for name, x in values.items()}


def relative(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30)).item()


def without(values, *names):
    return {name: x for name, x in values.items() if name not in names}


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_equal_the_loop(shape, plan):
    everything = inputs(*shape)
    chunks, segment = plan
    for left_out in ((), ("z",), ("D",), ("delta_bias",), ("D", "z", "delta_bias")):
        for softplus in (False, True):
            values = without(everything, *left_out)
            y, last = selective_scan(
                **values, delta_softplus=softplus, return_last_state=True, _chunks=chunks, _segment=segment
            )
            expected, expected_last = loop(**values, delta_softplus=softplus)
            torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(last, expected_last, rtol=1e-10, atol=1e-10)
    assert selective_scan(**everything).shape == shape[:2] + shape[3:4]


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_equal_those_of_autograd_through_the_loop(shape, plan):
    values = inputs(*shape, grad=True)
    chunks, segment = plan
    pairs = [
        selective_scan(**values, delta_softplus=True, return_last_state=True, _chunks=chunks, _segment=segment),
        loop(**values, delta_softplus=True),
    ]
    weights = [torch.randn_like(x) for x in pairs[1]]
    found, expected = (
        torch.autograd.grad([(x * w).sum() for x, w in zip(pair, weights)], list(values.values())) for pair in pairs
    )
    for name, one, other in zip(values, found, expected):
        assert one.shape == other.shape and relative(one, other) < 1e-10, name


def test_blocks_of_the_batch_change_nothing(monkeypatch):
    values = inputs(5, 6, 4, 20, 2, 0, grad=True)

    def run():
        y, last = selective_scan(**values, return_last_state=True, _chunks=2, _segment=3)
        return [y, last, *torch.autograd.grad(y.square().sum() + last.sum(), list(values.values())[:7])]

    expected = run()
    # Two sequences at a time: two full blocks and one of a single sequence.
    monkeypatch.setitem(module.BLOCK, "cpu", 3 * 2 * 24 * 2)
    for one, other in zip(run(), expected):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("groups", [(2, 2), (0, 1), (1, 0)], ids=str)
def test_gradcheck(groups, chunks):
    values = inputs(2, 4, 2, 7, *groups, grad=True)

    def function(*arguments):
        return selective_scan(
            **dict(zip(NAMES, arguments)), delta_softplus=True, return_last_state=True, _chunks=chunks, _segment=2
        )

    assert torch.autograd.gradcheck(function, tuple(values.values()))


def test_constant_system_equals_scipy():
    """With constant delta, A, B and C each state is a first-order recursive filter."""
    batch, channels, states, length = 2, 3, 4, 200
    rng = np.random.default_rng(0)
    u = rng.normal(size=(batch, channels, length))
    step = rng.uniform(0.01, 1, channels)
    A, B, C = -rng.uniform(0.1, 5, (channels, states)), *rng.normal(size=(2, channels, states))
    expected = sum(
        np.stack(
            [
                lfilter([step[d] * B[d, n] * C[d, n]], [1, -np.exp(step[d] * A[d, n])], u[:, d], axis=-1)
                for d in range(channels)
            ],
            axis=1,
        )
        for n in range(states)
    )
    delta = np.broadcast_to(step[:, None], u.shape).copy()
    constant = [torch.from_numpy(x) for x in (u, delta, A, B, C)]
    # The same filter with B and C given for each step, in as many groups as channels.
    moving = [np.broadcast_to(x[None, :, :, None], (batch, channels, states, length)).copy() for x in (B, C)]
    for arguments in (constant, constant[:3] + [torch.from_numpy(x) for x in moving]):
        np.testing.assert_allclose(selective_scan(*arguments).numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_only_one_input_needs_a_gradient(name):
    values = inputs(2, 4, 3, 9, 2, 2)
    values[name].requires_grad_()
    (found,) = torch.autograd.grad(selective_scan(**values).square().sum(), values[name])
    (expected,) = torch.autograd.grad(loop(**values)[0].square().sum(), values[name])
    assert relative(found, expected) < 1e-10


def test_only_the_last_state_is_used():
    values = without(inputs(2, 4, 3, 9, 2, 2, grad=True), "C", "D", "z", "delta_bias")
    C = torch.zeros(4, 3, dtype=torch.float64)
    found = torch.autograd.grad(selective_scan(C=C, **values, return_last_state=True)[1].sum(), list(values.values()))
    expected = torch.autograd.grad(loop(C=C, **values)[1].sum(), list(values.values()))
    for one, other in zip(found, expected):
        assert relative(one, other) < 1e-10


def test_non_contiguous_inputs():
    values = inputs(2, 4, 3, 9, 2, 2)
    strided = {name: x.mT.contiguous().mT if x.ndim > 1 else x for name, x in values.items()}
    assert not strided["u"].is_contiguous()
    torch.testing.assert_close(selective_scan(**strided), selective_scan(**values), rtol=0, atol=0)
    expanded = {**values, "delta": values["delta"][:, :1].expand(-1, 4, -1).requires_grad_()}
    (found,) = torch.autograd.grad(selective_scan(**expanded).sum(), expanded["delta"])
    (expected,) = torch.autograd.grad(loop(**expanded)[0].sum(), expanded["delta"])
    assert relative(found, expected) < 1e-10


def kept_bytes(values, **options):
    """Bytes of storage, beside that of the inputs, that autograd keeps."""
    own = {x.untyped_storage().data_ptr() for x in values.values()}
    kept = {}

    def pack(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y = selective_scan(**values, **options)
    assert y.requires_grad
    return sum(kept.values())


def test_memory_kept_is_linear_in_the_length_and_far_below_all_states():
    batch, channels, states = 2, 8, 16
    kept = {}
    for length in (256, 512, 1024):
        values = inputs(batch, channels, states, length, 2, 2, dtype=torch.float32, grad=True)
        core = without(values, "D", "z", "delta_bias")
        kept[length] = kept_bytes(core)
        # One state for every SEGMENT steps.
        assert kept[length] == 4 * batch * channels * states * length / module.SEGMENT
        everything = kept_bytes(values, delta_softplus=True)
        assert everything < 0.5 * 4 * batch * channels * states * length
    assert kept[1024] == 2 * kept[512] == 4 * kept[256]


@pytest.mark.parametrize("chunks", [1, 5])
def test_bfloat16_long_and_very_large_steps(chunks):
    values = inputs(1, 4, 4, 4096, 2, 2, grad=False)
    # Steps from e^-7 to 1e3 after softplus, in random order.
    generator = torch.Generator().manual_seed(1)
    values["delta"] = torch.exp(torch.rand(1, 4, 4096, generator=generator, dtype=torch.float64) * 14 - 7)
    values["delta"][..., ::97] = 1000
    moving = ("u", "delta", "B", "C", "z")
    values = {name: x.to(torch.bfloat16 if name in moving else torch.float32) for name, x in values.items()}
    for x in values.values():
        x.requires_grad_()
    y, last = selective_scan(**values, delta_softplus=True, return_last_state=True, _chunks=chunks)
    exact = {name: x.detach().double() for name, x in values.items()}
    expected, expected_last = loop(**exact, delta_softplus=True)
    assert y.dtype == torch.bfloat16 and last.dtype == torch.float32
    assert y.isfinite().all() and relative(y, expected) < 2**-8
    assert relative(last, expected_last) < 1e-5
    for name, gradient in zip(values, torch.autograd.grad(y.float().square().mean(), list(values.values()))):
        assert gradient.isfinite().all() and gradient.dtype == values[name].dtype, name


def test_float32_is_near_float64():
    values = inputs(2, 8, 16, 64, 2, 2, grad=True)
    single = {name: x.detach().float().requires_grad_() for name, x in values.items()}
    y, expected = selective_scan(**single, delta_softplus=True), loop(**values, delta_softplus=True)[0]
    assert y.dtype == torch.float32 and relative(y, expected) < 2e-6
    found = torch.autograd.grad(y.square().sum(), list(single.values()))
    for name, one, other in zip(NAMES, found, torch.autograd.grad(expected.square().sum(), list(values.values()))):
        assert relative(one, other) < 5e-6, name


def test_autocast_changes_nothing():
    values = inputs(2, 8, 16, 64, 2, 2, dtype=torch.float32, grad=True)

    def run():
        y = selective_scan(**values, delta_softplus=True)
        return [y, *torch.autograd.grad(y.sum(), list(values.values()))]

    expected = run()
    with torch.autocast("cpu", torch.bfloat16):
        for one, other in zip(run(), expected):
            assert one.dtype == torch.float32 and torch.equal(one, other)


def test_operators_pass_the_checks_of_torch():
    values = inputs(2, 4, 3, 9, 2, 2, grad=True)
    arguments = [values[name] for name in NAMES[:5]]
    torch.library.opcheck(torch.ops.baselines.selective_scan, (*arguments, 2, 3), test_utils=CHECKS)


def test_compiles_without_a_break():
    values = inputs(2, 4, 3, 9, 2, 2, grad=True)
    compiled = torch.compile(selective_scan, backend="aot_eager", fullgraph=True)
    y = compiled(**values, delta_softplus=True)
    expected = selective_scan(**values, delta_softplus=True)
    torch.testing.assert_close(y, expected)
    for one, other in zip(*(torch.autograd.grad(x.sum(), list(values.values())) for x in (y, expected))):
        torch.testing.assert_close(one, other)


def test_meta_device_gives_shapes_and_dtypes():
    values = inputs(2, 8, 16, 64, 2, 2, dtype=torch.float32, device="meta", grad=True)
    values["u"] = torch.empty(2, 8, 64, dtype=torch.bfloat16, device="meta", requires_grad=True)
    y, last = selective_scan(**values, return_last_state=True)
    assert y.shape == (2, 8, 64) and y.dtype == torch.bfloat16 and y.is_meta
    assert last.shape == (2, 8, 16) and last.dtype == torch.float32
    for name, gradient in zip(NAMES, torch.autograd.grad(y.sum(), list(values.values()))):
        assert gradient.shape == values[name].shape and gradient.dtype == values[name].dtype, name


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flops_are_counted_as_the_field_counts_them(device):
    values = inputs(2, 8, 16, 64, 2, 2, dtype=torch.float32, device=device, grad=True)
    forward = 9 * 2 * 64 * 8 * 16
    with FlopCounterMode(display=False) as counter:
        y = selective_scan(**values, delta_softplus=True)
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == 2 * forward


def test_chunks_fill_the_device():
    # A large problem is not cut; a small one into at most sqrt(2 L) chunks, none of them empty.
    assert module.plan(32, 384 * 16, 256, "cpu") == (1, module.SEGMENT)
    assert module.plan(1, 1, 200, "cpu")[0] <= math.isqrt(400)
    for length in range(1, 60):
        chunks, segment = module.plan(1, 16, length, "cuda")
        steps = math.ceil(length / chunks)
        assert steps * (chunks - 1) < length <= steps * chunks and 1 <= segment <= steps


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(u=torch.zeros(2, 4)), r"u: found shape \(2, 4\), expected \(batch, D, L\)"),
        (dict(u=torch.zeros(2, 4, 9, dtype=torch.int64)), "u: found torch.int64, expected .* real floating-point"),
        (dict(u=[1.0]), "u: found list, expected a tensor"),
        (dict(delta=torch.zeros(2, 4, 8)), r"delta: found shape \(2, 4, 8\), expected \(2, 4, 9\)"),
        (dict(A=torch.zeros(3, 3)), r"A: found shape \(3, 3\), expected \(4, 3\)"),
        (dict(A=torch.zeros(4, 3, dtype=torch.complex64)), "A: found torch.complex64, expected .* real"),
        (dict(A=torch.zeros(4)), r"A: found shape \(4,\), expected \(D, N\)"),
        (dict(B=torch.zeros(2, 9, 3)), r"B: found shape \(2, 9, 3\), expected \(4, 3\) or \(2, 3, 9\)"),
        (dict(B=torch.zeros(2, 3, 3, 9)), "B: found 3 groups, expected a divisor of the 4 channels"),
        (dict(C=torch.zeros(2, 2, 3, 8)), r"C: found shape \(2, 2, 3, 8\), expected .*\(2, 2, 3, 9\)"),
        (dict(C=torch.zeros(2, 3, 9, device="meta")), "C: found on meta, expected on cpu"),
        (dict(D=torch.zeros(3)), r"D: found shape \(3,\), expected \(4,\)"),
        (dict(z=torch.zeros(2, 9, 4)), r"z: found shape \(2, 9, 4\), expected \(2, 4, 9\)"),
        (dict(delta_bias=torch.zeros(4, 1)), r"delta_bias: found shape \(4, 1\), expected \(4,\)"),
        (dict(backend="cuda"), "backend: found 'cuda', expected one of auto, torch, mamba-ssm"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_errors_name_the_argument_what_was_found_and_expected(change, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(**{**inputs(2, 4, 3, 9, 2, 2, dtype=torch.float32), **change})


def test_groups_that_do_not_fit_together():
    values = inputs(2, 6, 3, 9, 2, 3, dtype=torch.float32)
    with pytest.raises(ValueError, match="C: found 3 groups, expected a multiple or a divisor of the 2 of B"):
        selective_scan(**values)
