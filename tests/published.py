"""Small archives in the formats of MedMNIST and CIFAR-100, put where the published ones would lie."""

import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np

SPLITS = ("train", "val", "test")


def medmnist(monkeypatch, cache: Path, dataset: str, size: int, each: tuple[int, int, int] = (1, 1, 1)) -> dict:
    """Make `dataset` at `size` px an archive of noise with `each` images a class in train, val and test; its arrays."""
    import medmnist as package

    info, flag = package.INFO[dataset], "" if size == 28 else f"_{size}"
    classes, shape = len(info["label"]), (size, size) + ((3,) if info["n_channels"] == 3 else ())
    rng, content = np.random.default_rng(size), {}
    for split, count in zip(SPLITS, each, strict=True):
        labels = np.tile(np.arange(classes, dtype=np.uint8), count)
        content[f"{split}_images"] = rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
        content[f"{split}_labels"] = labels[:, None]
    cache.mkdir(exist_ok=True)
    file = cache / f"{dataset}{flag}.npz"
    np.savez(file, **content)
    digest = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setitem(package.INFO, dataset, {**info, f"MD5{flag}": digest})
    return content


def cifar100(monkeypatch, cache: Path, classes: list[str], counts: tuple[int, int]) -> dict:
    """Make CIFAR-100 an archive of noise with so many training and test images; the content of its files."""
    from torchvision.datasets import CIFAR100

    content: dict = {"meta": {"fine_label_names": classes}}
    for seed, (name, count) in enumerate(zip(("train", "test"), counts, strict=True)):
        content[name] = cifar_batch(count, len(classes), seed)
    cache.mkdir(exist_ok=True)
    sums, archive = {}, cache / "cifar-100-python.tar.gz"
    folder = cache / "made"
    folder.mkdir()
    for name, part in content.items():
        body = pickle.dumps(part)
        (folder / name).write_bytes(body)
        sums[name] = hashlib.md5(body).hexdigest()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "cifar-100-python")
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": sums["meta"]})
    monkeypatch.setattr(CIFAR100, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    # Port 9 (discard) of this machine answers nothing, as an absent network does.
    monkeypatch.setattr(CIFAR100, "url", "http://127.0.0.1:9/cifar-100-python.tar.gz")
    return content


def cifar_batch(count: int, classes: int, seed: int) -> dict:
    """As CIFAR's files: a row an image, its red plane, then the green and the blue one."""
    rng = np.random.default_rng(seed)
    labels = [n % classes for n in range(count)]
    return {"data": rng.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8), "fine_labels": labels}
