"""The frozen front of a network: where it ends, and that computing it once changes no number."""

import pytest
import torch

import baselines
from pipelines.data.images import Features, open_prepared
from pipelines.training import loaders
from pipelines.training.loaders import batches_of
from pipelines.training.step import seed_everything
from tests import conftest
from tests.test_loop import CPU, numbers, recipe

SMALLCNN_LAYERS = 3 * 1 + 4 * 3 * 2 + 4  # convolution, BatchNorm, ReLU: once, then twice a block; four poolings


def network(**section):
    torch.manual_seed(0)
    settings = {"backbone": "smallcnn", "weights": "random", **section}
    model = baselines.build("method", settings, num_classes=4, image_size=32)
    return model.to(memory_format=torch.channels_last).train()


def fit(folder, model, **changes):
    return conftest.fit(model, open_prepared(folder, 0, CPU), recipe(**changes))


@pytest.mark.parametrize(
    "section, layers",
    [
        ({"family": "full"}, 0),
        ({"family": "head_only"}, SMALLCNN_LAYERS),
        ({"family": "head_only", "batchnorm": "updated"}, 1),  # statistics move behind the first convolution
        ({"family": "colora", "blocks": [1, 5]}, 0),
        ({"family": "colora", "blocks": [3, 5]}, 3 + 1 + 6 + 1),
        ({"family": "bitfit"}, 1),  # the first convolution has no bias, its BatchNorm has
        ({"family": "head_only", "backbone": "smallvit", "head": "linear"}, 1),  # no chain: all or nothing
        ({"family": "lora", "backbone": "smallvit", "head": "linear", "rank": 2, "alpha": 4}, 0),
    ],
    ids=str,
)
def test_the_front_ends_where_something_trains_or_moves(section, layers):
    assert network(**section).frozen_depth() == layers


@pytest.mark.parametrize("layer", [torch.nn.Dropout(0.1), torch.nn.Dropout2d(0.1)])
def test_the_front_ends_where_something_is_random(layer):
    model = network(family="head_only")
    model.backbone.block2.insert(0, layer)
    assert model.frozen_depth() == 4
    assert model.eval().frozen_depth() == SMALLCNN_LAYERS + 1


@pytest.mark.parametrize("count", [1, 4, 11])
def test_front_and_rest_are_the_network(count):
    model = network(family="colora", blocks=[3, 5])
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(model.forward_features(x, count), from_depth=count), model(x))


def seen_by(module):
    """Images that a module is called with from now on, batch by batch."""
    sizes = []
    module.register_forward_hook(lambda _m, inputs, _y: sizes.append(len(inputs[0])))
    return sizes


@pytest.mark.parametrize("augment, times", [("none", (1, 1)), ("flip", (3, 1))])
def test_the_front_sees_each_image_once_unless_augmented(prepared, augment, times):
    model = network(family="head_only")
    sizes = seen_by(model.backbone.block1[0])
    fit(prepared, model, augment=augment)
    splits = open_prepared(prepared, 0, CPU).splits
    assert sum(sizes) == times[0] * len(splits["train"]) + times[1] * len(splits["val"])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("augment", ["none", "flip"])
@pytest.mark.parametrize("section", [{"family": "colora", "blocks": [3, 5]}, {"family": "kan_head"}], ids=str)
def test_the_numbers_are_those_of_the_whole_network(prepared, monkeypatch, section, augment, precision):
    kept = numbers(fit(prepared, network(**section), augment=augment, precision=precision))
    monkeypatch.setattr(loaders, "FEATURES", 0)
    whole = numbers(fit(prepared, network(**section), augment=augment, precision=precision))
    for ours, expected in zip(kept, whole, strict=True):
        assert ours == pytest.approx(expected, rel=1e-4 if precision == "float32" else 3e-2)
    if augment != "none":  # only the validation images go once, in the very same batches
        assert kept == whole


def test_features_come_in_the_order_of_their_images(prepared):
    data = open_prepared(prepared, 0, CPU)
    batches = batches_of(data, "train", recipe(batch_size=19, augment="none"), CPU, training=True)
    assert len(data.splits["train"]) % 19 == 1  # the last batch takes one more

    def front(images):
        return images.mean((1, 2, 3))[:, None]

    features = Features(batches, front, options={"from_depth": 1}, batch_size=19, limit=2**20)
    ours, expected = (source.shuffled(seed_everything(3)) for source in (features, batches))
    pairs = list(zip(ours, expected, strict=True))
    assert len(pairs) == len(features) == len(batches) == 5
    for (maps, labels), (images, own_labels) in pairs:
        assert torch.equal(maps, front(images)) and torch.equal(labels, own_labels)


def test_what_works_in_place_on_features_leaves_them_as_they_are(prepared):
    batches = batches_of(open_prepared(prepared, 0, CPU), "train", recipe(), CPU)
    features = Features(batches, lambda images: images[:, :, 0, 0], options={}, batch_size=8, limit=2**20)
    before = features.maps.clone()
    for maps, _ in [*features.in_order(), *features.shuffled(seed_everything(0))]:
        maps.zero_()
    assert torch.equal(features.maps, before)


def test_features_that_take_too_much_are_not_kept(prepared):
    batches = batches_of(open_prepared(prepared, 0, CPU), "train", recipe(), CPU)
    with pytest.raises(MemoryError, match="features of 96 images take more than 383 bytes"):
        Features(batches, lambda images: images[:, 0, 0, :1].clone(), options={}, batch_size=8, limit=96 * 4 - 1)
