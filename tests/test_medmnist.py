"""MedMNIST's ResNets: the published sizes, the stem for small images, and the recipe of their paper."""

import pytest
import torch
import torchvision

import baselines
from pipelines.profile import compose


def build(image_size=28, **section):
    torch.manual_seed(0)
    return baselines.build("anchor", {"family": "medmnist", **section}, num_classes=4, image_size=image_size)


@pytest.mark.parametrize("depth, millions", [(18, 11.2), (50, 23.5)])
def test_parameters_are_those_published(depth, millions):
    """11.2M and 23.5M in the CoLoRA paper's table 5."""
    assert round(sum(p.numel() for p in build(depth=depth).parameters()) / 1e6, 1) == millions


def test_small_images_keep_their_resolution_in_the_stem():
    """Stride 1 and no pooling: 28 px become 4 at the last stage; at 224 px ImageNet's stem gives 7."""
    for size, last in ((28, 4), (64, 2)):
        model = build(size).eval()
        shapes = []
        model.layer4.register_forward_hook(lambda m, i, out, shapes=shapes: shapes.append(tuple(out.shape)))
        model(torch.zeros(1, 3, size, size))
        assert shapes == [(1, 512, last, last)]


def test_large_images_meet_torchvisions_own_network():
    model = build(64).eval()
    plain = torchvision.models.resnet18(num_classes=4).eval()
    plain.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(x), plain(x))


def test_resized_input_is_the_average_of_what_it_covers():
    """With half the size, antialiasing makes a constant patch its own value and a fine checkerboard grey."""
    model = build(56, input_size=28).eval()
    seen = []
    model.conv1.register_forward_hook(lambda m, i, out: seen.append(i[0]))
    rows, columns = torch.meshgrid(torch.arange(56), torch.arange(56), indexing="ij")
    board = ((rows + columns) % 2).float().expand(1, 3, 56, 56)
    model(torch.cat([torch.full_like(board, 0.3), board]))
    (resized,) = seen
    assert resized.shape == (2, 3, 28, 28)
    torch.testing.assert_close(resized[0], torch.full((3, 28, 28), 0.3))
    torch.testing.assert_close(resized[1, :, 2:-2, 2:-2], torch.full((3, 24, 24), 0.5), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "section, words",
    [
        ({"depth": 34}, "depth: found 34, expected 18 or 50"),
        ({"input_size": 4}, "input_size: found 4, expected at least 8"),
        ({"weights": "imagenet"}, "'anchor': family 'medmnist' trains from scratch, found weights 'imagenet'"),
        ({"dept": 18}, "no option 'dept'.*did you mean 'depth'"),
    ],
)
def test_a_wrong_option_is_named(section, words):
    with pytest.raises(baselines.MethodError, match=words):
        build(**section)


def test_the_paper_profile_trains_them_by_their_own_recipe():
    params = compose("paper")
    train = params.settings("medmnist-resnet18")["train"]
    found = [train[k] for k in ("optimizer", "lr", "epochs", "batch_size", "schedule", "augment", "input", "loss")]
    assert found == ["adam", 1e-3, 100, 128, "step", "none", "half", "cross-entropy"]
    assert params.settings("medmnist-resnet50-28")["input_size"] == 28
