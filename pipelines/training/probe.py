"""What a trained network is asked beyond its test: corrupted test images, and where it looked.

A run keeps no weights, so it is asked while they are there. Two files join the run's folder:
    corruptions.npz  indices (n,), labels (n,), clean (n,) and predicted (kinds, 5, n): class numbers, uint8; kinds
    gradcam.npz      indices (n,), maps (n, h, w) uint8, 255 the strongest position, for the class named on the image
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from pipelines.files import records
from pipelines.training import loop
from pipelines.training.corruptions import KINDS, SEVERITIES, corrupt
from pipelines.training.gradcam import gradcam


def run(model, data, train: dict, device: torch.device, folder: Path, *, images: int | None) -> None:
    """Ask a trained network about at most `images` test images, spread evenly over the split, and write the files."""
    indices = data.splits["test"]
    if images is not None and images < len(indices):
        indices = indices[np.linspace(0, len(indices) - 1, images).round().astype(int)]
    data = dataclasses.replace(data, splits={"test": indices})
    clean = loop.evaluate_split(model, data, "test", train, device)
    predicted = [[_predicted(model, data, train, device, kind, severity) for severity in SEVERITIES] for kind in KINDS]
    arrays = {"indices": indices, "labels": clean.labels, "clean": clean.probabilities.argmax(1).astype(np.uint8)}
    records.write_arrays(
        folder / "corruptions.npz", **arrays, predicted=np.array(predicted, np.uint8), kinds=np.array(KINDS)
    )
    maps = []
    for batch, _ in loop.batches_of(data, "test", train, device).in_order():
        with loop.autocast(train, device):
            maps.append(gradcam(model, batch).mul(255).round().byte().cpu())
    records.write_arrays(folder / "gradcam.npz", indices=indices, maps=torch.cat(maps).numpy())


def _predicted(model, data, train, device, kind, severity) -> np.ndarray:
    """The classes named on the corrupted images: the same noise for every method and seed."""
    generator = torch.Generator().manual_seed(1000 * KINDS.index(kind) + severity)

    def change(images):
        return corrupt(images, kind, severity, generator)

    seen = loop.evaluate_split(model, data, "test", train, device, change=change)
    return seen.probabilities.argmax(1).astype(np.uint8)
