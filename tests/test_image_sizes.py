"""Images of another size than a network was made for: taken where nothing depends on it, else refused by name."""

import pytest
import torch

import baselines
from baselines import medkan, medmamba, vim

TINY = {
    "vim": lambda: vim.network(num_classes=4, image_size=32, patch=8, width=16, depth=1),
    "medkan": lambda: medkan.network(num_classes=4, image_size=32, widths=(8, 16), depths=(1, 1)),
    "vit": lambda: build("smallvit", "linear"),
    "a head that flattens": lambda: build("smallcnn", "paper"),
}


def build(backbone, head, family="full", **section):
    settings = {"family": family, "backbone": backbone, "weights": "random", "head": head, **section}
    return baselines.build("a", settings, num_classes=4, image_size=32)


@pytest.mark.parametrize("network", TINY)
@pytest.mark.parametrize("height, width", [(64, 64), (32, 48), (16, 32)])
def test_a_network_of_one_size_names_what_it_found_and_expected(network, height, width):
    model = TINY[network]().eval()
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 4)
    words = f"found images of {height} x {width} px, expected 32 x 32 px.*image_size"
    with pytest.raises(ValueError, match=words):
        model(torch.randn(2, 3, height, width))


@pytest.mark.parametrize("family", ["full", "kan_head"])
def test_a_pooled_cnn_takes_any_size(family):
    model = build("smallcnn", "linear" if family == "full" else "paper", family).eval()
    assert model(torch.randn(2, 3, 48, 64)).shape == (2, 4)


def test_medmamba_takes_multiples_and_names_them():
    model = medmamba.network(num_classes=4, image_size=32, widths=(16, 32), depths=(1, 1)).eval()
    assert model(torch.randn(2, 3, 16, 24)).shape == (2, 4)
    with pytest.raises(ValueError, match="found images of 32 x 36 px, expected sides that are multiples of 8 px"):
        model(torch.randn(2, 3, 32, 36))


@pytest.mark.parametrize("training", [True, False])
def test_medkan_takes_an_empty_batch(training):
    model = TINY["medkan"]().train(training)
    logits = model(torch.randn(0, 3, 32, 32))
    assert logits.shape == (0, 4)
    logits.sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in model.parameters())
