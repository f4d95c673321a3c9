import numpy as np
import pytest
import torch

from pipelines.data.augmentation import augmented
from pipelines.data.errors import DataError
from pipelines.data.images import Batches
from pipelines.data.prepared import open_prepared
from tests.conftest import bright_quadrants, write_prepared

CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batches(folder, split="train", **options):
    options = {"batch_size": 16, "input": "unit", **options}
    return Batches(open_prepared(folder, 0, CPU), split, device=CPU, **options)


def test_images_stay_on_disk_until_asked_for(prepared):
    """What is written to the file after opening is what a batch sees: nothing was read before."""
    data = open_prepared(prepared, 0, CPU)
    stored = np.load(prepared / "images.npy", mmap_mode="r+")
    stored[7] = 200
    stored.flush()
    assert (data.images[7] == 200).all()
    assert data.images.dtype == torch.uint8 and data.images.shape == (160, 32, 32)
    assert data.classes == ["class0", "class1", "class2", "class3"] and data.image_size == 32


@pytest.mark.parametrize(
    "kind, mean, std",
    [
        ("unit", np.zeros(3), np.ones(3)),
        ("raw", np.zeros(3), np.full(3, 1 / 255)),
        ("imagenet", np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])),
    ],
)
def test_grey_images_are_repeated_and_normalised(prepared, kind, mean, std):
    images, labels = next(batches(prepared, "val", input=kind).in_order())
    stored = np.load(prepared / "images.npy")[96:112].astype(np.float64)[:, None] / 255
    expected = (stored - mean.reshape(1, 3, 1, 1)) / std.reshape(1, 3, 1, 1)
    np.testing.assert_allclose(images.numpy(), expected, rtol=1e-5, atol=1e-5)
    assert images.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(labels.numpy(), np.load(prepared / "labels.npy")[96:112])


def test_rgb_images_keep_their_channels(workdir):
    pictures = np.random.default_rng(0).integers(0, 256, (8, 5, 5, 3), dtype=np.uint8)
    write_prepared(workdir / "d", pictures, np.arange(8) % 4, {s: np.arange(8) for s in ("train", "val", "test")})
    images, _ = next(batches(workdir / "d").in_order())
    np.testing.assert_allclose(images.numpy(), pictures.transpose(0, 3, 1, 2) / 255, rtol=1e-6)


def test_an_epoch_shows_every_image_once_in_an_order_the_generator_fixes(prepared):
    source = batches(prepared)
    first = torch.cat([x for x, _ in source.shuffled(generator(3))])
    again = torch.cat([x for x, _ in source.shuffled(generator(3))])
    other = torch.cat([x for x, _ in source.shuffled(generator(4))])
    stored = torch.cat([x for x, _ in source.in_order()])
    assert torch.equal(first, again) and not torch.equal(first, other)
    key = lambda images: sorted(images.sum((1, 2, 3)).tolist())  # noqa: E731
    assert key(first) == pytest.approx(key(stored))


def test_a_last_batch_of_one_joins_the_one_before(prepared):
    sizes = [len(labels) for _, labels in batches(prepared, batch_size=19).shuffled(generator())]
    assert sizes == [19, 19, 19, 19, 20]


@pytest.mark.parametrize("size", [1, 2, 19, 32, 95, 96, 97])
def test_the_length_is_the_number_of_shuffled_batches(prepared, size):
    """The schedule of the learning rate is planned by it."""
    source = batches(prepared, batch_size=size)
    assert len(source) == sum(1 for _ in source.shuffled(generator()))


def test_each_seed_reads_its_own_splits(workdir):
    images, labels = bright_quadrants(12)
    splits = {f"{s}/{name}": np.array([s, s + 4]) for s in (0, 1) for name in ("train", "val", "test")}
    write_prepared(workdir / "d", images, labels, splits)
    assert open_prepared(workdir / "d", 1, CPU).splits["train"].tolist() == [1, 5]
    with pytest.raises(DataError, match="no split '7/train'.*add seed 7"):
        open_prepared(workdir / "d", 7, CPU)


def test_missing_data_says_what_to_run(workdir):
    with pytest.raises(DataError, match="pipelines.prepare"):
        open_prepared(workdir / "nothing", 0, CPU)


def test_the_authors_augmentation_always_flips_and_shifts_brightness_a_little():
    images = torch.rand(64, 1, 8, 8)
    shift = augmented(images, "authors", generator()) - images.flip(-1)
    per_image = shift.flatten(1)
    assert (per_image.amax(1) - per_image.amin(1)).max() < 1e-6  # one shift for a whole image
    assert 0 < per_image.abs().max() <= 0.1 / 255 + 1e-6


def test_flip_mirrors_about_half_of_the_images_and_nothing_else():
    images = torch.rand(400, 1, 4, 4)
    out = augmented(images, "flip", generator())
    same = (out == images).flatten(1).all(1)
    mirrored = (out == images.flip(-1)).flatten(1).all(1)
    assert (same | mirrored).all() and not (same & mirrored).any()
    assert 150 < same.sum() < 250  # binomial(400, 1/2): five standard deviations


def test_standard_moves_an_image_by_no_more_than_it_says():
    """A centred bright dot on 101 px moves at most 5 % of the size each way, plus a pixel of interpolation."""
    images = torch.zeros(200, 1, 101, 101)
    images[:, :, 49:52, 49:52] = 1
    out = augmented(images, "standard", generator())
    assert out.shape == images.shape and out.min() >= 0 and out.max() <= 1
    peak = out.flatten(1).argmax(1)
    rows, columns = peak // 101 - 50, peak % 101 - 50
    assert 3 < rows.abs().max() <= 7 and 3 < columns.abs().max() <= 7


def test_standard_flips_half_of_the_images():
    images = torch.zeros(400, 1, 32, 32)
    images[..., 16:] = 1
    left_is_dark = augmented(images, "standard", generator())[..., :12].mean((1, 2, 3)) < 0.5
    assert 150 < left_is_dark.sum() < 250


def test_augmentation_none_and_unknown():
    images = torch.rand(2, 1, 4, 4)
    assert augmented(images, "none", generator()) is images
    with pytest.raises(ValueError, match="augment: found 'mixup'"):
        augmented(images, "mixup", generator())
