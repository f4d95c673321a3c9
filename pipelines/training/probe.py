"""What a trained network is asked beyond its test: corrupted test images, and where it looked.

A run may keep no weights, so it is asked while they are there. Two files join the run's folder:
    corruptions.npz  indices (n,), labels (n,), clean (n,) and predicted (kinds, 5, n): class numbers, uint8; kinds
    gradcam.npz      indices (n,), maps (n, h, w) uint8, 255 the strongest position, for the class named on the image
"""

from pathlib import Path

import numpy as np
import torch

from pipelines.files import records
from pipelines.profile import Train
from pipelines.training import loop
from pipelines.training.corruptions import KINDS, SEVERITIES, corrupt
from pipelines.training.gradcam import gradcam
from pipelines.training.loaders import batches_of, only
from pipelines.training.step import autocast


def run(model, data, recipe: Train, device: torch.device, folder: Path, *, images: int | None) -> None:
    """Ask a trained network about at most `images` test images, spread evenly over the split, and write the files."""
    indices = data.splits["test"]
    if images is not None and images < len(indices):
        indices = indices[np.linspace(0, len(indices) - 1, images).round().astype(int)]
    batches = batches_of(only(data, "test", indices), "test", recipe, device)
    clean = loop.evaluate(model, batches, recipe, device)
    predicted = [
        [_predicted(model, batches, recipe, device, kind, severity) for severity in SEVERITIES] for kind in KINDS
    ]
    arrays = {"indices": indices, "labels": clean.labels, "clean": clean.probabilities.argmax(1).astype(np.uint8)}
    records.write_arrays(
        folder / "corruptions.npz", **arrays, predicted=np.array(predicted, np.uint8), kinds=np.array(KINDS)
    )
    maps = []
    for pictures, _ in batches.in_order():
        with autocast(recipe, device):
            maps.append(gradcam(model, pictures).mul(255).round().byte().cpu())
    records.write_arrays(folder / "gradcam.npz", indices=indices, maps=torch.cat(maps).numpy())


def _predicted(model, batches, recipe, device, kind, severity) -> np.ndarray:
    """The classes named on the corrupted images: the same noise for every method and seed."""
    generator = torch.Generator().manual_seed(1000 * KINDS.index(kind) + severity)

    def change(images):
        with torch.autocast(device.type, enabled=False):  # a blur in bfloat16 is off by a grey level
            return corrupt(images, kind, severity, generator)

    seen = loop.evaluate(model, batches, recipe, device, change=change)
    return seen.probabilities.argmax(1).astype(np.uint8)
