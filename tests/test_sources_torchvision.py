"""The torchvision source on a small archive in CIFAR-100's own format, with checksums of its own."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from pipelines.data import preparation
from pipelines.data.errors import DataError
from pipelines.data.sources import torchvision
from pipelines.profile import Params
from pipelines.profile.data import Torchvision
from tests import published as made

CLASSES = ["apple", "bear", "cup"]


@pytest.fixture
def published(tmp_path, monkeypatch):
    """CIFAR-100 made a small archive that lies in the cache; gives the cache and the content."""
    cache = tmp_path / "cache"
    content = made.cifar100(monkeypatch, cache, CLASSES, (30, 9))
    return SimpleNamespace(cache=cache, archive=cache / "cifar-100-python.tar.gz", content=content)


def read(cache, size=32, val_share=0.2):
    section = Torchvision(cache=cache, val_share=val_share)
    data = SimpleNamespace(torchvision=section, image_size=size, fit="crop")
    return torchvision.read(data, [0, 1], lambda shape: np.zeros(shape, np.uint8))


def test_images_labels_and_classes_are_those_of_the_archive(published):
    found = read(published.cache)
    stored = [published.content[part]["data"].reshape(-1, 3, 32, 32) for part in ("train", "test")]
    np.testing.assert_array_equal(found.images, np.concatenate(stored).transpose(0, 2, 3, 1))
    assert found.labels.tolist() == [n % 3 for n in range(30)] + [n % 3 for n in range(9)]
    assert found.classes == CLASSES and found.splits["test"].tolist() == list(range(30, 39))


def test_validation_images_are_a_fixed_stratified_share_of_the_training_images(published):
    found, again = read(published.cache), read(published.cache)
    assert sorted([*found.splits["train"], *found.splits["val"]]) == list(range(30))
    assert np.bincount(found.labels[found.splits["val"]]).tolist() == [2, 2, 2]
    assert found.splits["val"].tolist() == again.splits["val"].tolist() == sorted(found.splits["val"])


def test_other_sizes_are_resized(published):
    small = Image.fromarray(published.content["train"]["data"][4].reshape(3, 32, 32).transpose(1, 2, 0))
    expected = np.asarray(small.resize((48, 48), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(read(published.cache, size=48).images[4], expected)


def test_a_damaged_archive_is_never_used(published):
    published.archive.write_bytes(published.archive.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"http://127.0.0.1:9/.*download failed .*place it at .*cifar-100.*tar.gz"):
        read(published.cache)


def test_a_download_with_another_checksum_is_refused(published, shelf, monkeypatch):
    (shelf.folder / published.archive.name).write_bytes(b"another file")
    published.archive.unlink()
    monkeypatch.setattr(datasets.CIFAR100, "url", shelf.url + published.archive.name)
    with pytest.raises(DataError, match=r"cifar-100-python.tar.gz: checksum mismatch: expected MD5 \w{32}; run again"):
        read(published.cache)


def test_files_that_were_changed_after_unpacking_are_unpacked_again(published):
    expected = read(published.cache).images
    (published.cache / "cifar-100-python" / "train").write_bytes(pickle.dumps(made.cifar_batch(30, 3, 7)))
    np.testing.assert_array_equal(read(published.cache).images, expected)


def test_prepared_from_the_archive_to_the_card(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = published.cache
    params = Params(
        profile="tiny", seeds=[0], model={}, train={"epochs": 1, "batch_size": 1, "lr": 1.0},
        data={"source": "torchvision", "image_size": 32, "torchvision": {"cache": str(cache), "val_share": 0.2}},
        method={"full": {"family": "full"}},
    )  # fmt: skip
    manifest = preparation.prepare(params)
    assert (manifest.count, manifest.channels, manifest.folds) == (39, 3, None)
    assert (
        "cache" not in str(manifest.made_from)
        and "| all | val | 2 | 2 | 2 | 6 |" in (tmp_path / "results/tiny/data/card.md").read_text()
    )
