"""Every batch that a run sees, made in one place before it trains."""

import dataclasses
from dataclasses import dataclass

import torch

from pipelines.data.images import Batches, Features, Prepared
from pipelines.profile import Train, train_split
from pipelines.training.step import autocast

FEATURES = 2**30  # bytes of frozen features that a run on a CPU keeps


@dataclass(frozen=True)
class Loaders:
    """The batches of one run.

    train: as training sees them. seen: the same images once, unaugmented. val, test: in the splits' own order.
    external: of each external data set, by its name. counts: training images of each class, (C,).
    """

    train: Batches | Features
    val: Batches | Features
    test: Batches
    seen: Batches
    external: dict[str, Batches]
    counts: torch.Tensor


def make_loaders(
    model: torch.nn.Module,
    data: Prepared,
    recipe: Train,
    device: torch.device,
    external: dict[str, Prepared] | None = None,
) -> Loaders:
    """The batches of a run; behind the frozen layers in front, where these always give the same for an image."""
    split = train_split(recipe)
    train = batches_of(data, split, recipe, device, training=True)
    if recipe.augment == "none":
        train = precompute_frozen_features(model, train, recipe, device)
    return Loaders(
        train=train,
        val=precompute_frozen_features(model, batches_of(data, "val", recipe, device), recipe, device),
        test=batches_of(data, "test", recipe, device),
        seen=batches_of(data, split, recipe, device),
        external={name: batches_of(other, "test", recipe, device) for name, other in (external or {}).items()},
        counts=torch.bincount(data.labels[torch.from_numpy(data.splits[split])].cpu(), minlength=len(data.classes)),
    )


def batches_of(data: Prepared, split: str, recipe: Train, device: torch.device, *, training: bool = False) -> Batches:
    """The batches of a split: as they are evaluated, or of the recipe's size, augmentation and sampler."""
    return Batches(
        data,
        split,
        batch_size=recipe.batch_size if training else recipe.eval_batch_size,
        input=recipe.input,
        device=device,
        augment=recipe.augment if training else "none",
        balanced=training and recipe.sampler == "balanced",
    )


def precompute_frozen_features(
    model: torch.nn.Module, batches: Batches, recipe: Train, device: torch.device
) -> Batches | Features:
    """The batches as they leave the layers in front that training does not change, computed once and without a graph.

    They stay images where there are no such layers, or where the features would take more than an eighth of the GPU's
    memory or than is free there, on a CPU more than `FEATURES`. Where batches are of another size than those in which
    the features are made, sums may be rounded otherwise.
    """
    model.train()
    depth = model.frozen_depth() if hasattr(model, "frozen_depth") else 0
    if not depth:
        return batches
    limit = torch.cuda.get_device_properties(device).total_memory // 8 if device.type == "cuda" else FEATURES
    whole = batches_of(batches.data, batches.split, recipe, device)

    @torch.no_grad()
    def features(images):
        with autocast(recipe, device):
            return model.forward_features(images, depth)

    try:
        return Features(
            whole,
            features,
            options={"from_depth": depth},
            batch_size=batches.batch_size,
            limit=limit,
            balanced=batches.balanced,
        )
    except (MemoryError, torch.OutOfMemoryError):
        return batches


def only(data: Prepared, split: str, indices) -> Prepared:
    """The data with these images (a sequence of their numbers) as their one split."""
    return dataclasses.replace(data, splits={split: indices})
