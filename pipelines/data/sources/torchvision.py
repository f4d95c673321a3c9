"""CIFAR-10 and CIFAR-100 as torchvision publishes them, with its download and checksums."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from pipelines.data.preprocessing import Preprocessing
from pipelines.data.sources import Allocate, Dataset, downloading


def read(data, seeds: Sequence[int], allocate: Allocate) -> Dataset:
    """The set `data.torchvision.dataset`, resized bicubically to `data.image_size`; the same for all `seeds`.

    Its own test images are the test split. It has no validation images: `val_share` of its training images are drawn
    for them, class by class and always the same ones. Downloads into `data.torchvision.cache` what is not there yet.

    Raises:
        DataError: the download fails, or what was downloaded fails its checksum.
    """
    from sklearn.model_selection import StratifiedShuffleSplit
    from torchvision import datasets

    section = data.torchvision
    kind, cache = getattr(datasets, section.dataset), section.cache.expanduser()
    with downloading(kind.url, cache / kind.filename, kind.tgz_md5, "data.torchvision.cache"):
        # torchvision compares every file with its MD5.
        parts = [kind(str(cache), train=train, download=True) for train in (True, False)]
    labels = np.concatenate([np.array(part.targets, np.int64) for part in parts])
    count, size = len(parts[0].targets), data.image_size
    images = allocate((len(labels), size, size, 3))
    for position, pixels in enumerate(image for part in parts for image in part.data):
        images[position] = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    drawn = StratifiedShuffleSplit(1, test_size=section.val_share, random_state=0).split(labels[:count], labels[:count])
    train, val = next(drawn)
    splits = {"train": np.sort(train), "val": np.sort(val), "test": np.arange(count, len(labels))}
    origin = {
        "source": f"{section.dataset} (Krizhevsky, 2009; {parts[0].url})",
        "licence": "not stated by its authors",
        "note": "Small colour photographs, 32 x 32 pixels.",
        "preparation": f"resized bicubically; validation is {section.val_share:g} of the published training images",
        "md5": parts[0].tgz_md5,
    }
    preprocessing = Preprocessing(size=size, fit=data.fit, channels=3)
    return Dataset(images, labels, list(parts[0].classes), splits, preprocessing, origin=origin)
