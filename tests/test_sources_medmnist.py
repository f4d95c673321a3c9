"""The MedMNIST source on small archives made here; the download is tried against a server on this machine."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.data import preparation as stage
from pipelines.data.sources import DataError, medmnist
from pipelines.profile import Params
from pipelines.profile.data import MedMNIST
from tests import published as made

CLASSES = 4


def arrays(size=28, channels=1, counts=(12, 8, 4), seed=0, column=True):
    rng = np.random.default_rng(seed)
    content = {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        shape = (count, size, size) + ((3,) if channels == 3 else ())
        content[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        labels = (np.arange(count) % CLASSES).astype(np.uint8)
        content[f"{split}_labels"] = labels[:, None] if column else labels
    return content


def saved(path, content, save=np.savez_compressed):
    save(path, **content)
    return path


def read(path, size=28, channels=1):
    return medmnist.read_archive(path, size, channels, lambda shape: np.zeros(shape, np.uint8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("column", [True, False], ids=["labels (N, 1)", "labels (N,)"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_reads(tmp_path, channels, column, save):
    content = arrays(channels=channels, column=column)
    images, labels, splits = read(saved(tmp_path / "set.npz", content, save), channels=channels)
    assert images.shape[1:] == ((28, 28) if channels == 1 else (28, 28, 3)) and labels.dtype == np.int64
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(images[splits[split]], content[f"{split}_images"])
        np.testing.assert_array_equal(labels[splits[split]], content[f"{split}_labels"].ravel())


def changed(**changes):
    return {**arrays(), **changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(train_images=np.zeros((12, 64, 64), np.uint8)), r"train_images: found \(\(12, 64, 64\).*expected"),
        (changed(train_images=np.zeros((12, 28, 28, 3), np.uint8)), r"found \(\(12, 28, 28, 3\).*expected"),
        (changed(train_images=np.zeros((12, 28, 28))), "train_images: found .*float64"),
        (changed(test_images=np.zeros((5, 28, 28), np.uint8)), r"test_images: found \(\(5, 28, 28\)"),
        (changed(train_images=np.asfortranarray(arrays()["train_images"])), r"found \(\(12, 28, 28\), True"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unfit_content_is_named(tmp_path, content, message):
    path = saved(tmp_path / "set.npz", content)
    with pytest.raises(DataError, match=f"set.npz: .*{message}"):
        read(path)


def section(cache, dataset="octmnist", size=28):
    return SimpleNamespace(medmnist=MedMNIST(dataset=dataset, cache=cache), image_size=size, fit="crop")


def read_source(data):
    return medmnist.read(data, [0], lambda shape: np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("dataset", "size", "message"),
    [
        ("octmnst", 28, r"data\.medmnist\.dataset: no 2-D set 'octmnst' \(did you mean 'octmnist'"),
        ("organmnist3d", 28, "no 2-D set 'organmnist3d'"),
        ("chestmnist", 28, "chestmnist is a multi-label, binary-class task"),
        ("octmnist", 32, r"data\.image_size: 32, but MedMNIST has 28, 64, 128, 224"),
    ],
)
def test_set_or_size_that_is_not_there(tmp_path, dataset, size, message):
    with pytest.raises(DataError, match=message):
        read_source(section(tmp_path, dataset, size))


def test_every_single_label_set_and_size_is_described():
    names = ["path", "derma", "oct", "pneumonia", "retina", "breast", "blood", "tissue", "organa", "organc", "organs"]
    for name in names:
        for size in (28, 64, 128, 224):
            info = medmnist.describe(f"{name}mnist", size)
            assert len(info["md5"]) == 32 and info["n_channels"] in (1, 3)
            assert (f"mnist_{size}.npz" in info["url"]) == (size != 28)
    oct_classes = medmnist.describe("octmnist", 28)["label"]
    assert [text.split()[0] for text in oct_classes.values()] == ["choroidal", "diabetic", "drusen", "normal"]


@pytest.fixture
def published(tmp_path, monkeypatch, shelf):
    """Make octmnist at 64 px a small archive on a local server; gives the file there, the cache and the entry."""
    import medmnist as package

    file = saved(shelf.folder / "octmnist_64.npz", arrays(size=64))
    entry = {
        **package.INFO["octmnist"],
        "url_64": f"{shelf.url}octmnist_64.npz",
        "MD5_64": hashlib.md5(file.read_bytes()).hexdigest(),
    }
    monkeypatch.setitem(package.INFO, "octmnist", entry)
    return SimpleNamespace(file=file, cache=tmp_path / "cache", entry=entry)


@pytest.mark.parametrize("dataset", ["retinamnist", "pathmnist", "bloodmnist"])
@pytest.mark.parametrize("size", [28, 64, 128, 224])
def test_coloured_sets_at_every_size_come_from_the_archive_of_that_size(tmp_path, monkeypatch, dataset, size):
    """A small archive in the cache under the published name stands for the published one."""
    content = made.medmnist(monkeypatch, tmp_path, dataset, size)
    found = read_source(section(tmp_path, dataset, size))
    assert found.preprocessing.channels == 3 and len(found.classes) == len(content["test_labels"])
    np.testing.assert_array_equal(found.images[found.splits["test"]], content["test_images"])


def test_downloads_once_then_uses_the_cache(published):
    first = read_source(section(published.cache, size=64))
    np.testing.assert_array_equal(first.images[first.splits["test"]], arrays(size=64)["test_images"])
    assert first.classes[3] == "normal" and first.origin["licence"] == "CC BY 4.0"
    assert [path.name for path in published.cache.iterdir()] == ["octmnist_64.npz"]
    published.file.unlink()
    np.testing.assert_array_equal(read_source(section(published.cache, size=64)).images, first.images)


def test_file_in_the_cache_that_fails_its_checksum_is_never_used(published):
    published.cache.mkdir()
    saved(published.cache / "octmnist_64.npz", arrays(size=64, seed=1))
    found = read_source(section(published.cache, size=64))
    np.testing.assert_array_equal(found.images[found.splits["test"]], arrays(size=64)["test_images"])


def test_download_that_fails_its_checksum_leaves_nothing(published):
    published.entry["MD5_64"] = "0" * 32
    with pytest.raises(DataError, match="octmnist_64.npz: checksum mismatch: expected MD5 0000.*run again"):
        read_source(section(published.cache, size=64))
    assert list(published.cache.iterdir()) == []


def test_no_network_names_the_url_and_where_to_place_the_file(published):
    # Port 9 (discard) of this machine answers nothing, as an absent network does.
    published.entry["url_64"] = "http://127.0.0.1:9/octmnist_64.npz"
    with pytest.raises(DataError, match=r"http://127.0.0.1:9/.*download failed .*place it at .*octmnist_64.npz"):
        read_source(section(published.cache, size=64))
    assert list(published.cache.iterdir()) == []


def test_a_damaged_file_that_cannot_be_fetched_again_is_told(published):
    published.entry["url_64"] = "http://127.0.0.1:9/octmnist_64.npz"
    published.cache.mkdir()
    (published.cache / "octmnist_64.npz").write_bytes(b"cut short")
    message = f"download failed .*the file at .*octmnist_64.npz has another MD5 than {published.entry['MD5_64']}"
    with pytest.raises(DataError, match=message):
        read_source(section(published.cache, size=64))


def test_interrupted_download_stays_an_interrupt(published, monkeypatch):
    import torchvision.datasets.utils

    def interrupted(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_source(section(published.cache, size=64))
    assert not published.cache.exists()


def test_cache_that_cannot_be_written_is_named(published):
    published.cache.write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"data\.medmnist\.cache: .*cannot be written"):
        read_source(section(published.cache, size=64))


def test_prepare_writes_the_set_and_names_an_empty_class(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = Params(
        profile="tiny",
        seeds=[0],
        data={
            "source": "medmnist",
            "image_size": 64,
            "medmnist": {"cache": str(published.cache)},
            "mode": "balanced",
            "balanced": {"per_class": 2},
        },
        model={},
        train={"epochs": 1, "batch_size": 1, "lr": 1.0},
        method={"full": {}},
    )
    manifest = stage.prepare(params)
    assert manifest.count == 24 and "cache" not in str(manifest.made_from["settings"])
    with np.load("data/tiny/splits.npz", allow_pickle=False) as splits:
        assert len(splits["train"]) == 8 and len(splits["val"]) == 8

    spoiled = {**arrays(size=64), "val_labels": np.zeros((8, 1), np.uint8)}
    saved(published.cache / "octmnist_64.npz", spoiled)
    published.entry["MD5_64"] = hashlib.md5((published.cache / "octmnist_64.npz").read_bytes()).hexdigest()
    (tmp_path / "data" / "tiny" / "manifest.json").unlink()
    with pytest.raises(DataError, match="split 'val' has no image of class diabetic"):
        stage.prepare(params)
