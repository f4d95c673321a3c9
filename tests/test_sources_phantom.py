"""The phantom: reproducible, balanced, image by image independent, and different by class in the way it says."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.data.sources import DataError, phantom
from pipelines.profile.data import Phantom


def make(size=32, **settings):
    return phantom.generate(Phantom(**{"train": 48, "val": 8, "test": 8, **settings}), size)


def test_shapes_splits_and_balanced_classes():
    images, labels, splits = make(size=40, train=10, val=8, test=5)
    assert images.shape == (23, 40, 40) and images.dtype == np.uint8 and labels.dtype == np.int64
    assert {name: indices.tolist() for name, indices in splits.items()} == {
        "train": list(range(10)),
        "val": list(range(10, 18)),
        "test": list(range(18, 23)),
    }
    for indices in splits.values():
        counts = np.bincount(labels[indices], minlength=4)
        assert counts.max() - counts.min() <= 1


def test_same_seed_same_scans_other_seed_or_domain_others():
    first = make()[0]
    np.testing.assert_array_equal(make()[0], first)
    assert (make(seed=1)[0] != first).mean() > 0.5
    assert (make(domain="source")[0] != first).mean() > 0.5


def test_counts_of_a_split_change_no_scan_of_the_others():
    images, _, splits = make(train=12, val=8, test=8)
    more, _, more_splits = make(train=20, val=4, test=16)
    for name, count in (("train", 12), ("val", 4), ("test", 8)):
        np.testing.assert_array_equal(more[more_splits[name][:count]], images[splits[name][:count]])


def test_chunks_leave_no_trace(monkeypatch):
    """Scans are drawn many at a time; one by one they must be the same."""
    together = make(train=8)[0]
    monkeypatch.setattr(phantom, "_chunk", lambda image_size: 1)
    np.testing.assert_array_equal(make(train=8)[0], together)


def test_no_two_scans_are_equal():
    images, _, _ = make(train=200)
    assert len({image.tobytes() for image in images}) == len(images)


@pytest.mark.parametrize("domain", ["source", "target"])
def test_a_scan_is_a_bright_retina_under_a_dark_vitreous(domain):
    images, _, _ = make(size=64, domain=domain)
    depth = images.mean(axis=(0, 2))
    assert depth[:5].mean() < 0.5 * depth[28:48].mean()
    assert images.max() > 200


def under_every_label(count):
    """The same random streams drawn as each class: (4, count, 64, 64), so that only the lesion differs."""
    scanner = phantom.SCANNERS["target"]
    return np.stack(
        [
            phantom.render(np.full(count, label), [np.random.default_rng(i) for i in range(count)], 64, scanner)
            for label in range(4)
        ]
    ).astype(float)


def test_lesions_change_the_retina_as_the_real_ones_do():
    cnv, dme, drusen, normal = under_every_label(60)

    def surface(scans):
        """Mean depth, in pixels, of the first bright tissue of a column."""
        smooth = (scans[:, :-2] + scans[:, 1:-1] + scans[:, 2:]) / 3
        return (smooth > 50).argmax(1).mean()

    assert surface(normal) - surface(dme) > 1  # swelling and lifting raise the surface,
    assert surface(normal) - surface(cnv) > 1
    assert 0 <= surface(normal) - surface(drusen) < 0.5  # small bumps are taken up below it

    def holes(scans):
        """Share of pixels that are black where the same retina without the lesion has tissue."""
        return ((scans < 25) & (normal > 60)).mean()

    assert holes(dme) > 2 * holes(drusen)


def test_only_the_lesion_depends_on_the_class():
    scans = under_every_label(4)
    for lesion in scans[:3]:
        assert 0.005 < (lesion != scans[3]).mean() < 0.9
        assert (lesion[:, :3] == scans[3, :, :3]).all()  # the vitreous at the very top is touched by none


def test_small_images_are_the_larger_ones_averaged():
    """Small images must show the same scan, without the aliasing that picking every second pixel would bring."""
    small, large = make(size=32, train=40)[0].astype(float), make(size=64, train=40)[0].astype(float)
    blocks = large.reshape(len(large), 32, 2, 32, 2)
    averaged, picked = blocks.mean((2, 4)), blocks[:, :, 0, :, 0]
    assert np.corrcoef(small.ravel(), averaged.ravel())[0, 1] > 0.97
    assert np.corrcoef(small.ravel(), picked.ravel())[0, 1] < 0.95


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_split_too_small_for_the_classes_is_named(split):
    with pytest.raises(DataError, match=rf"data\.phantom\.{split}: 3 images cannot hold 4 classes"):
        make(**{split: 3})


def test_read_hands_over_the_same_scans_with_names_and_origin():
    data = SimpleNamespace(phantom=Phantom(train=8, val=4, test=4, seed=3), image_size=32, fit="crop")
    found = phantom.read(data, [0, 1], lambda shape: np.zeros(shape, np.uint8))
    np.testing.assert_array_equal(found.images, make(train=8, val=4, test=4, seed=3)[0])
    assert found.classes == ["CNV", "DME", "DRUSEN", "NORMAL"] and found.folds is None
    assert "nothing about patients" in found.origin["note"]
