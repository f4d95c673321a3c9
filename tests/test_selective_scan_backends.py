"""Where the selective scan runs: the choice of the kernel, and both on a GPU where there is one."""

import importlib.util
import sys
import types

import pytest
import torch

import baselines
from baselines.layers.selective_scan import selective_scan
from tests.test_selective_scan import NAMES, inputs, loop, relative

no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


no_mamba = pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("mamba_ssm") is None,
    reason="needs a GPU and the package mamba_ssm",
)


class OnCuda(torch.Tensor):
    """Says that it is on a GPU, which is all that the choice of the kernel asks."""

    is_cuda = True


@pytest.fixture
def fake_kernel(monkeypatch):
    """A stand-in for mamba_ssm that records its arguments. It shows which function is chosen, not that theirs works."""
    calls = []
    fake = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    fake.selective_scan_fn = lambda *arguments: calls.append(arguments) or "theirs"
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    return calls


def test_the_kernel_is_chosen_by_backend_device_and_dtype(fake_kernel):
    values = inputs(2, 4, 3, 9, 1, 2, dtype=torch.float32)
    on_cuda = {**values, "u": values["u"].as_subclass(OnCuda)}

    assert selective_scan(**on_cuda, delta_softplus=True, return_last_state=True, backend="mamba-ssm") == "theirs"
    (arguments,) = fake_kernel
    assert all(arguments[i] is on_cuda[name] for i, name in enumerate(NAMES) if name not in "BC")
    # Their kernel wants one number of groups for both.
    assert arguments[3].shape == arguments[4].shape == (2, 2, 3, 9)
    assert arguments[8:] == (True, True)

    assert selective_scan(**on_cuda) == "theirs"
    ours = [
        values,
        {**on_cuda, "backend": "torch"},
        {**on_cuda, "u": values["u"].double().as_subclass(OnCuda)},
        {**on_cuda, "delta": values["delta"].bfloat16()},
    ]
    for arguments in ours:
        assert isinstance(selective_scan(**arguments), torch.Tensor)
    meta = {name: x.to("meta") for name, x in values.items()}
    assert selective_scan(**meta, backend="mamba-ssm").is_meta  # shapes and FLOPs need no kernel
    with pytest.raises(ValueError, match="backend: 'mamba-ssm' is a CUDA kernel, found u on cpu"):
        selective_scan(**values, backend="mamba-ssm")


def test_their_kernel_is_left_alone_where_torch_is_to_be_deterministic(fake_kernel):
    """It adds up gradients in no fixed order, and torch cannot know."""
    values = inputs(2, 4, 3, 9, 1, 1, dtype=torch.float32)
    values["u"] = values["u"].as_subclass(OnCuda)
    torch.use_deterministic_algorithms(True)
    try:
        assert isinstance(selective_scan(**values), torch.Tensor)
    finally:
        torch.use_deterministic_algorithms(False)
    assert selective_scan(**values) == "theirs"


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    monkeypatch.delitem(sys.modules, "mamba_ssm.ops.selective_scan_interface", raising=False)
    values = inputs(2, 4, 3, 9, 1, 1, dtype=torch.float32)
    assert torch.equal(selective_scan(**{**values, "u": values["u"].as_subclass(OnCuda)}), selective_scan(**values))
    with pytest.raises(ModuleNotFoundError, match="mamba_ssm.*pip install mamba-ssm.*CUDA build"):
        selective_scan(**{**values, "u": values["u"].as_subclass(OnCuda)}, backend="mamba-ssm")
    with pytest.raises(baselines.MethodError, match="'method': scan: .*pip install mamba-ssm"):
        baselines.build("method", {"family": "vim", "scan": "mamba-ssm"}, num_classes=4, image_size=32)


@no_cuda
@pytest.mark.parametrize("chunks", [None, 1, 7])
def test_gpu_equals_the_loop(chunks):
    values = inputs(4, 32, 16, 100, 2, 2, grad=True)
    expected = loop(**values, delta_softplus=True)[0]
    expected_gradients = torch.autograd.grad(expected.square().sum(), list(values.values()))
    for dtype, limit in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        moved = {name: x.detach().to("cuda", dtype).requires_grad_() for name, x in values.items()}
        for mixed in (False, True):
            with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
                y = selective_scan(**moved, delta_softplus=True, backend="torch", _chunks=chunks)
            assert y.dtype == dtype and relative(y.cpu(), expected) < limit
            gradients = torch.autograd.grad(y.square().sum(), list(moved.values()))
            for name, one, other in zip(NAMES, gradients, expected_gradients):
                assert relative(one.cpu(), other) < limit, name


@no_mamba
@pytest.mark.parametrize("dtype, limit", [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("groups", [1, 4])
def test_gpu_equals_the_package(groups, dtype, limit):
    values = inputs(4, 32, 16, 196, groups, groups, dtype=torch.float32, device="cuda")
    values = {name: x.to(dtype) if name in ("u", "delta", "B", "C", "z") else x for name, x in values.items()}
    values = {name: x.detach().requires_grad_() for name, x in values.items()}
    results = []
    for backend in ("torch", "mamba-ssm", "auto"):
        y, last = selective_scan(**values, delta_softplus=True, return_last_state=True, backend=backend)
        results.append([y, last, *torch.autograd.grad(y.float().square().sum(), list(values.values()))])
    for name, ours, theirs, auto in zip(("y", "last", *NAMES), *results):
        assert relative(ours, theirs) < limit, name
        assert relative(auto, theirs) < limit, name
