"""Grad-CAM against closed forms, finite differences, and a toy problem in which it is known where to look."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import baselines
from pipelines.profile import Params
from pipelines.training.gradcam import gradcam, last_map
from tests.conftest import FAMILIES, bright_quadrants, tiny_params

SIZE = 32
MORE = {"vim-mean": {**FAMILIES["vim"], "pool": "mean"}, "linear": {"family": "full", "head": "linear"}}
SMALL = {"medmamba": (4, 4), "medkan": (4, 4), "vim": (8, 8), "vim-mean": (8, 8), "vit": (8, 8), "lora": (8, 8)}


def build(name, dtype=torch.float64):
    """A network of the family with random weights, its BatchNorm statistics those of some images."""
    params = Params(**tiny_params(method={**FAMILIES, **MORE}))
    torch.manual_seed(3)
    model = baselines.build(name, params.settings(name), num_classes=4, image_size=SIZE).to(dtype)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
            module.momentum = None  # the average of all that was seen
    with torch.no_grad():
        model(images(32, dtype))
    return model.eval()


def images(count, dtype=torch.float64):
    shown = torch.from_numpy(bright_quadrants(count, SIZE)[0]).to(dtype) / 255
    return shown[:, None].repeat(1, 3, 1, 1)


def scaled(cam):
    peak = cam.amax((1, 2), keepdim=True)
    return cam / torch.where(peak > 0, peak, 1)


def test_with_pooling_and_one_linear_layer_it_is_the_class_activation_map():
    """Zhou et al. 2016, equation 2: with a pooled linear head the weights of the named class are those of the maps."""
    model, x = build("linear"), images(6)
    with torch.no_grad():
        maps, named = model.backbone(x), model(x).argmax(1)
        linear = model.head[-1]
        cam = torch.einsum("bc,bchw->bhw", linear.weight[named], maps).relu()
    torch.testing.assert_close(gradcam(model, x).double(), scaled(cam), atol=1e-6, rtol=1e-5)
    assert cam.amax((1, 2)).count_nonzero() >= 3


LAYOUTS = {  # what a layer that puts out no (B, C, h, w) puts out, with its positions flat, and which are the map's
    "medmamba": slice(None),
    "vim-mean": slice(None),
    "vim": [place for place in range(65) if place != 32],  # the token is in the middle
    "vit": slice(1, None),  # and here at the start
    "lora": slice(1, None),
}


@pytest.mark.parametrize("name", [*FAMILIES, *MORE])
def test_equations_1_and_2_by_finite_differences(name):
    """Raising channel k by e at all positions moves the logit by e Z alpha_k: no derivative of torch's is used."""
    model, x = build(name), images(1)
    layer, _ = last_map(model)
    step = 1e-5
    kept = {}

    def with_raised_channels(sign):
        """A hook that makes one image's map a batch of as many as it has channels, one of them raised in each."""

        def change(_module, _inputs, output):
            flat = output.flatten(1, -2) if name in LAYOUTS else output.flatten(2).transpose(1, 2)  # (1, Z, C)
            where = LAYOUTS.get(name, slice(None))
            kept["map"] = flat[0, where]
            raised = flat.repeat(flat.shape[2], 1, 1)
            raised[:, where] += sign * step * torch.eye(flat.shape[2], dtype=flat.dtype)[:, None]
            return (raised if name in LAYOUTS else raised.transpose(1, 2)).reshape(-1, *output.shape[1:])

        return change

    with torch.no_grad():
        named = model(x).argmax()
        logits = []
        for sign in (1, -1):
            with layer.register_forward_hook(with_raised_channels(sign)):
                logits.append(model(x)[:, named])
        alpha = (logits[0] - logits[1]) / (2 * step * len(kept["map"]))
        cam = (kept["map"] @ alpha).relu().view(1, *SMALL.get(name, (2, 2)))
    torch.testing.assert_close(gradcam(model, x).double(), scaled(cam), atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("name", [*FAMILIES, "vim-mean"])
def test_every_family(name):
    model = build(name, torch.float32)
    before = copy.deepcopy(model.state_dict())
    trains = [p.requires_grad for p in model.parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    x = images(8, torch.float32)
    with torch.inference_mode():
        expected = model(x)  # what an evaluation leaves behind must not be in the way
    found = gradcam(model, x)
    assert found.shape == (8, *SMALL.get(name, (2, 2)))
    assert found.isfinite().all() and found.min() >= 0 and not found.requires_grad
    assert set(found.amax((1, 2)).tolist()) <= {0.0, 1.0}
    assert found.amax((1, 2)).sum() >= 4, "a frozen backbone has maps too"
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == trains
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks
    torch.testing.assert_close(model(x).detach(), expected)
    torch.testing.assert_close(gradcam(model, x[3:4]), found[3:4], atol=1e-3, rtol=1e-3)  # images are on their own


class Pooled(nn.Module):
    """Logits are the pooled channels."""

    def __init__(self, fails=False):
        super().__init__()
        self.first, self.layer4, self.fails = nn.Conv2d(3, 3, 1), nn.Identity(), fails
        self.saw = []

    def last_map(self):
        return self.layer4, lambda x: x

    def forward(self, x):
        x = self.layer4(self.first(x))
        self.saw.append((x.grad_fn is None, torch.is_grad_enabled()))
        if self.fails:
            raise RuntimeError("no")
        return x.mean((2, 3))


def exact(model):
    nn.init.dirac_(model.first.weight)
    nn.init.zeros_(model.first.bias)
    return model


def test_of_two_level_classes_the_first_is_explained_as_it_is_named():
    x = torch.zeros(1, 3, 2, 2)
    x[0, 0, 0, 0] = x[0, 1, 1, 1] = 1
    found = gradcam(exact(Pooled()), x)
    assert found.tolist() == [[[1, 0], [0, 0]]]


def test_no_graph_of_the_body_is_kept():
    model = exact(Pooled())
    seen = []
    model.first.register_forward_hook(lambda _m, _i, out: seen.append(out.requires_grad))
    gradcam(model, torch.rand(2, 3, 4, 4))
    assert seen == [False]


@pytest.mark.parametrize("enabled", [True, False])
def test_gradient_mode_and_hooks_are_put_back_whatever_happens(enabled):
    with torch.set_grad_enabled(enabled):
        gradcam(exact(Pooled()), torch.rand(2, 3, 4, 4))
        assert torch.is_grad_enabled() == enabled
        broken = exact(Pooled(fails=True))
        with pytest.raises(RuntimeError, match="no"):
            gradcam(broken, torch.rand(2, 3, 4, 4))
        assert torch.is_grad_enabled() == enabled and not broken.layer4._forward_hooks


def test_nothing_speaks_for_the_class():
    assert gradcam(exact(Pooled()), torch.zeros(1, 3, 2, 2)).tolist() == [[[0, 0], [0, 0]]]


def test_an_unknown_network_is_named():
    with pytest.raises(ValueError, match="Linear has no method last_map"):
        gradcam(nn.Linear(3, 2), torch.rand(1, 3))


def test_a_trained_network_looks_at_the_stripe():
    """The classes differ in the half of the image that holds the stripe, and in its shade."""
    torch.manual_seed(0)
    shown, labels = bright_quadrants(192, 16)
    x = torch.from_numpy(shown)[:, None].repeat(1, 3, 1, 1) / 255 - 0.4
    y = torch.from_numpy(labels)
    model = nn.Sequential()
    model.last_map = lambda: (model.layer4, lambda x: x)
    for number, (into, out) in enumerate(((3, 16), (16, 24)), start=3):
        stage = nn.Sequential(nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2))
        model.add_module(f"layer{number}", stage)
    model.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(24 * 16, 4)))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(12):
        for part in torch.randperm(128).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
    held_out, truth = x[128:], y[128:]
    found = gradcam(model, held_out).numpy()
    with torch.no_grad():
        right = (model(held_out).argmax(1) == truth).numpy()
    assert right.mean() > 0.9
    # The stripe of four rows is row 1 or 2 of the four: a quarter of the map.
    rows = np.where(truth.numpy() % 2, 1, 2)
    share = found[np.arange(len(found)), rows].sum(1) / found.sum((1, 2))
    assert share[right].mean() > 0.5, share[right].mean()
