"""Prepared images as batches on the device: gather, augment, normalise.

Images stay uint8 until they are in a batch: memory-mapped on a CPU, on the GPU as a whole when they fit there.
All random numbers come from one CPU generator a epoch, so a run gives the same batches on every device.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

# Of ImageNet's training images, RGB in 0..1; the constants torchvision and timm use.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Prepared:
    """A prepared data set: `images` uint8 (N, H, W) or (N, H, W, 3), `labels` int64 (N,), indices of the splits."""

    images: torch.Tensor
    labels: torch.Tensor
    splits: dict[str, np.ndarray]
    classes: list[str]

    @property
    def image_size(self) -> int:
        return self.images.shape[1]


def open_prepared(folder: Path, seed: int, device: torch.device, train_split: str = "train") -> Prepared:
    """Open what `pipelines.prepare` wrote, with the splits of one seed: val, test, and the one to train on.

    Raises:
        FileNotFoundError: not prepared yet, or the seed has no such splits there; says what to run.
    """
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise FileNotFoundError(f"{manifest}: no prepared data; run `python -m pipelines.prepare` first")
    classes = json.loads(manifest.read_text())["classes"]
    # Mode "c" maps the file without reading it; copy-on-write keeps torch from warning about read-only memory.
    images = torch.from_numpy(np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False))
    labels = torch.from_numpy(np.load(folder / "labels.npy", allow_pickle=False))
    with np.load(folder / "splits.npz", allow_pickle=False) as stored:
        prefix = "" if "train" in stored else f"{seed}/"
        missing = [name for name in (train_split, "val", "test") if prefix + name not in stored]
        if missing:
            raise FileNotFoundError(
                f"{folder}/splits.npz: no split {prefix + missing[0]!r}; add seed {seed} to `seeds`, or a share of the "
                "training patients to `data.shares`, and run prepare again"
            )
        splits = {name: stored[prefix + name] for name in (train_split, "val", "test")}
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if images.nbytes < free / 2:
            images, labels = images.to(device), labels.to(device)
    return Prepared(images, labels, splits, classes)


class Batches:
    """Batches of one split: (images float32 (B, 3, H, W) channels-last on the device, labels int64 (B,)).

    `options` is what a network is called with beside them.
    """

    options: dict = {}

    def __init__(
        self, data: Prepared, split: str, *, batch_size: int, input: str, device: torch.device, augment: str = "none"
    ):
        self.data, self.split, self.device, self.augment = data, split, device, augment
        self.indices = torch.from_numpy(data.splits[split])
        self.batch_size = batch_size
        mean, std = {
            "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
            "unit": ((0.0,) * 3, (1.0,) * 3),
            "half": ((0.5,) * 3, (0.5,) * 3),
            "raw": ((0.0,) * 3, (1 / 255,) * 3),
        }[input]
        shape = (1, 3, 1, 1)
        self.mean = torch.tensor(mean, device=device).view(shape)
        self.scale = (1 / torch.tensor(std, device=device)).view(shape)

    def __len__(self) -> int:
        """Batches of `shuffled`."""
        return len(_chunks(torch.arange(len(self.indices)), self.batch_size))

    def in_order(self, change=lambda images: images):
        """Every image once, in the order of the split, unaugmented; `change` may alter images (B, C, H, W) in 0..1."""
        for chunk in self.indices.split(self.batch_size):
            images, labels = self._gather(chunk)
            yield self._normalise(change(images)), labels

    def shuffled(self, generator: torch.Generator):
        """Every image once, in an order and with an augmentation drawn from `generator` (a CPU generator)."""
        for chunk in _chunks(torch.randperm(len(self.indices), generator=generator), self.batch_size):
            images, labels = self._gather(self.indices[chunk])
            yield self._normalise(augmented(images, self.augment, generator)), labels

    def _gather(self, chunk):
        home = self.data.images.device
        chunk = moved(chunk, home)
        images, labels = (moved(t[chunk], self.device) for t in (self.data.images, self.data.labels))
        images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)
        return images.float().div_(255), labels

    def _normalise(self, images):
        # (B, 1, H, W) - (1, 3, 1, 1) repeats a grey image over the three channels.
        return ((images - self.mean) * self.scale).contiguous(memory_format=torch.channels_last)


class Features:
    """As `Batches`, in the same order and of the same size, but of what `front` made of the unaugmented images, once.

    Args:
        front: a batch of images to its maps (B, C, H, W) or vectors (B, C); called with the batches of `batches`.
        options: what the network is then called with, so that it goes on behind the front.
        batch_size: of `shuffled` and `in_order`, where `batches` has that of evaluation.
        limit: bytes that all features may take.

    Raises:
        MemoryError: they would take more.
    """

    def __init__(self, batches: Batches, front: Callable, *, options: dict, batch_size: int, limit: int):
        self.options, self.batch_size, self.device = options, batch_size, batches.device
        count, done, labels = len(batches.indices), 0, []
        for images, own_labels in batches.in_order():
            maps = front(images)
            if not done:
                if maps.nbytes // len(maps) * count > limit:
                    raise MemoryError(f"features of {count} images take more than {limit} bytes")
                layout = torch.channels_last if maps.dim() == 4 else torch.contiguous_format
                self.maps = maps.new_empty((count, *maps.shape[1:])).contiguous(memory_format=layout)
            self.maps[done : done + len(maps)] = maps
            labels.append(own_labels)
            done += len(maps)
        self.labels = torch.cat(labels)

    def __len__(self) -> int:
        return len(_chunks(torch.arange(len(self.labels)), self.batch_size))

    def in_order(self):
        for maps, labels in zip(self.maps.split(self.batch_size), self.labels.split(self.batch_size), strict=True):
            yield maps.clone(), labels  # a network may work in place

    def shuffled(self, generator: torch.Generator):
        for chunk in _chunks(torch.randperm(len(self.labels), generator=generator), self.batch_size):
            chunk = moved(chunk, self.device)
            yield self.maps[chunk], self.labels[chunk]


def _chunks(order: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """An order in pieces; a last one of one image would break BatchNorm, so it joins the one before."""
    chunks = list(order.split(batch_size))
    if len(chunks) > 1 and len(chunks[-1]) == 1:
        chunks[-2:] = [torch.cat(chunks[-2:])]
    return chunks


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device; from the CPU to a GPU through pinned memory, so that nothing waits for the copy."""
    if tensor.device.type == device.type:
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def augmented(images: torch.Tensor, kind: str, generator: torch.Generator) -> torch.Tensor:
    """Augment images (B, C, H, W) in 0..1; draws per image from a CPU generator.

    "authors": brightness shifted by up to 0.1 on the 0..255 scale and a left-right flip of every image, as the
    authors' cleaned script has it. "flip": each image flipped with probability 1/2. "standard": flip, then
    rotation up to 5 degrees, shifts up to 5 % of the size, zoom up to 5 %, brightness and contrast up to 10 %.
    """
    if kind == "none":
        return images

    def uniform(low, high):
        return moved(low + (high - low) * torch.rand(len(images), generator=generator), images.device)

    if kind == "authors":
        return images.flip(-1) + uniform(-0.1 / 255, 0.1 / 255).view(-1, 1, 1, 1)
    mirror = uniform(0, 1) < 0.5
    if kind == "flip":
        return torch.where(mirror.view(-1, 1, 1, 1), images.flip(-1), images)
    if kind != "standard":
        raise ValueError(f"augment: found {kind!r}, expected 'none', 'authors', 'flip' or 'standard'")
    angle, zoom = uniform(-5, 5).deg2rad(), uniform(0.95, 1.05)
    sign = torch.where(mirror, -1.0, 1.0)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    # In the grid's units the image is 2 wide, so 5 % of it is 0.1.
    affine = torch.stack([cos * sign, -sin, uniform(-0.1, 0.1), sin * sign, cos, uniform(-0.1, 0.1)], dim=1).view(
        -1, 2, 3
    )
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast, brightness = uniform(0.9, 1.1).view(-1, 1, 1, 1), uniform(-0.1, 0.1).view(-1, 1, 1, 1)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean + brightness).clamp_(0, 1)
