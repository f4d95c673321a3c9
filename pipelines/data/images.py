"""Prepared images as batches on the device: gather, augment, normalise.

Images stay uint8 until they are in a batch: memory-mapped on a CPU, on the GPU as a whole when they fit there.
All random numbers come from one CPU generator a epoch, so a run gives the same batches on every device.
"""

from collections.abc import Callable

import torch

from pipelines.data.augmentation import augmented, moved
from pipelines.data.prepared import Prepared, open_prepared

__all__ = ["Batches", "Features", "Prepared", "open_prepared"]

# Of ImageNet's training images, RGB in 0..1; the constants torchvision and timm use.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Mean and standard deviation by the recipe's `input`, of RGB values in 0..1.
NORMALISATION = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "unit": ((0.0,) * 3, (1.0,) * 3),
    "half": ((0.5,) * 3, (0.5,) * 3),
    "raw": ((0.0,) * 3, (1 / 255,) * 3),
}


class Batches:
    """Batches of one split: (images float32 (B, 3, H, W) channels-last on the device, labels int64 (B,)).

    `options` is what a network is called with beside them. `balanced`: whether `shuffled` draws as many images with
    replacement, each class as often, instead of every image once.
    """

    options: dict = {}

    def __init__(
        self,
        data: Prepared,
        split: str,
        *,
        batch_size: int,
        input: str,
        device: torch.device,
        augment: str = "none",
        balanced: bool = False,
    ):
        self.balanced = balanced
        self.data, self.split, self.device, self.augment = data, split, device, augment
        self.indices = torch.from_numpy(data.splits[split])
        self.batch_size = batch_size
        mean, std = NORMALISATION[input]
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
        order = _order(self.data.labels[self.indices], self.balanced, generator)
        for chunk in _chunks(order, self.batch_size):
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
    """As `Batches`, in the same order and size, but of what `features` made, once, of the unaugmented images.

    Args:
        features: a batch of images to its maps (B, C, H, W) or vectors (B, C); called with the batches of `batches`.
        options: what the network is then called with, so that it goes on behind them.
        batch_size: of `shuffled` and `in_order`, where `batches` has that of evaluation.
        limit: bytes that all features may take.

    Raises:
        MemoryError: they would take more.
    """

    def __init__(
        self,
        batches: Batches,
        features: Callable,
        *,
        options: dict,
        batch_size: int,
        limit: int,
        balanced: bool = False,
    ):
        self.balanced = balanced
        self.options, self.batch_size, self.device = options, batch_size, batches.device
        count, done, labels = len(batches.indices), 0, []
        for images, own_labels in batches.in_order():
            maps = features(images)
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
        for chunk in _chunks(_order(self.labels, self.balanced, generator), self.batch_size):
            chunk = moved(chunk, self.device)
            yield self.maps[chunk], self.labels[chunk]


def _order(labels: torch.Tensor, balanced: bool, generator: torch.Generator) -> torch.Tensor:
    """The order in which an epoch sees images with these labels (N,)."""
    if not balanced:
        return torch.randperm(len(labels), generator=generator)
    labels = labels.cpu()
    weights = 1 / torch.bincount(labels).double()[labels]
    return torch.multinomial(weights, len(labels), replacement=True, generator=generator)


def _chunks(order: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """An order in pieces; a last one of one image would break BatchNorm, so it joins the one before."""
    chunks = list(order.split(batch_size))
    if len(chunks) > 1 and len(chunks[-1]) == 1:
        chunks[-2:] = [torch.cat(chunks[-2:])]
    return chunks
