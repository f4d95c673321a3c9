"""`kan: efficient-kan`: the package's layers where it is installed, and the same function and keys as ours."""

import sys

import pytest
import torch

import baselines
from baselines.layers.kan import KAN, KANLinear, kan_layers

FAMILIES = {
    "kan_head": {"family": "kan_head", "backbone": "smallcnn", "weights": "random", "hidden": 8},
    "medkan": {"family": "medkan", "widths": [8, 16], "depths": [1, 1]},
}


def build(name, **options):
    torch.manual_seed(0)
    return baselines.build("a", {**FAMILIES[name], **options}, num_classes=4, image_size=32)


@pytest.fixture
def package():
    reason = "efficient_kan is not installed (pip install -e '.[kan]')"
    return pytest.importorskip("efficient_kan", reason=reason)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_packages_layers_are_ours_with_the_same_state(name, package):
    ours, theirs = build(name).eval(), build(name, kan="efficient-kan").eval()
    assert any(isinstance(module, package.KANLinear) for module in theirs.modules())
    assert [n for n, m in theirs.named_modules() if isinstance(m, KANLinear)] == []
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(4, 3, 32, 32)
    gradients = []
    for model in (ours, theirs):
        logits = model(x)
        gradients.append(torch.autograd.grad(logits.square().sum(), [p for p in model.parameters() if p.requires_grad]))
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("grid_range", [(-1, 1), (-3, 3)])
def test_basis_and_layer_of_the_package(package, grid_range):
    torch.manual_seed(0)
    theirs = package.KANLinear(5, 3, grid_range=grid_range)
    ours = KANLinear(5, 3, grid_range=grid_range)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = 2 * torch.randn(100, 5)
    torch.testing.assert_close(ours.b_splines(x), theirs.b_splines(x), rtol=0, atol=2e-6)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_without_the_package_the_error_says_how_to_get_it(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "efficient_kan", None)
    words = r"'a': kan: 'efficient-kan' needs the package efficient_kan.*pip install -e '\.\[kan\]'.*'torch'"
    with pytest.raises(baselines.MethodError, match=words):
        build(name, kan="efficient-kan")


def test_ours_is_the_default_and_others_are_named():
    assert kan_layers("torch") == (KANLinear, KAN)
    with pytest.raises(ValueError, match="kan: found 'pykan', expected one of 'torch', 'efficient-kan'"):
        kan_layers("pykan")
